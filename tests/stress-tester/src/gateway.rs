//! What the admin listener knows: whose project a user is, which backend serves a model, and how the gateway is.

use crate::client::{Headers, Http};
use crate::summary::Watched;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The admin listener, where it can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    http: Http,
    headers: Headers,
}

impl Admin {
    /// `None`, with why, if it does not let us in.
    pub(crate) async fn find(url: &str, token: Option<String>) -> Result<Self, String> {
        let admin = Self {
            http: Http::new(url)?,
            headers: Headers {
                key: token,
                pairs: Vec::new(),
            },
        };
        match admin.http.get("/queue/status", &admin.headers).await {
            Ok((200, _)) => Ok(admin),
            Ok((401, _)) => {
                Err("it wants the admin token (--admin-token, SLUICE_ADMIN_TOKEN or data/admin.token)".to_owned())
            }
            Ok((status, _)) => Err(format!("it answers {status}")),
            Err(error) => Err(error),
        }
    }

    /// By user their project, by model its backend.
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

    /// Looks now and then, until it is dropped.
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

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Watched>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub(crate) fn end(self) -> Vec<Watched> {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A section by its name, wherever it stands.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields
        .get(name)
        .or_else(|| fields.values().find_map(|inner| find(inner, name)))
}
