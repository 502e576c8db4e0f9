//! The expected wait of a request, and the refusal of one that would wait too long.

use super::state::{Scheduler, flow, project_slots, queue};
use crate::tickets::Ticket;
use crate::{Order, QueueClass, Refusal, Rules};
use std::time::Duration;

impl Scheduler {
    /// The wait of a new request at the present pace, and whether its project's own limit is the cause.
    ///
    /// Little's law gives the pace: as many end in a second as run, divided by how long one runs. Of that,
    /// a newcomer gets its user's share of its project's share of its band's share.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn expected(&self, rules: &Rules, ticket: &Ticket) -> (Duration, bool) {
        let model = &self.models[ticket.model];
        let Some(seconds) = model.service.0.or(self.service.0) else {
            return (Duration::ZERO, false);
        };
        let (running, waiting) = if model.is_full() {
            (model.capacity.running(), model.waiting)
        } else {
            (self.running, self.waiting)
        };
        let pace = running.max(1) as f64 / seconds.max(1e-6);
        let by_share = self.work_ahead(rules, ticket) / pace;
        let by_all = (waiting + 1) as f64 / pace;
        // Where shared capacity is free, only its project's own limit can hold it back.
        let is_free = !model.is_full() && self.class_fits(rules, ticket.class);
        let wait = if is_free { 0.0 } else { by_share.min(by_all) };
        let project = &self.projects[ticket.project];
        let own_slots = project_slots(rules, ticket.project, project.is_throttled);
        let own = if own_slots < usize::MAX {
            (project.waiting + 1) as f64 * seconds / own_slots.max(1) as f64
        } else {
            0.0
        };
        let longest = Duration::try_from_secs_f64(wait.max(own)).unwrap_or(Duration::MAX);
        (longest, own > wait)
    }

    /// Requests that will have been served before a newcomer of this kind is, at its shares.
    #[allow(clippy::cast_precision_loss)]
    fn work_ahead(&self, rules: &Rules, ticket: &Ticket) -> f64 {
        let class = ticket.class;
        let flow = flow(&self.projects[ticket.project].flows, ticket.model, class);
        let queue = queue(&self.users[ticket.user].queues, ticket.project, ticket.model, class);
        let own = queue.map_or(0, |queue| {
            queue.sessions.before(ticket.session, ticket.rank).min(queue.list.len)
        });
        let is_new_user = queue.is_none_or(|queue| queue.list.len == 0);
        let users = flow.map_or(0, |flow| flow.users.len()) + usize::from(is_new_user);
        let band = &self.bands[class];
        let is_new = flow.is_none_or(|flow| flow.by_age.len == 0);
        let projects = band.projects_waiting + usize::from(is_new);
        let turns = ((own + 1) * users.max(1) * projects.max(1)) as f64;
        let weight = |class| rules.scheduling.weight(class) as f64;
        match rules.scheduling.order {
            Order::Fifo => (self.waiting + 1) as f64,
            Order::Strict => {
                let above = self.bands.iter().filter(|(other, _)| *other < class);
                let above: usize = above.map(|(_, band)| band.by_age.len).sum();
                above as f64 + turns
            }
            Order::Weighted => {
                let others = QueueClass::ALL.into_iter();
                let others = others.filter(|other| *other != class && self.bands[*other].by_age.len > 0);
                turns * (1.0 + others.map(weight).sum::<f64>() / weight(class))
            }
        }
    }

    /// The refusal of a request whose wait is expected to last beyond its deadline.
    pub(super) fn too_late(
        &self,
        rules: &Rules,
        ticket: &Ticket,
        (expected, by_own_limit): (Duration, bool),
    ) -> Refusal {
        let longest = ticket.deadline - ticket.since;
        let retry_after = expected.saturating_sub(longest).max(Duration::from_secs(1));
        match ticket.objective {
            Some((milestone, within)) => Refusal::ObjectiveOutOfReach {
                milestone,
                within,
                expected: Some(expected),
                retry_after,
            },
            None => self.no_time(rules, ticket, by_own_limit, retry_after),
        }
    }

    pub(super) fn no_time(&self, rules: &Rules, ticket: &Ticket, by_own_limit: bool, retry_after: Duration) -> Refusal {
        let limit = project_slots(rules, ticket.project, self.projects[ticket.project].is_throttled);
        if by_own_limit && limit < usize::MAX {
            return Refusal::TooManyConcurrent { limit, retry_after };
        }
        Refusal::QueueTimeout {
            limit: rules.global.max_queue_wait,
            known_at_entry: true,
            retry_after,
        }
    }

    /// The refusal of a full queue: by the time a tenth of it has been served, trying again makes sense.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn full(&self, rules: &Rules, ticket: &Ticket) -> Refusal {
        let seconds = self.service.0.unwrap_or(1.0) * self.waiting as f64 / 10.0 / self.running.max(1) as f64;
        let retry_after = Duration::try_from_secs_f64(seconds)
            .unwrap_or(rules.global.max_queue_wait)
            .clamp(
                Duration::from_secs(1),
                rules.global.max_queue_wait.max(Duration::from_secs(1)),
            );
        if !self.projects[ticket.project].is_free {
            return self.no_time(rules, ticket, true, retry_after);
        }
        Refusal::QueueFull {
            size: self.waiting,
            retry_after,
        }
    }
}
