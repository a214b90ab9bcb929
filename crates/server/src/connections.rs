//! Counts the open connections, in total and by place, and tracks which of them are idle.
//!
//! A connection is idle while it waits for its client. When the limit is reached, the server
//! closes an idle connection for each new one: the one that has been idle longest among those of
//! the place with the most connections. A client that opens connections and leaves them idle
//! therefore loses its own first. Connections with a running request or an open event stream are
//! never closed for this reason.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use backend::Origin;
use tokio::sync::Notify;

use crate::limits::Limits;

/// The maximum number of places for which the server remembers that it has logged a warning.
const WARNED: usize = 10_000;

/// The open connections of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    limits: Limits,
    begun: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    all: HashMap<u64, Arc<Connection>>,
    by_place: HashMap<IpAddr, usize>,
    warned: HashSet<IpAddr>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    /// The place of the peer: an IPv4 address or an IPv6 /64.
    place: IpAddr,
    registry: Arc<Registry>,
    /// Number of running requests and streams that do not wait for the client: 0 or 1, and briefly
    /// 2.
    working: AtomicUsize,
    /// Time of the last activity, in milliseconds since the creation of the registry.
    waiting_since: AtomicU64,
    closed: Notify,
}

/// Removes a connection from the registry when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Connection>);

/// Marks a connection as busy, so that it is not closed in favour of a new one.
#[derive(Debug)]
pub(crate) struct Working(Arc<Connection>);

/// Marks a connection with a running request as idle while the request waits for the client.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Connection>);

/// The reason why a connection is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its place has reached its limit. `is_first` is true the first time.
    Share { is_first: bool },
    /// The limit of all connections is reached, and none of them is idle.
    Full,
}

impl Connections {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Registry { limits, begun: Instant::now(), open: Mutex::default() }))
    }

    /// Registers a connection. Closes an idle one if the limit of all connections is reached.
    /// `has_share` is false for networks that are exempt from the limit per place.
    ///
    /// # Errors
    /// If the place has reached its limit, or if no connection is idle.
    pub(crate) fn admit(&self, peer: IpAddr, has_share: bool) -> Result<OpenConnection, Refused> {
        let limits = &self.0.limits;
        let place = Origin { address: peer, is_shared: false }.place();
        let mut open = self.0.open();
        if has_share && open.by_place.get(&place).copied().unwrap_or_default() >= limits.connections_per_place {
            let is_first = open.warned.len() < WARNED && open.warned.insert(place);
            return Err(Refused::Share { is_first });
        }
        if open.all.len() >= limits.connections && !open.close_longest_waiting() {
            return Err(Refused::Full);
        }
        let id = open.next_id;
        open.next_id += 1;
        let connection = Arc::new(Connection {
            id,
            place,
            registry: Arc::clone(&self.0),
            working: AtomicUsize::new(0),
            waiting_since: AtomicU64::new(self.0.now()),
            closed: Notify::new(),
        });
        open.all.insert(id, Arc::clone(&connection));
        *open.by_place.entry(place).or_default() += 1;
        Ok(OpenConnection(connection))
    }

    /// Closes an idle connection to make room for new ones. Returns false if none is idle.
    pub(crate) fn close_longest_waiting(&self) -> bool {
        self.0.open().close_longest_waiting()
    }
}

impl Registry {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the creation of the registry.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Open {
    fn close_longest_waiting(&mut self) -> bool {
        let waiting = self.all.values().filter(|connection| connection.working.load(Ordering::Acquire) == 0);
        let chosen = waiting.max_by_key(|connection| {
            let of_place = self.by_place.get(&connection.place).copied().unwrap_or_default();
            let since = connection.waiting_since.load(Ordering::Relaxed);
            (of_place, std::cmp::Reverse((since, connection.id)))
        });
        let Some(chosen) = chosen.cloned() else { return false };
        self.remove(&chosen);
        chosen.close();
        true
    }

    fn remove(&mut self, connection: &Connection) {
        if self.all.remove(&connection.id).is_none() {
            return;
        }
        if let Some(count) = self.by_place.get_mut(&connection.place) {
            *count -= 1;
            if *count == 0 {
                self.by_place.remove(&connection.place);
            }
        }
    }
}

impl Connection {
    /// Marks the connection as busy until the returned guard is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Working {
        self.working.fetch_add(1, Ordering::AcqRel);
        Working(Arc::clone(self))
    }

    /// Marks the connection as idle until the returned guard is dropped, while the client sends
    /// the rest of a request. Only valid within [`Connection::work`].
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        self.touch();
        self.working.fetch_sub(1, Ordering::AcqRel);
        Waiting(Arc::clone(self))
    }

    /// Records activity of the client: it has just sent or read data.
    pub(crate) fn touch(&self) {
        self.waiting_since.store(self.registry.now(), Ordering::Relaxed);
    }

    /// Closes the connection, and cancels its request or stream.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }

    /// Waits until [`Connection::close`] is called.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }
}

impl OpenConnection {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.registry.open().remove(&self.0);
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.touch();
        self.0.working.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.working.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(connections: usize, connections_per_place: usize) -> Limits {
        Limits { connections, connections_per_place, ..Limits::default() }
    }

    fn is_closed(connection: &OpenConnection) -> bool {
        connection.connection().closed().now_or_never().is_some()
    }

    #[test]
    fn limits_the_connections_of_a_place_and_releases_them() {
        let connections = Connections::new(limits(100, 2));
        let first = connections.admit(address("2001:db8::1"), true).unwrap();
        let second = connections.admit(address("2001:db8::2"), true).unwrap();
        let refused = |is_first| Some(Refused::Share { is_first });
        assert_eq!(connections.admit(address("2001:db8::3"), true).err(), refused(true));
        assert_eq!(connections.admit(address("2001:db8::3"), true).err(), refused(false));
        let proxy: Vec<_> = (0..5).map(|_| connections.admit(address("2001:db8::4"), false).unwrap()).collect();
        drop((first, proxy));
        connections.admit(address("2001:db8::3"), true).unwrap();
        drop(second);
        assert!(connections.0.open().by_place.is_empty());
    }

    #[test]
    fn a_full_server_closes_the_longest_idle_connection_of_the_place_with_the_most() {
        let connections = Connections::new(limits(4, 4));
        let friend = connections.admit(address("192.0.2.1"), true).unwrap();
        let busy = connections.admit(address("192.0.2.2"), true).unwrap();
        let working = busy.connection().work();
        let silent = connections.admit(address("192.0.2.2"), true).unwrap();
        let other = connections.admit(address("192.0.2.2"), true).unwrap();
        let new = connections.admit(address("192.0.2.3"), true).unwrap();
        assert_eq!([&friend, &busy, &silent, &other, &new].map(is_closed), [false, false, true, false, false]);
        drop(silent);
        let guards: Vec<_> = [&friend, &other, &new].map(|connection| connection.connection().work()).into();
        assert_eq!(connections.admit(address("192.0.2.4"), true).err(), Some(Refused::Full));
        drop((guards, working));
        connections.admit(address("192.0.2.4"), true).unwrap();
    }
}
