//! The gateway besides its answers: projects of users, backends of models, queue and degradation level.

use crate::client::Http;
use crate::summary::Watched;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The timeout of requests to the admin listener.
const PATIENCE: Duration = Duration::from_secs(2);

/// The admin listener.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    http: Http,
    headers: HeaderMap,
}

impl Admin {
    /// Finds the admin listener.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub(crate) async fn find(url: &str, token: Option<&str>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()) {
            headers.insert(AUTHORIZATION, token);
        }
        let admin = Self {
            http: Http::new(url)?,
            headers,
        };
        match tokio::time::timeout(PATIENCE, admin.http.get("/queue/status", &admin.headers)).await {
            Ok(Ok((200, status))) if status["queue_size"].is_u64() => Ok(admin),
            Ok(Ok((401, _))) => {
                Err("it asks for the admin token (--admin-token, SLUICE_ADMIN_TOKEN or data/admin.token)".to_owned())
            }
            Ok(Ok((status, _))) => Err(format!("it answered with HTTP {status}")),
            Ok(Err(failure)) => Err(failure.message),
            Err(_) => Err("it did not answer".to_owned()),
        }
    }

    /// The project of each user, and the backend of each model.
    pub(crate) async fn known(&self) -> (HashMap<String, String>, HashMap<String, String>) {
        let config = self.http.get("/config/summary", &self.headers).await;
        let (_, config) = config.unwrap_or_default();
        let named = |section: &str, field: &str| {
            let entries = find(&config, section).and_then(Value::as_object).into_iter().flatten();
            let pairs = entries.filter_map(|(name, entry)| Some((name.clone(), entry[field].as_str()?.to_owned())));
            pairs.collect::<HashMap<_, _>>()
        };
        (named("users", "project_id"), named("models", "backend"))
    }

    /// Records the queue and the degradation level five times a second.
    pub(crate) fn watch(self) -> Watch {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let began = Instant::now();
        let task = tokio::spawn(async move {
            loop {
                if let Ok((200, status)) = self.http.get("/queue/status", &self.headers).await {
                    let (_, queue) = self.http.get("/queue", &self.headers).await.unwrap_or_default();
                    let waits = |class: &str| queue["by_priority"][class].as_u64().unwrap_or(0);
                    let count = |name: &str| status[name].as_u64().unwrap_or(0);
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(Watched {
                        at_seconds: began.elapsed().as_secs_f64(),
                        queue_size: count("queue_size"),
                        active: count("active_requests"),
                        level: count("current_degradation_level_number"),
                        by_class: ["high", "normal", "low", "batch"].map(waits),
                    });
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Watch { seen, task }
    }
}

/// A recording that goes on.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Watched>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Ends the recording.
    pub(crate) fn end(self) -> Vec<Watched> {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The backend of each model as `/v1/models` publishes it (`owned_by`), used without the admin listener.
pub(crate) async fn published_backends(http: &Http, headers: &HeaderMap) -> HashMap<String, String> {
    let Ok(Ok((200, list))) = tokio::time::timeout(PATIENCE, http.get("/v1/models", headers)).await else {
        return HashMap::new();
    };
    let models = list["data"].as_array().into_iter().flatten();
    let pairs =
        models.filter_map(|model| Some((model["id"].as_str()?.to_owned(), model["owned_by"].as_str()?.to_owned())));
    pairs.collect()
}

/// A section by its name, at any depth.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields
        .get(name)
        .or_else(|| fields.values().find_map(|inner| find(inner, name)))
}
