//! Projects with equal rights before one server of so many slots, each with more to do than it gets: what share of the
//! slots each has when parts of prompts are cached.

use super::Random;
use policy::{
    AdmissionRequest, Class, Decision, GlobalLimits, ModelId, PlanId, Policy, Priority, ProjectId, Rules, Settlement,
    TicketId, Time, TokenWeights, Usage, UserId,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

const SLOTS: usize = 16;
const WAITING: usize = 8;

/// The requests of a project.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub input: u64,
    /// The part of the prompt that the server has in its cache.
    pub cached: f64,
    pub output: u64,
}

/// The share of each project, in the order of the clients.
#[derive(Debug)]
pub struct Given {
    /// Parts of the slots' time.
    pub shares: Vec<f64>,
    /// Work with cached tokens at a tenth, and with none.
    pub work: Vec<f64>,
    pub uncached_work: Vec<f64>,
}

/// Jain's index of fairness.
pub fn jain(served: &[f64]) -> f64 {
    let sum: f64 = served.iter().sum();
    sum * sum / (served.len() as f64 * served.iter().map(|each| each * each).sum::<f64>())
}

/// Serves so many requests. Sizes vary by half around the clients'.
pub fn share(clients: &[Client], weights: TokenWeights, requests: usize, seed: u64) -> Given {
    let mut policy = Policy::new(rules(weights));
    let mut random = Random(seed);
    let mut given = Given {
        shares: vec![0.0; clients.len()],
        work: vec![0.0; clients.len()],
        uncached_work: vec![0.0; clients.len()],
    };
    let mut known: HashMap<TicketId, (usize, Usage)> = HashMap::new();
    let mut waiting = vec![0; clients.len()];
    let mut running: BinaryHeap<Reverse<(Time, TicketId)>> = BinaryHeap::new();
    let mut now = Time::after_epoch(Duration::from_secs(1));
    for _ in 0..requests {
        for (at, client) in clients.iter().enumerate() {
            while waiting[at] < WAITING {
                let usage = client.usage(&mut random);
                let ticket = match policy.offer(&ask(at, usage.input_tokens), now).0 {
                    Decision::Admit(grant) => {
                        running.push(Reverse((now + given.count(at, &usage), grant.ticket)));
                        grant.ticket
                    }
                    Decision::Queue(queued) => {
                        waiting[at] += 1;
                        queued.ticket
                    }
                    Decision::Reject(refusal) => panic!("{refusal}"),
                    Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
                };
                known.insert(ticket, (at, usage));
            }
        }
        let Reverse((end, ended)) = running.pop().expect("something runs");
        now = end;
        let (_, usage) = known.remove(&ended).expect("it is known");
        let settlement = Settlement {
            usage,
            has_completed: true,
            was_answered: true,
            was_forwarded: true,
            ..Settlement::default()
        };
        policy.settle(ended, &settlement, now);
        while let Some(ticket) = policy.next(now) {
            let (at, usage) = known[&ticket];
            waiting[at] -= 1;
            running.push(Reverse((now + given.count(at, &usage), ticket)));
        }
    }
    let total: f64 = given.shares.iter().sum();
    given.shares.iter_mut().for_each(|share| *share /= total);
    given
}

fn rules(token_weights: TokenWeights) -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: SLOTS,
            max_queue_size: 1_000,
            max_queue_wait: Duration::from_secs(1_000_000),
        },
        token_weights,
        ..Rules::default()
    }
}

fn ask(project: usize, input_tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project as u32),
        user: UserId(project as u32),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens,
        least_input_tokens: input_tokens,
        max_tokens: 1024,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

impl Client {
    fn usage(&self, random: &mut Random) -> Usage {
        let mut around = |tokens: u64| (tokens as f64 * (0.5 + random.unit())) as u64;
        let input_tokens = around(self.input);
        Usage {
            input_tokens,
            cached_input_tokens: (input_tokens as f64 * self.cached) as u64,
            output_tokens: around(self.output),
            ..Usage::default()
        }
    }
}

impl Given {
    /// Counts a request that starts; how long it holds its slot.
    fn count(&mut self, at: usize, usage: &Usage) -> Duration {
        let uncached = usage.input_tokens - usage.cached_input_tokens;
        let takes = super::service(uncached, usage.output_tokens);
        self.shares[at] += takes.as_secs_f64();
        let work = (uncached + 2 * usage.output_tokens) as f64;
        self.uncached_work[at] += work;
        self.work[at] += work + usage.cached_input_tokens as f64 / 10.0;
        takes
    }
}
