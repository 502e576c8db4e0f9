//! Makes the requests of a plan, in a closed loop or at their times, and sees what becomes of each.

use crate::client::{Headers, Http, number, retry_after};
use crate::live::Live;
use crate::plan::Planned;
use crate::protocol::{Protocol, Stream, whole};
use crate::sample::Sample;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::BodyExt;
use hyper::Method;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How requests are made.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) protocol: Protocol,
    pub(crate) is_streaming: bool,
    pub(crate) polls: bool,
    pub(crate) poll_interval: Duration,
    pub(crate) poll_timeout: Duration,
    /// Keys of users, in turn; without any, users are named.
    pub(crate) keys: Vec<String>,
    /// The project of each user, where it is known.
    pub(crate) projects: HashMap<String, String>,
    /// The backend of each model, where it is known.
    pub(crate) backends: HashMap<String, String>,
    pub(crate) concurrency: usize,
    pub(crate) gap: Duration,
    /// How often a refusal that says when to come back is tried again.
    pub(crate) retries: u32,
    /// Requests under way at once in an open loop, at most; more are late, and it is told.
    pub(crate) most_open: usize,
}

/// What was seen of all.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) samples: Vec<Sample>,
    /// Between tokens, in microseconds.
    pub(crate) gaps: Histogram<u64>,
    pub(crate) lasted: Duration,
}

/// Gaps between tokens up to a minute, in microseconds, to three digits.
pub(crate) fn gaps() -> Histogram<u64> {
    let made = Histogram::new_with_bounds(1, 60_000_000, 3);
    made.unwrap_or_else(|_| unreachable!("the bounds are right"))
}

/// Runs a plan to its end, or until Ctrl-C: what was begun is then seen to its end, and nothing else begun.
pub(crate) async fn run(http: &Http, plan: Vec<Planned>, settings: &Settings, live: Arc<Live>) -> Seen {
    let began = Instant::now();
    let runner = Arc::new(Runner {
        http: http.clone(),
        settings: settings.clone(),
        live: Arc::clone(&live),
        began,
        samples: Mutex::new(Vec::with_capacity(plan.len())),
        gaps: Mutex::new(gaps()),
    });
    let is_open = plan.first().is_some_and(|planned| planned.at.is_some());
    let all = async {
        if is_open {
            open_loop(&runner, plan).await;
        } else {
            closed_loop(&runner, plan).await;
        }
    };
    tokio::select! {
        () = all => {}
        _ = tokio::signal::ctrl_c() => live.say("interrupted: reports are written of what there is"),
    }
    let lasted = began.elapsed();
    live.end();
    let samples = std::mem::take(&mut *lock(&runner.samples));
    let gaps = std::mem::replace(&mut *lock(&runner.gaps), gaps());
    Seen { samples, gaps, lasted }
}

async fn closed_loop(runner: &Arc<Runner>, plan: Vec<Planned>) {
    let plan = Arc::new(plan);
    let next = Arc::new(AtomicUsize::new(0));
    let clients = (0..runner.settings.concurrency.min(plan.len())).map(|_| {
        let (runner, plan, next) = (Arc::clone(runner), Arc::clone(&plan), Arc::clone(&next));
        tokio::spawn(async move {
            while let Some(planned) = plan.get(next.fetch_add(1, Relaxed)) {
                runner.one(planned, Instant::now()).await;
                if !runner.settings.gap.is_zero() {
                    tokio::time::sleep(runner.settings.gap).await;
                }
            }
        })
    });
    futures_util::future::join_all(clients).await;
}

/// Each at its time, whether those before have been answered or not.
async fn open_loop(runner: &Arc<Runner>, plan: Vec<Planned>) {
    let places = Arc::new(Semaphore::new(runner.settings.most_open));
    let mut under_way = tokio::task::JoinSet::new();
    for planned in plan {
        let due = runner.began + planned.at.unwrap_or_default();
        tokio::time::sleep_until(due.into()).await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let runner = Arc::clone(runner);
        under_way.spawn(async move {
            runner.one(&planned, due).await;
            drop(place);
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}

struct Runner {
    http: Http,
    settings: Settings,
    live: Arc<Live>,
    began: Instant,
    samples: Mutex<Vec<Sample>>,
    gaps: Mutex<Histogram<u64>>,
}

impl Runner {
    /// One request from the moment at which it was to be sent.
    async fn one(&self, planned: &Planned, due: Instant) {
        self.live.began();
        let settings = &self.settings;
        let project = settings.projects.get(&planned.user);
        let mut sample = Sample {
            request_index: planned.index,
            user_id: planned.user.clone(),
            project_id: project.cloned().unwrap_or_default(),
            model: planned.model.clone(),
            backend_name: settings.backends.get(&planned.model).cloned().unwrap_or_default(),
            request_type: planned.kind.clone(),
            at_seconds: due.saturating_duration_since(self.began).as_secs_f64(),
            ..Sample::default()
        };
        let body: Bytes = settings
            .protocol
            .body(planned, project.map(String::as_str), settings.is_streaming)
            .into();
        let headers = self.headers(planned);
        for attempt in 0..=settings.retries {
            sample.retries = attempt;
            sample.error.clear();
            sample.reason.clear();
            let after = self.attempt(&mut sample, &headers, body.clone(), due).await;
            match after.filter(|_| attempt < settings.retries) {
                Some(after) => tokio::time::sleep(after).await,
                None => break,
            }
        }
        if sample.backend_status == "queued" && settings.polls {
            self.poll(&mut sample, &headers, due).await;
        } else {
            sample.final_backend_status.clone_from(&sample.backend_status);
            sample.end_to_end_latency_seconds = due.elapsed().as_secs_f64();
        }
        self.live.ended(&sample);
        lock(&self.samples).push(sample);
    }

    fn headers(&self, planned: &Planned) -> Headers {
        let keys = &self.settings.keys;
        let mut headers = Headers::default();
        if keys.is_empty() {
            headers.pairs.push(("x-sluice-user", planned.user.clone()));
        } else {
            headers.key = Some(keys[planned.index % keys.len()].clone());
        }
        if planned.kind == "batch" {
            headers.pairs.push(("x-sluice-class", "batch".to_owned()));
        }
        if let Some(session) = planned.session {
            headers.pairs.push(("x-sluice-session", format!("session-{session}")));
        }
        headers
    }

    /// Asks once; when to ask again, if the answer says so.
    async fn attempt(&self, sample: &mut Sample, headers: &Headers, body: Bytes, due: Instant) -> Option<Duration> {
        let path = self.settings.protocol.path();
        let sent = self.http.send(Method::POST, path, headers, body).await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                sample.error = error;
                "failed".clone_into(&mut sample.backend_status);
                sample.latency_seconds = due.elapsed().as_secs_f64();
                return None;
            }
        };
        sample.http_status = response.status().as_u16();
        sample.queue_wait_seconds = number(&response, "x-sluice-queue-ms").map(|millis| millis / 1000.0);
        let text = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        text("x-request-id").clone_into(&mut sample.request_id);
        text("x-sluice-degraded").clone_into(&mut sample.degraded);
        let after = retry_after(&response);
        let is_stream = self.settings.is_streaming && sample.http_status == 200;
        if is_stream && self.settings.protocol != Protocol::Generate {
            self.stream(sample, response.into_body(), due).await;
            return None;
        }
        match response.into_body().collect().await {
            Err(error) => {
                sample.error = format!("the answer broke off: {error}");
                "failed".clone_into(&mut sample.backend_status);
            }
            Ok(body) => {
                let read = whole(&body.to_bytes());
                sample.input_tokens = read.input_tokens.unwrap_or(0);
                sample.output_tokens = read.output_tokens.unwrap_or(0);
                sample.request_id = read.request_id.unwrap_or(std::mem::take(&mut sample.request_id));
                let is_good = sample.http_status == 200;
                sample.backend_status = match read.status {
                    Some(status) if is_good => status,
                    _ if is_good => "completed".to_owned(),
                    _ if matches!(sample.http_status, 408 | 504) => "timed_out".to_owned(),
                    _ if matches!(sample.http_status, 400..=499 | 503) => "rejected".to_owned(),
                    _ => "failed".to_owned(),
                };
                if !is_good {
                    sample.reason = read.reason.unwrap_or_default();
                    sample.error = read.message.unwrap_or_default();
                }
            }
        }
        sample.latency_seconds = due.elapsed().as_secs_f64();
        after.filter(|_| matches!(sample.http_status, 429 | 503))
    }

    async fn stream(&self, sample: &mut Sample, mut body: hyper::body::Incoming, due: Instant) {
        let mut stream = Stream::new(self.settings.protocol);
        let (mut pieces, mut last) = (0u64, None::<Instant>);
        let mut gaps = Vec::new();
        let mut broke = None;
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    broke = Some(format!("the stream broke off: {error}"));
                    break;
                }
            };
            let Some(data) = frame.data_ref() else { continue };
            let now = Instant::now();
            let arrived = stream.push(data) as u64;
            if arrived == 0 {
                continue;
            }
            match last {
                None => {
                    let first = due.elapsed().as_secs_f64();
                    sample.time_to_first_token_seconds = Some(first);
                    sample.latency_seconds = first;
                }
                Some(last) => gaps.push(now.saturating_duration_since(last)),
            }
            // Those that arrive together have no time between them.
            gaps.extend(std::iter::repeat_n(
                Duration::ZERO,
                usize::try_from(arrived - 1).unwrap_or(0),
            ));
            last = Some(now);
            pieces += arrived;
        }
        let whole = due.elapsed().as_secs_f64();
        sample.input_tokens = stream.read.input_tokens.unwrap_or(0);
        sample.output_tokens = stream.read.output_tokens.unwrap_or(pieces);
        if let Some(first) = sample.time_to_first_token_seconds.filter(|_| sample.output_tokens > 1) {
            let tokens = u32::try_from(sample.output_tokens - 1).unwrap_or(u32::MAX);
            sample.time_per_output_token_seconds = Some((whole - first) / f64::from(tokens));
        }
        let is_whole = stream.is_complete && stream.error.is_none() && broke.is_none();
        (if is_whole { "completed" } else { "failed" }).clone_into(&mut sample.backend_status);
        if !is_whole {
            sample.error = stream
                .error
                .or(broke)
                .unwrap_or_else(|| "the stream ended in the middle".to_owned());
        }
        self.live.tokens(pieces);
        let mut all = lock(&self.gaps);
        for gap in gaps {
            all.saturating_record(u64::try_from(gap.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    /// Asks what has become of a queued request, until it has come to an end.
    async fn poll(&self, sample: &mut Sample, headers: &Headers, due: Instant) {
        let began = Instant::now();
        let path = format!("/requests/{}", sample.request_id);
        loop {
            tokio::time::sleep(self.settings.poll_interval).await;
            sample.polling_attempts += 1;
            match self.http.get(&path, headers).await {
                Ok((_, body)) => {
                    let status = body["status"].as_str().unwrap_or_default();
                    status.clone_into(&mut sample.final_backend_status);
                    if !matches!(status, "queued" | "processing") {
                        sample.input_tokens = body["input_tokens"].as_u64().unwrap_or(0);
                        sample.output_tokens = body["output_tokens"].as_u64().unwrap_or(0);
                        body["detail"]
                            .as_str()
                            .unwrap_or_default()
                            .clone_into(&mut sample.reason);
                        break;
                    }
                }
                Err(error) => sample.polling_error = error,
            }
            if began.elapsed() > self.settings.poll_timeout {
                "timed_out".clone_into(&mut sample.final_backend_status);
                sample.polling_error = format!("no end within {} s", self.settings.poll_timeout.as_secs_f64());
                break;
            }
        }
        sample.final_latency_seconds = began.elapsed().as_secs_f64();
        sample.end_to_end_latency_seconds = due.elapsed().as_secs_f64();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
