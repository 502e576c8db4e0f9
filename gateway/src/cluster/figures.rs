//! What runs and waits at a gateway, as it tells it to the others with each heartbeat.

use crate::services::Services;
use policy::{ByClass, ModelId, ProjectId, QueueClass, SharedSlots};
use serde::{Deserialize, Serialize};

/// The models, and the projects, that are told of: those with the most requests.
const MOST: usize = 64;

/// Longer names are not told.
const LONGEST_NAME: usize = 200;

/// The requests of one gateway at a moment. Fields that a version does not know are left out, those that it lacks are 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Figures {
    pub(super) running: u64,
    pub(super) waiting: u64,
    /// By priority, and the batch class.
    pub(super) waiting_by_class: [u64; 4],
    /// Since its start.
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) level: u32,
    pub(super) pressure: f64,
    /// True once it finishes what runs and takes nothing new.
    pub(super) is_stopping: bool,
    /// Those with requests.
    pub(super) models: Vec<Held>,
    /// Those with requests.
    pub(super) projects: Vec<Held>,
}

/// The requests of one model or project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) running: u64,
    pub(super) waiting: u64,
    /// The slots that it has at this gateway; `None` where nothing limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slots: Option<u64>,
}

impl Figures {
    /// Those of this gateway.
    pub(super) fn of(services: &Services) -> Self {
        let snapshot = services.current.get();
        let config = &snapshot.config;
        let occupancy = services.gate.occupancy(config.models.len());
        let models = (0..)
            .take(config.models.len())
            .map(|at| SharedSlots::Model(ModelId(at)));
        let projects = (0..).take(config.projects.len());
        let projects = projects.map(|at| SharedSlots::Project(ProjectId(at)));
        let models = config.models.iter().zip(services.gate.in_use(models));
        let models = models.zip(&occupancy.models);
        let models = models.map(|((model, in_use), (_, slots))| Held::new(&model.name, in_use, *slots));
        let projects = config.projects.iter().zip(services.gate.in_use(projects));
        let projects = projects.map(|(project, in_use)| Held::new(&project.id, in_use, None));
        let (completed, failed) = services.metrics.counts();
        Self {
            running: whole(occupancy.active),
            waiting: whole(occupancy.waiting),
            waiting_by_class: by_class(&occupancy.waiting_by_class),
            completed,
            failed,
            level: occupancy.level,
            pressure: occupancy.pressure,
            is_stopping: services.shutdown.is_stopping(),
            models: busiest(models.collect()),
            projects: busiest(projects.collect()),
        }
    }

    /// As it is written with a heartbeat.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Those that another gateway has written; `None` where its version writes none, or others.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Held {
    fn new(name: &str, (running, waiting): (usize, usize), slots: Option<usize>) -> Self {
        Self {
            name: name.to_owned(),
            running: whole(running),
            waiting: whole(waiting),
            slots: slots.map(whole),
        }
    }
}

/// Those with requests, busiest first, as many as are told of.
fn busiest(mut all: Vec<Held>) -> Vec<Held> {
    all.retain(|held| held.running + held.waiting > 0 && held.name.len() <= LONGEST_NAME);
    all.sort_by_key(|held| std::cmp::Reverse(held.running + held.waiting));
    all.truncate(MOST);
    all
}

fn by_class(counts: &ByClass<usize>) -> [u64; 4] {
    QueueClass::ALL.map(|class| whole(counts[class]))
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_another_version_are_read_as_far_as_they_are_known() {
        let figures = Figures::from_json(r#"{"running": 3, "weather": "fine"}"#);
        assert_eq!(figures.map(|figures| (figures.running, figures.waiting)), Some((3, 0)));
        assert_eq!(Figures::from_json(""), None);
        assert_eq!(Figures::from_json(r#"{"running": "many"}"#), None);
    }

    #[test]
    fn what_is_written_is_bounded_and_names_the_busiest() {
        let held = |number: usize| Held::new(&format!("{number:>180}"), (number, 0), Some(number));
        let mut all: Vec<Held> = (0..1000).map(held).collect();
        all.push(Held::new(&"x".repeat(100_000), (5000, 0), None));
        let figures = Figures {
            models: busiest(all.clone()),
            projects: busiest(all),
            ..Figures::default()
        };
        assert_eq!(figures.models.len(), MOST);
        assert_eq!(figures.models[0].running, 999);
        let text = figures.to_json();
        assert!(text.len() < 40_000, "{}", text.len());
        assert_eq!(Figures::from_json(&text), Some(figures));
    }
}
