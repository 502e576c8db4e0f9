//! A second, slow count of all that runs and waits, for debug and test builds.

use super::state::{Scheduler, Turn};
use crate::QueueClass;
use crate::tickets::Ticket;

impl Scheduler {
    /// Compares the scheduler's counters with its tickets.
    ///
    /// # Panics
    ///
    /// Panics if they differ: a slot or a queue position has leaked.
    pub(crate) fn check(&self) {
        self.check_evictions();
        let count = |is_running: bool, is: &dyn Fn(&Ticket) -> bool| {
            let all = self.tickets.all();
            all.filter(|ticket| ticket.is_running == is_running && is(ticket))
                .count()
        };
        assert_eq!(self.running, count(true, &|_| true), "running");
        assert_eq!(self.waiting, count(false, &|_| true), "waiting");
        for class in QueueClass::ALL {
            let is = |ticket: &Ticket| ticket.class == class;
            assert_eq!(self.running_by_class[class], count(true, &is), "running in {class:?}");
            assert_eq!(self.bands[class].by_age.len, count(false, &is), "waiting in {class:?}");
        }
        for (id, model) in self.models.iter() {
            let is = |ticket: &Ticket| ticket.model == id;
            assert_eq!(model.capacity.running(), count(true, &is), "running for {id:?}");
            let tickets = self.tickets.all().filter(|ticket| ticket.is_running && is(ticket));
            let tokens: u64 = tickets.map(|ticket| ticket.tokens).sum();
            assert_eq!(model.capacity.tokens(), tokens, "tokens in flight for {id:?}");
            assert!(
                model.turn == Turn::Free || model.waiting > 0,
                "none waits, yet {id:?} is blocked"
            );
            assert_eq!(model.waiting, count(false, &is), "waiting for {id:?}");
            for class in QueueClass::ALL {
                let is_held_back =
                    |ticket: &Ticket| is(ticket) && ticket.class == class && self.projects[ticket.project].is_free;
                let counted = model.classes[class].held_back;
                assert_eq!(
                    counted,
                    count(false, &is_held_back),
                    "held back for {id:?} in {class:?}"
                );
            }
        }
        for (id, project) in self.projects.iter() {
            let is = |ticket: &Ticket| ticket.project == id;
            assert_eq!(project.running, count(true, &is), "running of {id:?}");
            assert_eq!(project.waiting, count(false, &is), "waiting of {id:?}");
        }
    }
}
