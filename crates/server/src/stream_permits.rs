//! Limits the number of open event streams, in total and per place.
//!
//! A stream occupies one of the limited connections for as long as its client likes. The total
//! limit leaves some connections for requests, and the limit per place leaves streams for other
//! clients.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use backend::{Error, ErrorCode, Origin};
use prometheus_client::metrics::gauge::Gauge;

use crate::connections::{Connection, Working};

/// The maximum number of streams from one place. Networks without limits are exempt.
const FROM_ONE_PLACE: usize = 200;

/// The value of `Retry-After`, in seconds.
const RETRY_AFTER: u64 = 10;

/// The open event streams of a server.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// The maximum number of streams.
    limit: usize,
    open: Arc<Mutex<Open>>,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_place: HashMap<IpAddr, usize>,
}

/// Counts an open stream until it is dropped, and marks its connection as busy.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    streams: Streams,
    place: IpAddr,
    _working: Option<Working>,
}

impl Streams {
    /// Returns a registry without streams. Up to 80 % of `connections` may be streams, and `gauge`
    /// exports their number.
    pub(crate) fn new(connections: usize, gauge: Gauge) -> Self {
        Self { limit: connections * 4 / 5, open: Arc::default(), gauge }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a stream.
    ///
    /// # Errors
    /// Status 429 if the limit of the place or the total limit is reached.
    pub(crate) fn acquire(&self, origin: &Origin, connection: Option<&Arc<Connection>>) -> Result<StreamPermit, Error> {
        let place = origin.place();
        let mut open = self.open();
        let from_here = open.by_place.get(&place).copied().unwrap_or_default();
        if open.all >= self.limit || (from_here >= FROM_ONE_PLACE && !origin.is_shared) {
            let message = "too many event streams are open; close some and try again";
            return Err(Error { retry_after: Some(RETRY_AFTER), ..Error::new(ErrorCode::AppServerError, message) });
        }
        open.all += 1;
        open.by_place.insert(place, from_here + 1);
        self.gauge.inc();
        Ok(StreamPermit { streams: self.clone(), place, _working: connection.map(Connection::work) })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        open.all -= 1;
        self.streams.gauge.dec();
        if let Some(count) = open.by_place.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                open.by_place.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn limits_the_streams_of_a_place_and_releases_them() {
        let streams = Streams::new(1000, Gauge::default());
        let from = |address: &str, is_shared| Origin { address: address.parse().unwrap(), is_shared };
        let held: Vec<StreamPermit> = (0..FROM_ONE_PLACE)
            .map(|n| streams.acquire(&from(&format!("2001:db8::{n:x}"), false), None).unwrap())
            .collect();
        let error = streams.acquire(&from("2001:db8::ffff", false), None).unwrap_err();
        assert_eq!((error.code.status(), error.retry_after), (429, Some(RETRY_AFTER)));
        let others: Vec<StreamPermit> = (0..streams.limit - FROM_ONE_PLACE)
            .map(|_| streams.acquire(&from("192.0.2.1", true), None).unwrap())
            .collect();
        assert!(streams.acquire(&from("198.51.100.1", false), None).is_err(), "some connections are left for requests");
        drop(others);
        assert!(streams.acquire(&from("198.51.100.1", false), None).is_ok());
        drop(held);
        assert!(streams.acquire(&from("2001:db8::ffff", false), None).is_ok());
        assert!(streams.open().by_place.is_empty());
    }
}
