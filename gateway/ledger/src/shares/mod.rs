//! Rate limits and slots that gateways share in a store: the accounts of [`policy::RateAccount`] and
//! [`policy::SlotAccount`], and the gateways that use them. The store is PostgreSQL, or Valkey or Redis. A gateway without
//! others takes all accounts over, and leases nothing until another one comes.
//!
//! A refresh is of a session, which begins with its connection: one that arrives late, when its gateway has connected anew,
//! changes nothing.

mod account;
mod postgres;
mod read;
mod redis;

pub use read::{SharedLevel, read};

use crate::error::Error;
use crate::id::GatewayId;
use policy::{RateGrant, RateReport, SlotGrant, SlotReport};
use std::time::Duration;

/// An operation takes at most so long.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);

/// The gateways that share rate limits, for one that uses the whole of them or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The other gateways that are live.
    pub others: u64,
    /// True if this one has taken all accounts over.
    pub is_sole: bool,
}

/// The reports of a refresh, by the ids of their accounts; those of slots begin with `slots/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reports {
    /// True if they are of all that is in use. A gateway that was alone uses the whole of all limits until the store has
    /// such reports: what it told of some limits must not give the others away.
    pub is_whole: bool,
    /// Of rate limits.
    pub rates: Vec<(String, RateReport)>,
    /// Of slots.
    pub slots: Vec<(String, SlotReport)>,
}

/// What is granted, for each report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// Of rate limits.
    pub rates: Vec<RateGrant>,
    /// Of slots.
    pub slots: Vec<SlotGrant>,
}

/// The answer to a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refreshed {
    /// The gateways that are live, this one included.
    pub members: u64,
    /// The position of this one among them, from 0.
    pub rank: u64,
    /// What is granted, if anything was taken over.
    pub outcome: Outcome,
}

/// What the store did with reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They are taken over.
    Granted(Grants),
    /// No use is taken over: another gateway uses the whole of all limits and does not know of this one, or the store has
    /// lost what was held and waits for others to tell.
    Waits,
    /// Nothing is taken over: the store has lost what this gateway holds, which is to be told anew.
    Forgotten,
}

/// A gateway's access to the shared rate limits and slots. Its operations are made one after the other. After an error it is
/// unknown whether what was sent has arrived.
#[async_trait::async_trait]
pub trait Shares: std::fmt::Debug + Send {
    /// How often credit is to be refreshed.
    fn refresh_every(&self) -> Duration;

    /// Tells that this gateway is live, while it leases nothing.
    ///
    /// # Errors
    /// When the store fails.
    async fn greet(&mut self) -> Result<Standing, Error>;

    /// Reports what was used of limits and slots, and draws credit. `listed` are the gateways that the database takes for live.
    ///
    /// # Errors
    /// When the store fails.
    async fn refresh(&mut self, reports: &Reports, listed: &[String]) -> Result<Refreshed, Error>;

    /// Takes all accounts over, if no other gateway is live; `None` if one is. Returns their levels.
    ///
    /// # Errors
    /// When the store fails.
    async fn take_over(&mut self, listed: &[String]) -> Result<Option<Vec<(String, u64)>>, Error>;

    /// Gives up what this gateway holds: it has ended.
    ///
    /// # Errors
    /// When the store fails.
    async fn leave(&mut self) -> Result<(), Error>;
}

/// The shared rate limits and slots of a cluster, for a member of it: in the store of `cluster_url` (`redis://…`,
/// `rediss://…`), or else in the database. Nothing is connected yet.
///
/// # Errors
/// When a URL cannot be used.
pub fn open(database_url: &str, cluster_url: Option<&str>, gateway: &GatewayId) -> Result<Box<dyn Shares>, Error> {
    Ok(match cluster_url {
        Some(url) => Box::new(redis::Redis::new(url, gateway)?),
        None => Box::new(postgres::Postgres::new(database_url, gateway)?),
    })
}

fn no_answer() -> Error {
    Error::Database(format!("no answer within {} ms", OPERATION_TIMEOUT.as_millis()))
}

fn another_session() -> Error {
    Error::Database("another session of this gateway has begun".to_owned())
}
