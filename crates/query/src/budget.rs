//! Budgets: how long an operation may run, how many steps it may take, and how many bytes it may
//! hold between two stages.
//!
//! A thread *enters* a [`Budget`] for a stretch of synchronous work, and every loop of this crate
//! charges the budget that its thread has entered. So no signature carries a budget, and no
//! comparison, path or sort can bypass it. Work of a thread that has entered no budget is not
//! limited.
//!
//! ```
//! use query::{Budget, ErrorCode, Limits, budget};
//!
//! let limited = Budget::new(Limits { steps: Some(1000), ..Limits::default() });
//! let result = limited.enter(|| budget::charge(5000));
//! assert_eq!(result.unwrap_err().code, ErrorCode::MaxTimeMsExpired);
//! assert!(limited.is_exhausted());
//! ```

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Error, ErrorCode, Result};

/// Steps between two checks of the clock: well below a millisecond of work.
const SLICE: u64 = 1024;

/// Bytes that are compared or copied in the time of one step.
const BYTES_A_STEP: usize = 64;

/// The limits of an operation. The default limits nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum duration (`maxTimeMS`), from the creation of the budget. Beyond it, the operation
    /// fails with `MaxTimeMSExpired` (50).
    pub time: Option<Duration>,
    /// Maximum number of steps; a step is about one comparison. Beyond it, the operation fails
    /// with `MaxTimeMSExpired` (50).
    pub steps: Option<u64>,
    /// Maximum number of bytes held at once between two stages. Beyond it, the operation fails
    /// with `QueryExceededMemoryLimitNoDiskUseAllowed` (292).
    pub bytes: Option<usize>,
}

/// Memory limit that all operations of a process share. The first 4 MiB of each operation do not
/// count.
#[derive(Debug)]
pub struct MemoryPool {
    most: usize,
    held: AtomicUsize,
}

impl MemoryPool {
    /// Creates a pool of `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 && before.saturating_add(bytes) > self.most {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            let message = format!("Exceeded memory limit of {} bytes for all operations together", self.most);
            return Err(Error::new(ErrorCode::QueryExceededMemoryLimitNoDiskUseAllowed, message));
        }
        Ok(())
    }
}

/// Bytes that an operation may hold without using the [`MemoryPool`].
const SMALL_HOLD: usize = 4 * 1024 * 1024;

/// The budget of one operation. Clones share it, so that one limit covers all threads and all
/// stretches of work of the operation.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    deadline: Option<Instant>,
    most_steps: u64,
    most_bytes: usize,
    steps: AtomicU64,
    bytes: AtomicUsize,
    is_cancelled: AtomicBool,
    is_displaced: AtomicBool,
    pool: Option<&'static MemoryPool>,
    owner: Option<Arc<str>>,
    request_bytes: usize,
    /// For an attempt: the budget of the operation that it belongs to.
    operation: Option<Budget>,
}

/// The reason why a budget allows no more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exhausted {
    Cancelled,
    Displaced,
    Time,
    Steps,
}

impl Inner {
    fn new(limits: Limits) -> Self {
        Self {
            deadline: limits.time.map(|time| Instant::now() + time),
            most_steps: limits.steps.unwrap_or(u64::MAX),
            most_bytes: limits.bytes.unwrap_or(usize::MAX),
            steps: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            is_cancelled: AtomicBool::new(false),
            is_displaced: AtomicBool::new(false),
            pool: None,
            owner: None,
            request_bytes: 0,
            operation: None,
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { deadline, most_steps, most_bytes, .. } = &*self.0;
        formatter
            .debug_struct("Budget")
            .field("deadline", deadline)
            .field("most_steps", most_steps)
            .field("most_bytes", most_bytes)
            .finish_non_exhaustive()
    }
}

impl Default for Budget {
    /// Creates a budget without limits. It can still be cancelled.
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Budget {
    /// Creates a budget whose time starts now.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner::new(limits)))
    }

    /// Creates a budget whose time starts now, for an operation of `owner`.
    ///
    /// Its bytes count in `pool`. Operations of one owner take turns when threads are scarce.
    pub fn owned(limits: Limits, owner: Arc<str>, pool: &'static MemoryPool) -> Self {
        Self(Arc::new(Inner { owner: Some(owner), pool: Some(pool), ..Inner::new(limits) }))
    }

    /// Creates a budget without limits, for an operation of `owner` if given.
    pub fn unlimited(owner: Option<Arc<str>>) -> Self {
        Self(Arc::new(Inner { owner, ..Inner::new(Limits::default()) }))
    }

    /// Sets the size of the operation's request, in bytes, which stays in memory until the
    /// operation ends. Call it right after the budget is created: a shared budget is not changed.
    pub fn of_request(mut self, bytes: usize) -> Self {
        // A new budget has no clones yet.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.request_bytes = bytes;
        }
        self
    }

    /// Returns the size of the operation's request in bytes, or 0 if it is unknown.
    pub fn request_bytes(&self) -> usize {
        self.0.request_bytes
    }

    /// Returns the owner of the operation, or `None` if it belongs to the operator or the backend.
    pub fn owner(&self) -> Option<&Arc<str>> {
        self.0.owner.as_ref().or_else(|| self.0.operation.as_ref()?.owner())
    }

    /// Returns a budget for an attempt within this operation, which may take up to `steps` steps.
    ///
    /// Steps and bytes of the attempt are charged to the operation too; deadline and owner are
    /// those of the operation. An exhausted attempt does not exhaust the operation.
    pub fn attempt(&self, steps: u64) -> Self {
        // The deadline and the owner come from the operation.
        let limits = Limits { steps: Some(steps), ..Limits::default() };
        Self(Arc::new(Inner { operation: Some(self.clone()), ..Inner::new(limits) }))
    }

    /// Runs synchronous work under this budget: everything that `work` charges on this thread is
    /// charged here. Budgets nest; the previous one is restored afterwards, also after a panic.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let fuel = FUEL.get();
        // Steps taken so far belong to the budget that was entered before.
        settle();
        let entered = Entered { fuel, before: CURRENT.replace(Some(self.clone())) };
        let answer = work();
        drop(entered);
        answer
    }

    /// Returns the remaining time, zero after the deadline, or `None` if time is not limited.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns the time at which the operation expires, or `None` if time is not limited.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline.or_else(|| self.0.operation.as_ref()?.deadline())
    }

    /// Returns the number of steps charged so far. A running thread reports its steps in batches.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Cancels the operation, because its client no longer waits for the result. It fails with
    /// `Interrupted` (11601) at the next check.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Stops the operation in favour of those of other owners. It fails with `MaxTimeMSExpired`
    /// (50) at the next check, as if its time were over.
    pub fn displace(&self) {
        self.0.is_displaced.store(true, Ordering::Relaxed);
    }

    /// Returns a guard that cancels the operation when it is dropped, unless it is
    /// [disarmed](CancelOnDrop::disarm) before.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }

    /// True if no more work may be done under this budget.
    pub fn is_exhausted(&self) -> bool {
        self.exhaustion().is_some()
    }

    /// Fails if no more work may be done under this budget.
    ///
    /// # Errors
    /// `Interrupted` (11601) if the operation was cancelled; `MaxTimeMSExpired` (50) if it was
    /// displaced or exceeded its limit of time or steps.
    pub fn check(&self) -> Result<()> {
        self.exhaustion().map_or(Ok(()), |why| Err(why.into()))
    }

    fn exhaustion(&self) -> Option<Exhausted> {
        let inner = &*self.0;
        if inner.is_cancelled.load(Ordering::Relaxed) {
            return Some(Exhausted::Cancelled);
        }
        if inner.is_displaced.load(Ordering::Relaxed) {
            return Some(Exhausted::Displaced);
        }
        if inner.steps.load(Ordering::Relaxed) > inner.most_steps {
            return Some(Exhausted::Steps);
        }
        if inner.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Some(Exhausted::Time);
        }
        inner.operation.as_ref().and_then(Self::exhaustion)
    }

    fn spend(&self, steps: u64) {
        if steps == 0 {
            return;
        }
        self.0.steps.fetch_add(steps, Ordering::Relaxed);
        if let Some(operation) = &self.0.operation {
            operation.spend(steps);
        }
    }

    /// Reserves bytes between two stages until the returned guard is dropped.
    ///
    /// # Errors
    /// `QueryExceededMemoryLimitNoDiskUseAllowed` (292) if the operation would exceed its own
    /// limit or that of the pool.
    pub fn hold(&self, bytes: usize) -> Result<Held> {
        let mut held = Held { budget: self.clone(), bytes: 0 };
        held.grow(bytes)?;
        Ok(held)
    }

    fn take_bytes(&self, bytes: usize) -> Result<()> {
        let inner = &*self.0;
        let before = inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > inner.most_bytes {
            inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let message = format!("Exceeded memory limit of {} bytes between two stages", inner.most_bytes);
            return Err(Error::new(ErrorCode::QueryExceededMemoryLimitNoDiskUseAllowed, message));
        }
        let beyond = match (inner.pool, &inner.operation) {
            (Some(pool), _) => pool.take(beyond_small(before, before + bytes)),
            (None, Some(operation)) => operation.take_bytes(bytes),
            (None, None) => Ok(()),
        };
        beyond.inspect_err(|_| {
            inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    fn give_bytes(&self, bytes: usize) {
        let before = self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(pool) = self.0.pool {
            pool.held.fetch_sub(beyond_small(before - bytes, before), Ordering::Relaxed);
        }
        if let Some(operation) = &self.0.operation {
            operation.give_bytes(bytes);
        }
    }
}

/// The part of the growth between two amounts that counts in the pool.
fn beyond_small(from: usize, to: usize) -> usize {
    to.saturating_sub(SMALL_HOLD) - from.saturating_sub(SMALL_HOLD)
}

impl From<Exhausted> for Error {
    fn from(why: Exhausted) -> Self {
        match why {
            Exhausted::Cancelled => Self::new(ErrorCode::Interrupted, "operation was interrupted"),
            Exhausted::Displaced => {
                let message = "operation exceeded the time limit that applies while other users wait";
                Self::new(ErrorCode::MaxTimeMsExpired, message)
            }
            Exhausted::Time => Self::new(ErrorCode::MaxTimeMsExpired, "operation exceeded time limit"),
            Exhausted::Steps => {
                Self::new(ErrorCode::MaxTimeMsExpired, "operation exceeded time limit: it takes too many steps")
            }
        }
    }
}

/// A guard that cancels a budget when it is dropped; see [`Budget::cancel_on_drop`].
#[derive(Debug)]
#[must_use]
pub struct CancelOnDrop(Option<Budget>);

impl CancelOnDrop {
    /// Drops the guard without cancelling the budget.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.cancel();
        }
    }
}

/// A reservation of bytes between two stages. Dropping it releases the bytes.
#[derive(Debug)]
#[must_use]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Held {
    /// Reserves more bytes.
    ///
    /// # Errors
    /// Fails as [`Budget::hold`] does; the reservation then keeps its size.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        self.budget.take_bytes(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_bytes(self.bytes);
    }
}

thread_local! {
    /// Steps left until the next check of the clock. At zero, the next charge checks it.
    static FUEL: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Size of the current slice, in steps.
    static GRANTED: Cell<u64> = const { Cell::new(0) };
    static CURRENT: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

/// Restores the previously entered budget, also after a panic.
struct Entered {
    fuel: u64,
    before: Option<Budget>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        settle();
        CURRENT.set(self.before.take());
        // The previous budget checks the clock with its next charge, which settles its last slice.
        FUEL.set(if CURRENT.with_borrow(Option::is_some) { 0 } else { self.fuel });
    }
}

/// Charges the used part of the current slice to the entered budget.
fn settle() {
    let (granted, left) = (GRANTED.replace(0), FUEL.replace(0));
    CURRENT.with_borrow(|current| {
        if let Some(budget) = current {
            budget.spend(granted.saturating_sub(left));
        }
    });
}

/// Charges steps to the budget that this thread has entered; a step is about one comparison.
///
/// # Errors
/// Fails as [`Budget::check`] does. After the first error, every further charge fails until the
/// thread leaves the budget.
#[inline]
pub fn charge(steps: u64) -> Result<()> {
    let left = FUEL.get();
    if steps < left {
        FUEL.set(left - steps);
        return Ok(());
    }
    refill(steps)
}

/// Charges for comparing or copying `bytes` bytes: one step for 64 bytes.
///
/// # Errors
/// Fails as [`charge`] does.
#[inline]
pub fn charge_bytes(bytes: usize) -> Result<()> {
    charge((bytes / BYTES_A_STEP) as u64)
}

/// Charges steps as [`charge`] does, for loops that cannot return an error.
///
/// Returns true if the loop may go on. After false, its result is incomplete; the caller's next
/// [`charge`] or [`Budget::check`] reports the error.
#[inline]
pub fn spend(steps: u64) -> bool {
    let left = FUEL.get();
    if steps < left {
        FUEL.set(left - steps);
        return true;
    }
    refill(steps).is_ok()
}

/// Charges bytes as [`charge_bytes`] does, for loops that cannot return an error. Returns true if
/// the loop may go on.
#[inline]
pub fn spend_bytes(bytes: usize) -> bool {
    spend((bytes / BYTES_A_STEP) as u64)
}

#[cold]
fn refill(steps: u64) -> Result<()> {
    settle();
    let Some(budget) = CURRENT.with_borrow(Clone::clone) else {
        FUEL.set(u64::MAX);
        return Ok(());
    };
    budget.spend(steps);
    budget.check()?;
    let mut grant = SLICE;
    let mut next = Some(&budget);
    while let Some(budget) = next {
        let left = budget.0.most_steps.saturating_sub(budget.0.steps.load(Ordering::Relaxed));
        grant = grant.min(left.saturating_add(1));
        next = budget.0.operation.as_ref();
    }
    GRANTED.set(grant);
    FUEL.set(grant);
    Ok(())
}

/// Returns the budget that this thread has entered, or an unlimited one if there is none.
pub fn entered() -> Budget {
    CURRENT.with_borrow(Clone::clone).unwrap_or_default()
}

/// Reserves bytes in the budget that this thread has entered.
///
/// # Errors
/// Fails as [`Budget::hold`] does.
pub fn hold(bytes: usize) -> Result<Held> {
    entered().hold(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn limited(steps: u64) -> Budget {
        Budget::new(Limits { steps: Some(steps), ..Limits::default() })
    }

    #[test]
    fn work_without_a_budget_is_not_limited() {
        assert!(spend(u64::MAX / 2) && spend(u64::MAX / 2) && spend(u64::MAX / 2));
        charge(1).unwrap();
    }

    #[test]
    fn stops_at_the_step_limit_and_stays_stopped() {
        let budget = limited(10_000);
        let taken = budget.enter(|| (0..100_000).take_while(|_| charge(1).is_ok()).count());
        assert!((9_990..=10_001).contains(&taken), "{taken}");
        assert!(budget.is_exhausted());
        assert_eq!(budget.enter(|| charge(0)).unwrap_err().code, ErrorCode::MaxTimeMsExpired);
        assert!(spend(1), "the thread is free again");
    }

    #[test]
    fn stops_at_the_deadline_or_on_cancellation() {
        let budget = Budget::new(Limits { time: Some(Duration::from_millis(20)), ..Limits::default() });
        let begun = Instant::now();
        budget.enter(|| while spend(1) {});
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert_eq!(budget.check().unwrap_err().code.number(), 50);

        let budget = Budget::default();
        let waiting = budget.cancel_on_drop();
        assert!(budget.enter(|| spend(5000)));
        drop(waiting);
        assert_eq!(budget.enter(|| charge(5000)).unwrap_err().code, ErrorCode::Interrupted);
    }

    #[test]
    fn an_exhausted_attempt_does_not_stop_its_operation() {
        let operation = limited(1_000_000);
        let attempt = operation.attempt(2_000);
        attempt.enter(|| while spend(1) {});
        assert!(attempt.is_exhausted() && !operation.is_exhausted());
        assert!(operation.steps() >= 2_000);
        operation.cancel();
        assert!(!operation.attempt(2_000).enter(|| spend(1)));
    }

    #[test]
    fn a_nested_budget_is_charged_alone() {
        let (outer, inner) = (limited(10_000), limited(100));
        outer.enter(|| {
            assert!(spend(5_000));
            assert!(!inner.enter(|| spend(200)));
            assert!(spend(4_000));
            assert!(!spend(2_000));
        });
        assert!(outer.steps() > 10_000);
    }

    #[test]
    fn releases_bytes_when_a_reservation_is_dropped() {
        let budget = Budget::new(Limits { bytes: Some(1000), ..Limits::default() });
        budget.enter(|| {
            let mut held = hold(600).unwrap();
            assert_eq!(hold(600).unwrap_err().code.number(), 292);
            held.grow(400).unwrap();
            drop(held);
            let _held = hold(1000).unwrap();
        });
    }

    #[test]
    fn operations_share_a_pool_beyond_their_free_share() {
        static POOL: MemoryPool = MemoryPool::new(1000);
        let budget = || Budget::owned(Limits::default(), "owner".into(), &POOL);
        let (one, other) = (budget(), budget());
        let small = one.hold(SMALL_HOLD).unwrap();
        // An attempt reserves bytes in its operation.
        let mut held = one.attempt(u64::MAX).hold(600).unwrap();
        let _other_small = other.hold(SMALL_HOLD).unwrap();
        assert_eq!(other.hold(500).unwrap_err().code.number(), 292);
        let other_held = other.hold(400).unwrap();
        assert!(held.grow(1).is_err());
        drop(small);
        held.grow(1).unwrap();
        drop((held, other_held));
        assert_eq!(POOL.held.load(Ordering::Relaxed), 0);
        assert_eq!(one.attempt(1).owner().map(|owner| &**owner), Some("owner"));
    }
}
