//! Requests a minute: what each project may send, by its plan.
//!
//! A plan's limit holds for each project on it, so that one project cannot use up another's. A cell
//! that has refilled is as good as none, so idle projects are forgotten.

use crate::cell::Cell;
use crate::{Ask, ProjectId, Refusal, Standing, Time};
use std::collections::HashMap;
use std::num::NonZeroU32;

/// Cells kept before the refilled ones are dropped.
const SWEEP_ABOVE: usize = 1024;

/// A plan's limit; `None` where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimit {
    /// Requests a minute for each project of the plan.
    pub requests_per_minute: Option<NonZeroU32>,
}

/// The rate cells of all projects that have sent something lately.
#[derive(Debug)]
pub struct RateLimits {
    plans: Vec<RateLimit>,
    cells: HashMap<ProjectId, (NonZeroU32, Cell)>,
    sweep_above: usize,
}

impl RateLimits {
    /// No request counted yet.
    pub fn new(plans: &[RateLimit]) -> Self {
        Self {
            plans: plans.to_vec(),
            cells: HashMap::new(),
            sweep_above: SWEEP_ABOVE,
        }
    }

    /// Takes one request from the project's cell.
    ///
    /// # Errors
    /// The refusal, with where the project stands.
    pub fn charge(&mut self, ask: &Ask, now: Time) -> Result<Standing, (Refusal, Standing)> {
        let Some(limit) = self.limit_of(ask) else {
            return Ok(Standing::default());
        };
        if self.cells.len() > self.sweep_above {
            self.forget_idle(now);
        }
        let (quota, cell) = self
            .cells
            .entry(ask.project)
            .or_insert_with(|| (limit, Cell::per_minute(limit)));
        if *quota != limit {
            (*quota, *cell) = (limit, Cell::per_minute(limit));
        }
        let taken = cell.take(now);
        let standing = Standing::of(limit, cell, now);
        taken.map(|()| standing).map_err(|retry_after| {
            let limit = limit.get();
            (Refusal::RateLimited { limit, retry_after }, standing)
        })
    }

    /// Gives a charged request back, because a later rule refused it.
    pub fn give_back(&mut self, ask: &Ask, now: Time) -> Standing {
        match self.cells.get(&ask.project) {
            Some((limit, cell)) => {
                cell.give_back();
                Standing::of(*limit, cell, now)
            }
            None => Standing::default(),
        }
    }

    /// Takes over changed limits; a cell whose limit is the same keeps what it has counted.
    pub fn reconfigure(&mut self, plans: &[RateLimit]) {
        self.plans = plans.to_vec();
    }

    fn limit_of(&self, ask: &Ask) -> Option<NonZeroU32> {
        let index = usize::try_from(ask.plan.0).ok()?;
        self.plans.get(index)?.requests_per_minute
    }

    fn forget_idle(&mut self, now: Time) {
        self.cells.retain(|_, (_, cell)| !cell.left(now).1.is_zero());
        self.sweep_above = SWEEP_ABOVE.max(self.cells.len() * 2);
    }
}

impl Standing {
    fn of(limit: NonZeroU32, cell: &Cell, now: Time) -> Self {
        let (remaining, reset) = cell.left(now);
        Self {
            limit: limit.get(),
            remaining,
            reset,
        }
    }
}
