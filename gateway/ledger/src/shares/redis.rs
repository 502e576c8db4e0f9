//! The store in Valkey or Redis: one script an operation, on the server's clock. The script is loaded where a server does not
//! know it; a changed script has another name.

use super::account::Lines;
use super::{Grants, OPERATION_TIMEOUT, Outcome, Refreshed, Reports, Shares, Standing, another_session, no_answer};
use crate::error::Error;
use crate::id::GatewayId;
use policy::{RateGrant, RateReport, SlotGrant, SlotReport};
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, ErrorKind, FromRedisValue, Script};
use std::collections::HashMap;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The keys, in one slot of a cluster's servers. The number is that of the accounts' form.
const KEYS: [&str; 3] = ["{sluice1}:members", ACCOUNTS, "{sluice1}:epoch"];
const ACCOUNTS: &str = "{sluice1}:accounts";

/// The script's numbers are doubles; amounts are bounded so that their sums are whole.
const MOST: u64 = 1 << 52;

/// The numbers before the grants of a refresh.
const BEFORE_GRANTS: usize = 4;

/// The store in Valkey or Redis.
#[derive(Debug)]
pub(super) struct Redis {
    client: Client,
    /// Host and port, for messages.
    address: String,
    gateway: GatewayId,
    script: Script,
    session: Option<Session>,
    /// True once this process has had a session.
    has_begun: bool,
}

#[derive(Debug)]
struct Session {
    connection: MultiplexedConnection,
    id: String,
}

impl Redis {
    pub(super) fn new(url: &str, gateway: &GatewayId) -> Result<Self, Error> {
        let client = client(url)?;
        Ok(Self {
            address: client.get_connection_info().addr().to_string(),
            client,
            gateway: gateway.clone(),
            script: Script::new(include_str!("store.lua")),
            session: None,
            has_begun: false,
        })
    }

    /// Runs an operation in this gateway's session; `None` if the store has begun anew without what this gateway holds.
    /// After an error, another session begins.
    async fn run<T: FromRedisValue>(&mut self, operation: &str, arguments: Vec<String>) -> Result<Option<T>, Error> {
        let failed = |error: redis::RedisError| Error::Database(format!("{}: {error}", self.address));
        let session = self.session.take();
        let work = async {
            let mut session = match session {
                Some(session) => session,
                None => {
                    let begun = self.begin().await;
                    let (session, is_known) = begun.map_err(|error| unusable(&self.client, &error))?;
                    if self.has_begun && !is_known {
                        return Ok::<_, Error>((session, None));
                    }
                    session
                }
            };
            let answer = self.call(&mut session, operation, arguments).await.map_err(failed)?;
            Ok((session, Some(answer)))
        };
        let done = tokio::time::timeout(OPERATION_TIMEOUT, work).await;
        let (session, answer) = done.map_err(|_| no_answer())??;
        (self.session, self.has_begun) = (Some(session), true);
        Ok(answer)
    }

    /// Connects and begins a session. Returns whether the store knows this gateway.
    async fn begin(&self) -> Result<(Session, bool), redis::RedisError> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let mut lines = info.lines();
        let server = lines.find_map(|line| line.strip_prefix("run_id:")).unwrap_or("unknown");
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let mut session = Session {
            connection,
            id: hex::encode(random),
        };
        let arguments = vec![server.trim().to_owned(), u8::from(!self.has_begun).to_string()];
        let (is_known,): (bool,) = self.call(&mut session, "begin", arguments).await?;
        Ok((session, is_known))
    }

    async fn call<T: FromRedisValue>(
        &self,
        session: &mut Session,
        operation: &str,
        arguments: Vec<String>,
    ) -> Result<T, redis::RedisError> {
        let mut call = self.script.prepare_invoke();
        for key in KEYS {
            call.key(key);
        }
        call.arg(operation)
            .arg(self.gateway.as_str())
            .arg(&session.id)
            .arg(arguments);
        call.invoke_async(&mut session.connection).await
    }

    /// Numbers of an answer; an error where another session has begun.
    fn numbers(&mut self, answer: Vec<i64>) -> Result<Vec<u64>, Error> {
        if answer.first() == Some(&-1) {
            self.session = None;
            return Err(another_session());
        }
        Ok(answer.into_iter().map(|number| number.max(0).unsigned_abs()).collect())
    }
}

#[async_trait::async_trait]
impl Shares for Redis {
    fn refresh_every(&self) -> Duration {
        Duration::from_millis(100)
    }

    async fn greet(&mut self) -> Result<Standing, Error> {
        // One that is forgotten does not use the whole of all limits by the store's leave.
        let Some(answer) = self.run("greet", Vec::new()).await? else {
            return Ok(Standing {
                others: 0,
                is_sole: false,
            });
        };
        match *self.numbers(answer)? {
            [others, is_sole] => Ok(Standing {
                others,
                is_sole: is_sole == 1,
            }),
            _ => Err(unknown()),
        }
    }

    async fn refresh(&mut self, reports: &Reports, listed: &[String]) -> Result<Refreshed, Error> {
        let Some(answer) = self.run("refresh", arguments(reports, listed)).await? else {
            return Ok(Refreshed {
                members: 1,
                rank: 0,
                outcome: Outcome::Forgotten,
            });
        };
        let answer = self.numbers(answer)?;
        let [members, rank, is_granted, _] = *answer.first_chunk::<BEFORE_GRANTS>().ok_or_else(unknown)?;
        let outcome = match is_granted {
            1 => Outcome::Granted(grants(reports, &answer[BEFORE_GRANTS..])?),
            _ => Outcome::Waits,
        };
        Ok(Refreshed { members, rank, outcome })
    }

    async fn take_over(&mut self, listed: &[String]) -> Result<Option<Vec<(String, u64)>>, Error> {
        let Some(answer) = self.run::<Vec<String>>("take_over", vec![listed.join(" ")]).await? else {
            return Ok(None);
        };
        match answer.split_first() {
            None => Ok(None),
            Some((first, levels)) if first == "levels" => {
                let levels = levels.chunks_exact(2);
                let levels = levels.map(|pair| Ok((pair[0].clone(), pair[1].parse().map_err(|_| unknown())?)));
                levels.collect::<Result<_, _>>().map(Some)
            }
            Some(_) => {
                self.session = None;
                Err(another_session())
            }
        }
    }

    async fn leave(&mut self) -> Result<(), Error> {
        self.run::<Vec<i64>>("leave", Vec::new()).await.map(drop)
    }
}

fn client(url: &str) -> Result<Client, Error> {
    // For rediss://; an error means that it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::open(url).map_err(|error| Error::Setup(format!("invalid cluster URL: {error}")))
}

/// The reason why no session begins, with what to do about it.
fn unusable(client: &Client, error: &redis::RedisError) -> Error {
    let address = client.get_connection_info().addr();
    let is_tls = matches!(address, ConnectionAddr::TcpTls { .. });
    let text = error.to_string();
    let reason = if is_tls && text.contains("certificate") {
        format!(
            "the server's certificate cannot be verified: {text}; rediss:// trusts the system's authorities, or those in the \
             file that the variable SSL_CERT_FILE names"
        )
    } else if is_tls && text.contains("InvalidContentType") {
        format!("the server does not speak TLS: {text}; without TLS, the URL begins with redis://")
    } else if error.kind() == ErrorKind::AuthenticationFailed || text.contains("NOAUTH") {
        format!("the password in the cluster URL is wrong or missing: {text}")
    } else if !is_tls && error.is_connection_dropped() && !error.is_connection_refusal() {
        format!("the connection ended at once: {text}; if the server demands TLS, the URL begins with rediss://")
    } else {
        text
    };
    Error::Database(format!("{address}: {reason}"))
}

/// Reads accounts, of no session.
pub(super) async fn read(url: &str, ids: &[String]) -> Result<Lines, Error> {
    let client = client(url)?;
    let failed =
        |error: redis::RedisError| Error::Database(format!("{}: {error}", client.get_connection_info().addr()));
    let connected = client.get_multiplexed_async_connection().await;
    let mut connection = connected.map_err(|error| unusable(&client, &error))?;
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await.map_err(failed)?;
    let mut by_id = HashMap::new();
    for id in ids {
        let read = redis::cmd("HGET")
            .arg(ACCOUNTS)
            .arg(id)
            .query_async(&mut connection)
            .await;
        if let Some(line) = read.map_err(failed)? {
            by_id.insert(id.clone(), line);
        }
    }
    Ok(Lines {
        now_us: seconds.saturating_mul(1_000_000).saturating_add(micros),
        by_id,
    })
}

fn arguments(reports: &Reports, listed: &[String]) -> Vec<String> {
    let number = |amount: u64| amount.min(MOST).to_string();
    let flag = |is: bool| u8::from(is).to_string();
    let mut arguments = vec![listed.join(" "), flag(reports.is_whole)];
    let counts = [reports.rates.len() as u64, reports.slots.len() as u64].map(number);
    let [rates, slots] = counts;
    arguments.extend([rates, slots]);
    for (id, report) in &reports.rates {
        let RateReport {
            rate: _,
            burst,
            level,
            announces,
            used,
            refunded,
            held,
            demand,
            size,
            least,
            most,
        } = *report;
        arguments.extend([id.clone(), number(burst), number(level), flag(announces)]);
        arguments.extend([used, refunded, held, demand, size, least, most].map(number));
    }
    for (id, report) in &reports.slots {
        let SlotReport {
            slots: _,
            limit,
            held,
            demand,
        } = *report;
        arguments.push(id.clone());
        arguments.extend([limit, held, demand].map(number));
    }
    arguments
}

fn grants(reports: &Reports, numbers: &[u64]) -> Result<Grants, Error> {
    let (rates, slots) = numbers.split_at_checked(5 * reports.rates.len()).ok_or_else(unknown)?;
    if slots.len() != 2 * reports.slots.len() {
        return Err(unknown());
    }
    let rates = rates.chunks_exact(5).map(|grant| RateGrant {
        granted: grant[0],
        target: grant[1],
        level: grant[2],
        lowest: grant[3],
        wait: grant[4],
    });
    let slots = slots.chunks_exact(2).map(|grant| SlotGrant {
        granted: grant[0],
        target: grant[1],
    });
    Ok(Grants {
        rates: rates.collect(),
        slots: slots.collect(),
    })
}

fn unknown() -> Error {
    Error::Database("the cluster's store gave an answer of another version".to_owned())
}
