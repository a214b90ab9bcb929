//! How many streams of events are open. Each keeps a connection, of which there is a bounded number, for as long as it likes; so no
//! place may have more than a share of them, and all together leave some for requests.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use backend::{Error, ErrorCode, Origin};
use prometheus_client::metrics::gauge::Gauge;

use crate::connections::{Connection, Working};

/// How many there may be from one place, unless many people make their requests from there.
const FROM_ONE_PLACE: usize = 200;

/// After how many seconds it is worth asking again.
const RETRY_AFTER: u64 = 10;

/// The streams that are open, by the places that they are from.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// How many there may be at all.
    limit: usize,
    open: Arc<Mutex<Open>>,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_place: HashMap<IpAddr, usize>,
}

/// A stream that is open.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    streams: Streams,
    place: IpAddr,
    _working: Option<Working>,
}

impl Streams {
    /// None yet, of a server with so many connections; a gauge shows how many there are.
    pub(crate) fn new(connections: usize, gauge: Gauge) -> Self {
        Self { limit: connections * 4 / 5, open: Arc::default(), gauge }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one more in.
    ///
    /// # Errors
    /// Where there are too many.
    pub(crate) fn acquire(&self, origin: &Origin, connection: Option<&Arc<Connection>>) -> Result<StreamPermit, Error> {
        let place = origin.place();
        let mut open = self.open();
        let from_here = open.by_place.get(&place).copied().unwrap_or_default();
        if open.all >= self.limit || (from_here >= FROM_ONE_PLACE && !origin.is_shared) {
            let message = "too many streams of events are open; end some";
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
    fn a_place_has_its_share_and_gets_it_back() {
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
