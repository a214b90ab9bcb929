//! Limits how many operations use the connections of a client, and how many wait for one.
//!
//! The driver's own queue for connections is unbounded and does not distinguish users. So each
//! operation is admitted here before the driver receives it: as many at once as there are
//! connections, and at most a share of them for each owner. A user's operation beyond the owner's
//! share waits for up to a second. Any other operation waits until its deadline. The number and
//! the bytes of waiting operations are bounded in both cases, so that an unresponsive database
//! costs a bounded amount of memory.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::connect::lock;
use crate::{Error, Result};

/// The maximum number of operations of one owner that use connections at once.
const SHARE: usize = 10;

/// The maximum time that a user's operation waits for its owner's share.
pub(super) const SHARE_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of waiting operations: of one owner for its share, or of all owners for a
/// connection.
const WAITING: usize = 1_000;

/// The maximum number of request bytes in the same queues.
const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The factor by which the queue of all owners for their shares exceeds that of one owner.
const OWNERS: usize = 4;

/// Requests up to this size in bytes are not counted while they use a connection, because few of
/// them can.
const SMALL: usize = 64 * 1024;

/// The unit, in bytes, in which larger requests that use connections are counted.
const UNIT: usize = 1024;

/// The maximum size of all larger requests that use connections at once, in [`UNIT`]s. A query
/// counts while the server works on it.
const BYTES_AT_ONCE: usize = 64 * 1024;

/// The same limit for one owner. A larger request runs without other large requests of its owner.
const BYTES_OF_ONE: usize = BYTES_AT_ONCE / 8;

/// The permits of operations that use the connections of one client.
pub(super) struct Admission {
    places: Places,
    /// The maximum time that an operation waits for its owner's share; `None` if only its deadline
    /// counts.
    share_timeout: Option<Duration>,
    /// The queue of operations within their owner's share.
    waiting: Arc<Line>,
    /// The queue of all operations beyond their owner's share.
    waiting_for_shares: Arc<Line>,
    owners: Mutex<HashMap<Arc<str>, Weak<Owner>>>,
}

/// The permits of one owner, while one of its operations runs or waits.
struct Owner {
    places: Places,
    waiting: Arc<Line>,
}

/// A limited number of operations, and a limited size of their requests.
struct Places {
    operations: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    most_bytes: usize,
}

/// A bounded queue: counts the waiting operations and their bytes.
struct Line {
    most: usize,
    most_bytes: usize,
    operations: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place in the queue; leaves it when dropped.
struct Waiting {
    line: Arc<Line>,
    bytes: usize,
}

/// The permit of an operation that uses a connection; returned when dropped.
pub(super) struct Place {
    _all: Taken,
    _of_owner: Option<(Taken, Arc<Owner>)>,
}

/// The permit of an operation, and the permits of a large request.
type Taken = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Line {
    /// Returns a queue with `times` the bounds of one owner's queue.
    fn new(times: usize) -> Arc<Self> {
        Arc::new(Self {
            most: WAITING * times,
            most_bytes: WAITING_BYTES * times,
            operations: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        })
    }

    /// Joins the queue; returns `None` if it is full. A request beyond the bound in bytes may wait
    /// if the queue is empty.
    fn join(self: &Arc<Self>, bytes: usize) -> Option<Waiting> {
        let operations = self.operations.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { line: Arc::clone(self), bytes };
        let has_room = operations < self.most && (before == 0 || before.saturating_add(bytes) <= self.most_bytes);
        has_room.then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.line.operations.fetch_sub(1, Ordering::Relaxed);
        self.line.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Places {
    fn new(operations: usize, most_bytes: usize) -> Self {
        let operations = Arc::new(Semaphore::new(operations.clamp(1, Semaphore::MAX_PERMITS)));
        Self { operations, bytes: Arc::new(Semaphore::new(most_bytes)), most_bytes }
    }

    /// Returns the number of units that a request counts while it uses a connection; `None` for a
    /// small request.
    fn units(&self, bytes: usize) -> Option<u32> {
        let units = bytes.div_ceil(UNIT).min(self.most_bytes);
        (bytes > SMALL).then(|| u32::try_from(units).unwrap_or(u32::MAX))
    }

    /// Takes a permit if one is free and no operation waits for it.
    fn try_take(&self, bytes: usize) -> Option<Taken> {
        let units = match self.units(bytes) {
            Some(units) => Some(Arc::clone(&self.bytes).try_acquire_many_owned(units).ok()?),
            None => None,
        };
        Some((Arc::clone(&self.operations).try_acquire_owned().ok()?, units))
    }

    /// Waits for a permit.
    async fn take(&self, bytes: usize) -> Result<Taken> {
        let closed = |_| Error::Closed;
        // The bytes first: an operation that waits for them must not hold a permit that others
        // need.
        let units = match self.units(bytes) {
            Some(units) => Some(Arc::clone(&self.bytes).acquire_many_owned(units).await.map_err(closed)?),
            None => None,
        };
        Ok((Arc::clone(&self.operations).acquire_owned().await.map_err(closed)?, units))
    }
}

impl Admission {
    /// Returns permits for as many operations as there are connections.
    pub(super) fn new(connections: usize, share_timeout: Option<Duration>) -> Self {
        Self {
            places: Places::new(connections, BYTES_AT_ONCE),
            share_timeout,
            waiting: Line::new(1),
            waiting_for_shares: Line::new(OWNERS),
            owners: Mutex::default(),
        }
    }

    /// Waits for a permit for an operation whose request has `bytes` bytes, until `until`. An
    /// operation without an owner belongs to the operator or the backend, and has no share.
    ///
    /// # Errors
    /// [`Error::TooManyWaiting`] if the owner's share stays used up for too long, or if the
    /// owner's queue is full;
    /// [`Error::Overloaded`] if the queue for connections is full; [`Error::Unavailable`] if the
    /// time is over.
    pub(super) async fn enter(&self, owner: Option<&Arc<str>>, bytes: usize, until: Instant) -> Result<Place> {
        let of_owner = match owner {
            Some(owner) => Some(self.enter_share(owner, bytes, until).await?),
            None => None,
        };
        if let Some(taken) = self.places.try_take(bytes) {
            return Ok(Place { _all: taken, _of_owner: of_owner });
        }
        let _waiting = self.waiting.join(bytes).ok_or(Error::Overloaded)?;
        let taken = tokio::time::timeout_at(until, self.places.take(bytes)).await.map_err(|_| {
            let reason = "no connection to it became free in time".to_owned();
            Error::Unavailable { reason, maybe_written: false }
        })?;
        Ok(Place { _all: taken?, _of_owner: of_owner })
    }

    /// Waits for a permit of the owner's share.
    async fn enter_share(&self, owner: &Arc<str>, bytes: usize, until: Instant) -> Result<(Taken, Arc<Owner>)> {
        let owner = self.owner(owner);
        if let Some(taken) = owner.places.try_take(bytes) {
            return Ok((taken, owner));
        }
        let too_many = || Error::TooManyWaiting { is_of_one: true };
        let taken = {
            let _waiting = owner.waiting.join(bytes).ok_or_else(too_many)?;
            let _among_all = self.waiting_for_shares.join(bytes).ok_or(Error::Overloaded)?;
            let until = self.share_timeout.map_or(until, |share_timeout| until.min(Instant::now() + share_timeout));
            tokio::time::timeout_at(until, owner.places.take(bytes)).await.map_err(|_| too_many())??
        };
        Ok((taken, owner))
    }

    /// Returns the permits of an owner, which its operations share.
    fn owner(&self, name: &Arc<str>) -> Arc<Owner> {
        let mut owners = lock(&self.owners);
        if let Some(owner) = owners.get(name).and_then(Weak::upgrade) {
            return owner;
        }
        // Removes unused entries only when the map would grow, so that the cost is amortized.
        if owners.len() == owners.capacity() {
            owners.retain(|_, owner| owner.strong_count() > 0);
        }
        let places = Places::new(SHARE, BYTES_OF_ONE);
        let owner = Arc::new(Owner { places, waiting: Line::new(1) });
        owners.insert(Arc::clone(name), Arc::downgrade(&owner));
        owner
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    const MEGABYTE: usize = 1024 * 1024;

    fn owner(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Begins to enter; returns the future if it has to wait.
    fn begin<'a>(
        admission: &'a Admission,
        owner: Option<&'a Arc<str>>,
        bytes: usize,
    ) -> Result<Result<Place>, BoxFuture<'a, Result<Place>>> {
        let mut entering = admission.enter(owner, bytes, later()).boxed();
        (&mut entering).now_or_never().ok_or(entering)
    }

    fn enter(admission: &Admission, owner: Option<&Arc<str>>, bytes: usize) -> Option<Place> {
        begin(admission, owner, bytes).ok().map(Result::unwrap)
    }

    #[tokio::test]
    async fn an_operation_beyond_the_share_of_its_owner_waits_for_a_second() {
        let admission = Admission::new(100, Some(SHARE_TIMEOUT));
        let (greedy, other) = (owner("greedy"), owner("other"));
        let mut held: Vec<_> = (0..SHARE).map(|_| enter(&admission, Some(&greedy), 100).unwrap()).collect();
        assert!(enter(&admission, Some(&greedy), 100).is_none());
        assert!(enter(&admission, Some(&other), 100).is_some());
        assert!(enter(&admission, None, 100).is_some());
        let began = Instant::now();
        let refused = admission.enter(Some(&greedy), 100, later()).await;
        assert!(matches!(refused, Err(Error::TooManyWaiting { is_of_one: true })));
        assert!(began.elapsed() >= SHARE_TIMEOUT);
        let waiting = begin(&admission, Some(&greedy), 100).err().unwrap();
        held.pop();
        waiting.await.unwrap();
        drop(held);
        assert!(admission.owner(&greedy).places.operations.available_permits() == SHARE);
    }

    #[tokio::test]
    async fn the_queue_for_connections_is_bounded_and_rejects_the_next_operation_at_once() {
        let admission = Admission::new(1, Some(SHARE_TIMEOUT));
        let held = enter(&admission, None, 100).unwrap();
        let owners: Vec<_> = (0..WAITING).map(|number| owner(&number.to_string())).collect();
        let waiting: Vec<_> = owners.iter().map(|owner| begin(&admission, Some(owner), 100).err().unwrap()).collect();
        let next = owner("next");
        assert!(matches!(begin(&admission, Some(&next), 100), Ok(Err(Error::Overloaded))));
        assert!(matches!(begin(&admission, None, 100), Ok(Err(Error::Overloaded))));
        drop(waiting);
        let waits_again = begin(&admission, Some(&next), 100).err().unwrap();
        drop(held);
        waits_again.await.unwrap();
        let held = enter(&admission, None, 100).unwrap();
        let late = admission.enter(None, 100, Instant::now() + Duration::from_millis(20)).await;
        assert!(matches!(late, Err(Error::Unavailable { maybe_written: false, .. })));
        drop(held);
    }

    #[tokio::test]
    async fn the_bytes_in_the_queue_are_bounded() {
        let admission = Admission::new(1, Some(SHARE_TIMEOUT));
        let held = enter(&admission, None, 100).unwrap();
        // Larger than the bound, but the only one in the queue.
        let huge = begin(&admission, None, 2 * WAITING_BYTES).err().unwrap();
        assert!(matches!(begin(&admission, None, 100), Ok(Err(Error::Overloaded))));
        drop(huge);
        let large: Vec<_> = (0..4).map(|_| begin(&admission, None, 16 * MEGABYTE).err().unwrap()).collect();
        assert!(matches!(begin(&admission, None, 100), Ok(Err(Error::Overloaded))));
        drop((large, held));
        assert_eq!(admission.waiting.bytes.load(Ordering::Relaxed), 0);
        assert!(enter(&admission, None, 100).is_some());
    }

    #[tokio::test]
    async fn large_requests_count_against_the_byte_share_of_their_owner() {
        let admission = Admission::new(100, Some(SHARE_TIMEOUT));
        let (greedy, other) = (owner("greedy"), owner("other"));
        let held: Vec<_> = (0..2).map(|_| enter(&admission, Some(&greedy), 4 * MEGABYTE).unwrap()).collect();
        assert!(enter(&admission, Some(&greedy), MEGABYTE).is_none());
        assert!(enter(&admission, Some(&greedy), SMALL).is_some());
        // More than a share, but the owner's only large request.
        let of_other = enter(&admission, Some(&other), 32 * MEGABYTE).unwrap();
        assert!(enter(&admission, Some(&other), MEGABYTE).is_none());
        let of_operator = enter(&admission, None, 24 * MEGABYTE).unwrap();
        assert!(enter(&admission, None, MEGABYTE).is_none());
        assert!(enter(&admission, None, SMALL).is_some());
        drop((held, of_other, of_operator));
        assert!(
            enter(&admission, None, 500 * MEGABYTE).is_some(),
            "a request beyond the total limit takes the total limit"
        );
    }

    #[tokio::test]
    async fn one_owner_cannot_fill_the_queue_for_connections() {
        let admission = Admission::new(2, Some(SHARE_TIMEOUT));
        let greedy = owner("greedy");
        let held: Vec<_> = (0..2).map(|_| enter(&admission, Some(&greedy), 100).unwrap()).collect();
        let waiting: Vec<_> =
            (0..WAITING + SHARE - 2).map(|_| begin(&admission, Some(&greedy), 100).err().unwrap()).collect();
        assert!(matches!(begin(&admission, Some(&greedy), 100), Ok(Err(Error::TooManyWaiting { is_of_one: true }))));
        assert_eq!(admission.waiting.operations.load(Ordering::Relaxed), SHARE - 2);
        let other = owner("other");
        let of_other = begin(&admission, Some(&other), 100).err().unwrap();
        drop(waiting);
        drop(held);
        of_other.await.unwrap();
    }
}
