//! The budget of an operation: how long it may run, how many steps it may take, and how many bytes it may hold between
//! two stages.
//!
//! A [`Budget`] is *entered* for a stretch of synchronous work, and every loop of this crate charges the budget that
//! its thread has entered. So no signature carries it, and no comparison, path or sort can be called without it. Work
//! that has entered none is not limited.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Error, ErrorCode, Result};

/// Steps between two looks at the clock: well below a millisecond.
const SLICE: u64 = 1024;

/// Bytes that are compared or copied in the time of one step.
const BYTES_A_STEP: usize = 64;

/// What an operation may cost. The default limits nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// How long it may take, from when its budget is made (`maxTimeMS`).
    pub time: Option<Duration>,
    /// How many steps it may take: a step is about one comparison.
    pub steps: Option<u64>,
    /// How many bytes it may hold at once between two stages.
    pub bytes: Option<usize>,
}

/// Bytes that the operations of a process hold together. Up to [`SMALL_HOLD`] bytes of each operation do not count.
#[derive(Debug)]
pub struct MemoryPool {
    most: usize,
    held: AtomicUsize,
}

impl MemoryPool {
    /// A pool of `most` bytes.
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

/// Bytes that an operation may hold without counting in the [`MemoryPool`].
const SMALL_HOLD: usize = 4 * 1024 * 1024;

/// The budget of one operation. Clones share it, so that it holds for all stretches and threads of the operation.
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
    /// The budget of the operation that this is an attempt of.
    operation: Option<Budget>,
}

/// Why work under a budget stopped.
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
    /// A budget without limits, which can be cancelled.
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Budget {
    /// A budget whose time begins now.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner::new(limits)))
    }

    /// A budget whose time begins now, for an operation of `owner` that holds its bytes in a pool. Operations of one
    /// owner take turns where threads are scarce.
    pub fn owned(limits: Limits, owner: Arc<str>, pool: &'static MemoryPool) -> Self {
        Self(Arc::new(Inner { owner: Some(owner), pool: Some(pool), ..Inner::new(limits) }))
    }

    /// A budget without limits, for an operation of `owner`, if it has one.
    pub fn unlimited(owner: Option<Arc<str>>) -> Self {
        Self(Arc::new(Inner { owner, ..Inner::new(Limits::default()) }))
    }

    /// This new budget for an operation whose request has so many bytes, which it holds until it is done.
    pub fn of_request(mut self, bytes: usize) -> Self {
        // Nobody else has it yet.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.request_bytes = bytes;
        }
        self
    }

    /// The bytes of the operation's request, as far as they are known.
    pub fn request_bytes(&self) -> usize {
        self.0.request_bytes
    }

    /// The owner of the operation; none if it is the operator's or the backend's own.
    pub fn owner(&self) -> Option<&Arc<str>> {
        self.0.owner.as_ref().or_else(|| self.0.operation.as_ref()?.owner())
    }

    /// A part of this budget for an attempt that may take up to `steps` steps and gives up beyond them. What it spends
    /// is spent by the operation too.
    pub fn attempt(&self, steps: u64) -> Self {
        // Its time and its owner are those of the operation.
        let limits = Limits { steps: Some(steps), ..Limits::default() };
        Self(Arc::new(Inner { operation: Some(self.clone()), ..Inner::new(limits) }))
    }

    /// Runs synchronous work under this budget. Inside, what charges a budget charges this one.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let fuel = FUEL.get();
        // Steps of the budget that was entered before are its own.
        settle();
        let entered = Entered { fuel, before: CURRENT.replace(Some(self.clone())) };
        let answer = work();
        drop(entered);
        answer
    }

    /// The time that is left, if time is limited; zero when it is over.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// When the time is over, if it is limited.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline.or_else(|| self.0.operation.as_ref()?.deadline())
    }

    /// Steps that were taken so far.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Stops the operation: nobody waits for its answer any more.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Stops the operation in favour of those of other owners: it fails as if its time were over.
    pub fn displace(&self) {
        self.0.is_displaced.store(true, Ordering::Relaxed);
    }

    /// Cancels the operation when the guard is dropped, unless it is [disarmed](CancelOnDrop::disarm) before.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }

    /// True if nothing more may be done under this budget.
    pub fn is_exhausted(&self) -> bool {
        self.exhaustion().is_some()
    }

    /// Checks that something may still be done under this budget.
    ///
    /// # Errors
    /// `MaxTimeMSExpired` (50) beyond the limit of time or steps, `Interrupted` (11601) when it was cancelled.
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

    /// Holds bytes between two stages until the guard is dropped.
    ///
    /// # Errors
    /// `QueryExceededMemoryLimitNoDiskUseAllowed` (292) if the operation would hold more than it may.
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

/// The part of the bytes between two amounts that counts in the pool.
fn beyond_small(from: usize, to: usize) -> usize {
    to.saturating_sub(SMALL_HOLD) - from.saturating_sub(SMALL_HOLD)
}

impl From<Exhausted> for Error {
    fn from(why: Exhausted) -> Self {
        match why {
            Exhausted::Cancelled => Self::new(ErrorCode::Interrupted, "operation was interrupted"),
            Exhausted::Displaced => {
                let message = "operation exceeded the time that it has while other users wait";
                Self::new(ErrorCode::MaxTimeMsExpired, message)
            }
            Exhausted::Time => Self::new(ErrorCode::MaxTimeMsExpired, "operation exceeded time limit"),
            Exhausted::Steps => {
                Self::new(ErrorCode::MaxTimeMsExpired, "operation exceeded time limit: it takes too many steps")
            }
        }
    }
}

/// Cancels a budget when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct CancelOnDrop(Option<Budget>);

impl CancelOnDrop {
    /// Leaves the budget as it is.
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

/// Bytes that an operation holds between two stages, as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Held {
    /// Holds more bytes.
    ///
    /// # Errors
    /// As [`Budget::hold`].
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
    /// Steps left until the clock is looked at. Zero makes the next charge look.
    static FUEL: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Steps that were granted with the fuel.
    static GRANTED: Cell<u64> = const { Cell::new(0) };
    static CURRENT: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

/// Restores what was entered before, also after a panic.
struct Entered {
    fuel: u64,
    before: Option<Budget>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        settle();
        CURRENT.set(self.before.take());
        // The budget from before has its fuel back; what it was granted is settled with its next slice.
        FUEL.set(if CURRENT.with_borrow(Option::is_some) { 0 } else { self.fuel });
    }
}

/// Notes the steps that were taken of the granted slice.
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
/// As [`Budget::check`]. Once it failed it fails until the budget is left.
#[inline]
pub fn charge(steps: u64) -> Result<()> {
    let left = FUEL.get();
    if steps < left {
        FUEL.set(left - steps);
        return Ok(());
    }
    refill(steps)
}

/// Charges the comparing or copying of bytes.
///
/// # Errors
/// As [`charge`].
#[inline]
pub fn charge_bytes(bytes: usize) -> Result<()> {
    charge((bytes / BYTES_A_STEP) as u64)
}

/// As [`charge`], for loops that have no error: true if they may go on. What they found is then of no use, since the
/// next charge fails too.
#[inline]
pub fn spend(steps: u64) -> bool {
    let left = FUEL.get();
    if steps < left {
        FUEL.set(left - steps);
        return true;
    }
    refill(steps).is_ok()
}

/// As [`charge_bytes`], for loops that have no error.
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

/// The budget that this thread has entered; one without limits if it has entered none.
pub fn entered() -> Budget {
    CURRENT.with_borrow(Clone::clone).unwrap_or_default()
}

/// Holds bytes in the budget that this thread has entered.
///
/// # Errors
/// As [`Budget::hold`].
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
    fn stops_at_the_limit_of_steps_and_stays_stopped() {
        let budget = limited(10_000);
        let taken = budget.enter(|| (0..100_000).take_while(|_| charge(1).is_ok()).count());
        assert!((9_990..=10_001).contains(&taken), "{taken}");
        assert!(budget.is_exhausted());
        assert_eq!(budget.enter(|| charge(0)).unwrap_err().code, ErrorCode::MaxTimeMsExpired);
        assert!(spend(1), "the thread is free again");
    }

    #[test]
    fn stops_when_time_is_over_or_nobody_waits() {
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
    fn an_attempt_gives_up_early_and_its_operation_goes_on() {
        let operation = limited(1_000_000);
        let attempt = operation.attempt(2_000);
        attempt.enter(|| while spend(1) {});
        assert!(attempt.is_exhausted() && !operation.is_exhausted());
        assert!(operation.steps() >= 2_000);
        operation.cancel();
        assert!(!operation.attempt(2_000).enter(|| spend(1)));
    }

    #[test]
    fn a_budget_within_another_is_left_to_it() {
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
    fn holds_bytes_as_long_as_they_are_needed() {
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
    fn operations_share_a_pool_beyond_what_is_small() {
        static POOL: MemoryPool = MemoryPool::new(1000);
        let budget = || Budget::owned(Limits::default(), "owner".into(), &POOL);
        let (one, other) = (budget(), budget());
        let small = one.hold(SMALL_HOLD).unwrap();
        // An attempt holds what its operation holds.
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
