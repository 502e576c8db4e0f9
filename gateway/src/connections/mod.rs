//! Client connections of a listener: how many there may be, in all and for each address, within the process's file
//! descriptors, and how long each may take until its first request head. The table of a listener is [`Connections`];
//! a connection holds a [`Connection`] for as long as it is open.

mod descriptors;

pub(crate) use descriptors::raise_limit;

use crate::config::ConnectionBounds;
use crate::telemetry::ConnectionMetrics;
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Connections that are refused with an answer at once; more are closed without one. An answer keeps its descriptor
/// for a moment, which comes from the reserve.
const ANSWERED_REFUSALS: usize = 16;

/// The time that a refused client has for reading why.
const LINGER: Duration = Duration::from_millis(250);

/// The listener whose connections are counted, which sets its share of the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Proxy,
    Admin,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// `bounds.max_connections`, or the listener's share of the descriptors.
    Total,
    /// `bounds.max_connections_per_address`.
    Address,
    /// The descriptors outside the reserve are used up.
    Descriptors,
    /// `bounds.max_http2_control_frames`; the connection had been admitted.
    ControlFrames,
}

/// The open connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    listener: Listener,
    /// The process's limit on descriptors.
    descriptors: usize,
    metrics: ConnectionMetrics,
    table: Mutex<Table>,
    /// Seconds after `since` at which a refusal was last logged, plus one.
    logged: AtomicU64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Table {
    open: usize,
    answered_refusals: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// An open connection; it is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    table: Arc<Connections>,
    address: Option<IpAddr>,
    accepted: Instant,
    head_received: AtomicBool,
    /// Its descriptor, until that is about to be closed.
    descriptor: Mutex<Option<RawFd>>,
}

/// A connection that is refused with an answer.
#[derive(Debug)]
pub(crate) struct AnsweredRefusal(Arc<Connections>);

impl Listener {
    fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Admin => "admin",
        }
    }

    /// The listener's share of the descriptors outside the reserve. Each connection of the proxy may need a second
    /// descriptor, for its server.
    fn share(self, descriptors: usize) -> usize {
        match self {
            Self::Proxy => descriptors / 16 * 7,
            Self::Admin => descriptors / 8,
        }
    }
}

impl Refused {
    fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
            Self::Descriptors => "descriptors",
            Self::ControlFrames => "control_frames",
        }
    }

    /// A sentence for whoever is refused.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Total => "the gateway has as many connections as it may have; close some or try again later",
            Self::Address => "your address has as many connections as it may have; close some or try again later",
            Self::Descriptors => "the gateway is short of file descriptors; try again later",
            Self::ControlFrames => "your connection sent more control frames of HTTP/2 than it may",
        }
    }

    /// An answer for whoever is refused, in HTTP/1.1.
    fn answer(self) -> String {
        let body = format!(
            r#"{{"error":{{"message":"{}","type":"server_error","param":null,"code":"too_many_connections"}}}}"#,
            self.message()
        );
        format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             retry-after: 1\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Connections {
    pub(crate) fn new(listener: Listener, descriptors: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self {
            listener,
            descriptors,
            metrics,
            table: Mutex::default(),
            logged: AtomicU64::new(0),
            since: Instant::now(),
        })
    }

    /// Counts a connection that was accepted just now, unless a bound is reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        descriptor: RawFd,
        bounds: &ConnectionBounds,
    ) -> Result<Arc<Connection>, Refused> {
        let mut table = self.table.lock();
        let refused = if self.is_short(descriptor, bounds) {
            Some(Refused::Descriptors)
        } else if table.open >= self.most(bounds) {
            Some(Refused::Total)
        } else if table.open_from(address) >= bounds.per_address {
            Some(Refused::Address)
        } else {
            None
        };
        if let Some(refused) = refused {
            drop(table);
            self.refused(refused);
            return Err(refused);
        }
        let open = table.count(address);
        drop(table);
        self.metrics.open(self.listener.name(), open);
        Ok(Arc::new(Connection {
            table: Arc::clone(self),
            address,
            accepted: Instant::now(),
            head_received: AtomicBool::new(false),
            descriptor: Mutex::new(Some(descriptor)),
        }))
    }

    /// The connections that the listener may have.
    fn most(&self, bounds: &ConnectionBounds) -> usize {
        let outside = self.descriptors.saturating_sub(bounds.reserved_descriptors);
        let share = self.listener.share(outside).max(1);
        match self.listener {
            Listener::Proxy => bounds.total.min(share),
            Listener::Admin => share,
        }
    }

    /// Returns whether a new descriptor belongs to the reserve: the system hands out the lowest free one, so all below it
    /// are in use.
    fn is_short(&self, descriptor: RawFd, bounds: &ConnectionBounds) -> bool {
        let kept = match self.listener {
            Listener::Proxy => bounds.reserved_descriptors,
            Listener::Admin => bounds.reserved_descriptors / 2,
        };
        let used = usize::try_from(descriptor).unwrap_or(0);
        used >= self.descriptors.saturating_sub(kept)
    }

    fn refused(&self, refused: Refused) {
        self.metrics.refused(self.listener.name(), refused.name());
        let now = self.since.elapsed().as_secs() + 1;
        let last = self.logged.load(Relaxed);
        let is_due = last == 0 || now >= last + 60;
        if is_due && self.logged.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            tracing::warn!(
                listener = self.listener.name(),
                reason = refused.name(),
                "connections are refused: {}; further ones in the next minute are only counted in \
                 sluice_connections_refused_total",
                refused.message()
            );
        }
    }

    /// Counts a refusal that is answered; `None` if there are enough.
    pub(crate) fn answer_refusal(self: &Arc<Self>) -> Option<AnsweredRefusal> {
        let mut table = self.table.lock();
        let is_possible = table.answered_refusals < ANSWERED_REFUSALS;
        table.answered_refusals += usize::from(is_possible);
        is_possible.then(|| AnsweredRefusal(Arc::clone(self)))
    }
}

impl Table {
    /// The open connections from an address.
    fn open_from(&self, address: Option<IpAddr>) -> usize {
        let same = address.and_then(|address| self.by_address.get(&address));
        same.copied().unwrap_or(0)
    }

    /// Counts one more connection; the number then open.
    fn count(&mut self, address: Option<IpAddr>) -> usize {
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
        self.open += 1;
        self.open
    }

    /// Counts one connection less; the number then open.
    fn uncount(&mut self, address: Option<IpAddr>) -> usize {
        if let Some(address) = address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        self.open -= 1;
        self.open
    }
}

impl Connection {
    /// The client's address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The time that is left until the first request head has to be there.
    pub(crate) fn head_due(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.accepted.elapsed())
    }

    /// Counts the connection as one that is closed for its control frames of HTTP/2.
    pub(crate) fn refuse_control_frames(&self) {
        self.table.refused(Refused::ControlFrames);
    }

    /// Notes that a whole request head has arrived.
    pub(crate) fn head_received(&self) {
        self.head_received.store(true, Relaxed);
    }

    /// Returns whether a whole request head has arrived.
    pub(crate) fn has_head(&self) -> bool {
        self.head_received.load(Relaxed)
    }

    /// Counts the connection as one whose first head is overdue; false if it has arrived, or has been counted before.
    pub(crate) fn count_overdue(&self) -> bool {
        let is_first = !self.head_received.swap(true, Relaxed);
        if is_first {
            self.table.metrics.head_overdue(self.table.listener.name());
        }
        is_first
    }

    /// Returns once the first head is overdue; pending if it arrives in time.
    pub(crate) async fn overdue(&self, timeout: Duration) {
        tokio::time::sleep(self.head_due(timeout)).await;
        if !self.count_overdue() {
            std::future::pending::<()>().await;
        }
    }

    /// Notes that the descriptor is about to be closed.
    pub(crate) fn closing(&self) {
        *self.descriptor.lock() = None;
    }

    /// Ends the connection's reads and writes, if it is still open.
    pub(crate) fn disconnect(&self) {
        let descriptor = self.descriptor.lock();
        if let Some(descriptor) = *descriptor {
            let _ = shutdown(descriptor, Shutdown::Both);
        }
    }
}

impl AnsweredRefusal {
    /// Answers a connection that is refused. Its request is read for a moment, because a connection that is closed with
    /// bytes unread loses the answer too.
    pub(crate) async fn send(self, mut stream: impl AsyncRead + AsyncWrite + Unpin, refused: Refused) {
        let answered = async {
            stream.write_all(refused.answer().as_bytes()).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            let mut unread = [0; 4096];
            while stream.read(&mut unread).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        let _ = tokio::time::timeout(LINGER, answered).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let open = self.table.table.lock().uncount(self.address);
        self.table.metrics.open(self.table.listener.name(), open);
    }
}

impl Drop for AnsweredRefusal {
    fn drop(&mut self) {
        self.0.table.lock().answered_refusals -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const BOUNDS: ConnectionBounds = ConnectionBounds {
        total: 5,
        per_address: 2,
        reserved_descriptors: 64,
        control_frames: 1000,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
    }

    fn connections(listener: Listener, descriptors: usize) -> Arc<Connections> {
        Connections::new(listener, descriptors, ConnectionMetrics::unregistered())
    }

    #[test]
    fn bounds_hold_in_all_and_for_each_address_and_what_is_closed_makes_room() {
        let connections = connections(Listener::Proxy, 1024);
        let admit = |last| connections.admit(Some(address(last)), 20, &BOUNDS);
        let first = admit(1).expect("one");
        let _second = admit(1).expect("two");
        assert_eq!(admit(1).err(), Some(Refused::Address));
        let _others: Vec<_> = [2, 3, 4].map(|last| admit(last).expect("another address")).into();
        assert_eq!(admit(5).err(), Some(Refused::Total));
        drop(first);
        let _again = admit(1).expect("there is room again");
        assert_eq!(admit(6).err(), Some(Refused::Total));
    }

    #[test]
    fn the_reserve_of_descriptors_is_kept_and_operators_come_in_when_clients_do_not() {
        let proxy = connections(Listener::Proxy, 256);
        let admin = connections(Listener::Admin, 256);
        assert!(proxy.admit(Some(address(1)), 191, &BOUNDS).is_ok());
        assert_eq!(
            proxy.admit(Some(address(1)), 192, &BOUNDS).err(),
            Some(Refused::Descriptors)
        );
        assert!(admin.admit(Some(address(1)), 223, &BOUNDS).is_ok());
        assert_eq!(
            admin.admit(Some(address(1)), 224, &BOUNDS).err(),
            Some(Refused::Descriptors)
        );
        let roomy = ConnectionBounds {
            total: 10_000,
            per_address: 10_000,
            ..BOUNDS
        };
        let open: Vec<_> = (0..256).map_while(|_| proxy.admit(None, 30, &roomy).ok()).collect();
        // (256 - 64) / 16 * 7, so that as many servers' connections fit beside them.
        assert_eq!(open.len(), 84);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_arrives_in_time_is_never_overdue() {
        let connections = connections(Listener::Proxy, 1024);
        let timeout = Duration::from_secs(10);
        let silent = connections.admit(Some(address(1)), 20, &BOUNDS).expect("one");
        silent.overdue(timeout).await;
        let heard = connections.admit(Some(address(1)), 21, &BOUNDS).expect("two");
        heard.head_received();
        let waited = tokio::time::timeout(timeout * 100, heard.overdue(timeout)).await;
        assert!(waited.is_err());
    }
}
