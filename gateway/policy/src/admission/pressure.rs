//! The part of the queue that is held back by capacity that requests share, as degradation sees it.
//!
//! A request that waits for its own project's limit, or that is next and could run, is no pressure on others. One
//! that waits for a slot of its model presses on that model alone; one that waits for a slot of all, on all.

use super::state::{Model, Scheduler, flow_mut};
use crate::fairness::HeldBack;
use crate::{ModelId, ProjectId, QueueClass, Rules};

/// The requests that press on a model: those that may be served, and those of paused batch class beside them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pressing {
    pub(crate) active: HeldBack,
    pub(crate) paused: HeldBack,
}

impl Pressing {
    pub(crate) fn plus(mut self, other: Self) -> Self {
        self.active.add(other.active);
        self.paused.add(other.paused);
        self
    }

    /// All of them, the paused ones too.
    pub(crate) fn all(mut self) -> HeldBack {
        self.active.add(self.paused);
        self.active
    }
}

impl Scheduler {
    /// Updates what a flow adds to the pressure, after it or its project's freedom to run has changed.
    pub(super) fn recount(&mut self, project: ProjectId, model: ModelId, class: QueueClass) {
        let state = &mut self.projects[project];
        let (is_free, free_since) = (state.is_free, state.free_since);
        let flow = flow_mut(&mut state.flows, model, class);
        let first = flow.by_age.first.filter(|_| is_free);
        let oldest = first.and_then(|index| self.tickets.at(index));
        let now = HeldBack {
            waiting: if is_free { flow.by_age.len } else { 0 },
            since: oldest.map(|ticket| ticket.since.max(free_since)),
        };
        let before = std::mem::replace(&mut flow.held_back, now);
        let queue = &mut self.models[model].classes[class];
        queue.held_back = queue.held_back - before.waiting + now.waiting;
        if before.since != now.since {
            if let Some(since) = before.since {
                queue.oldest.remove(&(since, project));
            }
            queue.oldest.extend(now.since.map(|since| (since, project)));
        }
    }

    /// Updates what all flows of a project add to the pressure.
    pub(super) fn recount_project(&mut self, project: ProjectId) {
        for class in QueueClass::ALL {
            for at in 0..self.projects[project].flows[class].len() {
                let model = self.projects[project].flows[class][at].model;
                self.recount(project, model, class);
            }
        }
    }

    /// The requests that wait for a slot of all. `is_paused` says of which models batch requests are paused.
    pub(crate) fn pressing_on_all(&self, rules: &Rules, is_paused: impl Fn(ModelId) -> bool) -> Pressing {
        let mut pressing = Pressing::default();
        if self.waiting == 0 {
            return pressing;
        }
        for class in QueueClass::ALL {
            if self.class_fits(rules, class) {
                continue;
            }
            for (id, model) in self
                .models
                .iter()
                .filter(|(_, model)| model.waiting > 0 && !model.is_full())
            {
                let is_paused = class == QueueClass::Batch && is_paused(id);
                pressing = pressing.plus(model.pressing(class, is_paused));
            }
        }
        pressing
    }

    /// The requests that wait for a slot of this model.
    pub(crate) fn pressing_on(&self, model: ModelId, is_paused: bool) -> Pressing {
        let full = self
            .models
            .get(model)
            .filter(|model| model.waiting > 0 && model.is_full());
        let classes = full.into_iter().flat_map(|model| {
            QueueClass::ALL.map(|class| model.pressing(class, is_paused && class == QueueClass::Batch))
        });
        classes.fold(Pressing::default(), Pressing::plus)
    }
}

impl Model {
    /// The requests of a class that shared capacity holds back; those that wait for a slot of all count from when the
    /// model has had one.
    fn pressing(&self, class: QueueClass, is_paused: bool) -> Pressing {
        let queue = &self.classes[class];
        let oldest = queue.oldest.first().map(|(since, _)| *since);
        let since = if self.is_full() {
            oldest
        } else {
            oldest.map(|since| since.max(self.free_since))
        };
        let held_back = HeldBack {
            waiting: queue.held_back,
            since,
        };
        if is_paused {
            return Pressing {
                paused: held_back,
                ..Pressing::default()
            };
        }
        Pressing {
            active: held_back,
            ..Pressing::default()
        }
    }
}
