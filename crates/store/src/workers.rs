//! Worker threads for the expensive work of operations, with fair scheduling.
//!
//! Every owner may use at most a share of the threads. The next turn goes to the owner that has
//! used the least time lately. If an owner waits below its share, operations of other owners that
//! have run for a while are stopped. Work of the operator and of the backend itself does not wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use query::Budget;
use tokio::sync::oneshot;

use crate::{Error, Result};

/// The number of steps that work may take on the calling thread, which may be the event loop:
/// about a millisecond.
pub const INLINE_STEPS: u64 = 8_000;

/// The maximum number of waiting operations of one owner. Further ones are rejected.
const MOST_WAITING_OF_ONE: usize = 10_000;

/// The maximum number of waiting operations of all owners. Further ones are rejected.
const MOST_WAITING: usize = 40_000;

/// Time that an operation waits before an operation of another owner is stopped for it, if that
/// one has run for [`LEAST_TIME`].
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that an operation may run before it can be stopped, if its own limit is not shorter.
const LEAST_TIME: Duration = Duration::from_secs(2);

/// Half-life of an owner's used time.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// The number of owners at which idle ones are removed for the first time.
const FORGET_AT: usize = 1_000;

/// The worker threads of this process: two for each core, because some wait for the disk.
static THREADS: LazyLock<Arc<Queue>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = (2 * cores).max(4);
    Arc::new(Queue::new(most, (most / 4).clamp(2, 5)))
});

/// Runs work on a worker thread, within its budget and in the turn of the budget's owner. The work
/// stops soon after the future is dropped.
///
/// # Errors
/// `MaxTimeMSExpired` (50) if the time is over before the work begins. [`Error::TooManyWaiting`]
/// if too many operations wait. If the budget is exhausted later, the result of the work is
/// returned but is of no use, so callers check the budget.
pub async fn run<T: Send + 'static>(budget: &Budget, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    Ok(run_and_keep(budget, work).await?.0)
}

/// Runs work like [`run`], and returns the turn together with the result. Callers keep the turn
/// while the result takes memory: the next operation begins when the turn is dropped.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_and_keep<T: Send + 'static>(
    budget: &Budget,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, Option<Turn>)> {
    let turn = match budget.owner() {
        Some(owner) => Some(turn_of(owner, budget).await?),
        None => None,
    };
    let waiting = budget.cancel_on_drop();
    let within = budget.clone();
    let task = tokio::task::spawn_blocking(move || (within.enter(work), turn));
    // A caller that polls once on the event loop must not get the result there, because processing
    // a large result would block the loop.
    yield_once().await;
    let answer = task.await;
    waiting.disarm();
    answer.map_err(|error| Error::Engine(format!("an operation failed unexpectedly: {error}")))
}

/// Runs work on the calling thread for up to [`INLINE_STEPS`] steps, else on a worker thread. The
/// result of the first attempt is discarded then, so the work must have no side effects.
///
/// # Errors
/// The errors of the work and of [`run`], and of [`Budget::check`] if the work exhausts its
/// budget.
pub async fn run_if_large<T: Send + 'static, E: From<Error> + Send + 'static>(
    budget: &Budget,
    work: impl Fn() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let attempt = budget.attempt(INLINE_STEPS);
    let answer = attempt.enter(&work);
    if !attempt.is_exhausted() {
        return answer;
    }
    budget.check().map_err(Error::from)?;
    let answer = run(budget, work).await?;
    budget.check().map_err(Error::from)?;
    answer
}

/// Is pending at the first poll, and ready at the second.
async fn yield_once() {
    let mut is_first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut is_first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

async fn turn_of(owner: &Arc<str>, budget: &Budget) -> Result<Turn> {
    let mut turn = std::pin::pin!(THREADS.ask(owner, budget)?);
    loop {
        let until = Instant::now() + QUEUE_TIMEOUT;
        let until = budget.deadline().map_or(until, |deadline| deadline.min(until));
        if let Ok(turn) = tokio::time::timeout_at(until.into(), &mut turn).await {
            return turn;
        }
        budget.check()?;
        THREADS.displace_for(owner);
    }
}

/// A fair queue of permits to run: the next one goes to the owner that has used the least time
/// lately.
#[derive(Debug)]
struct Queue {
    /// The maximum number of operations that run at once.
    most: usize,
    /// The maximum number of operations of one owner that run at once.
    share: usize,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    running: HashMap<u64, Running>,
    waiting: usize,
    owners: HashMap<Arc<str>, Owner>,
    /// The owners with waiting operations, in the order in which they began to wait.
    order: VecDeque<Arc<str>>,
    next_id: u64,
    /// The number of owners at which idle ones are removed.
    forget_at: usize,
}

/// A running operation.
#[derive(Debug)]
struct Running {
    owner: Arc<str>,
    budget: Budget,
    since: Instant,
}

#[derive(Debug)]
struct Owner {
    running: usize,
    waiting: VecDeque<Waiting>,
    /// Time that operations have used; it decays by half in each [`HALF_LIFE`].
    used: Duration,
    used_at: Instant,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    budget: Budget,
    sender: oneshot::Sender<Turn>,
}

/// A permit to run, which passes to the next operation when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Queue>,
    id: u64,
}

impl Owner {
    fn new() -> Self {
        Self { running: 0, waiting: VecDeque::new(), used: Duration::ZERO, used_at: Instant::now() }
    }

    /// Returns the decayed time that the owner has used.
    fn used(&self, now: Instant) -> Duration {
        let half_lives = now.saturating_duration_since(self.used_at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.used.mul_f64(0.5_f64.powf(half_lives))
    }

    fn note_used(&mut self, time: Duration, now: Instant) {
        self.used = self.used(now) + time;
        self.used_at = now;
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }
}

impl Queue {
    fn new(most: usize, share: usize) -> Self {
        Self { most, share, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the queue. Dropping the future leaves the queue.
    fn ask(
        self: &Arc<Self>,
        owner: &Arc<str>,
        budget: &Budget,
    ) -> Result<impl Future<Output = Result<Turn>> + Send + use<>> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut state = self.state();
            let of_owner = state.owners.get(owner).map_or(0, |owner| owner.waiting.len());
            if of_owner >= MOST_WAITING_OF_ONE || state.waiting >= MOST_WAITING {
                return Err(Error::TooManyWaiting { is_of_one: of_owner >= MOST_WAITING_OF_ONE });
            }
            let id = state.next_id;
            state.next_id += 1;
            state.waiting += 1;
            let of_owner = state.owners.entry(Arc::clone(owner)).or_insert_with(Owner::new);
            of_owner.waiting.push_back(Waiting { id, budget: budget.clone(), sender });
            if of_owner.waiting.len() == 1 {
                state.order.push_back(Arc::clone(owner));
            }
            id
        };
        self.give_turns();
        let place = Ticket { turns: Arc::clone(self), owner: Arc::clone(owner), id };
        Ok(async move {
            let turn = receiver.await.map_err(|_| Error::Closed);
            drop(place);
            turn
        })
    }

    /// Hands free permits to the operations whose turn it is.
    fn give_turns(self: &Arc<Self>) {
        let mut given = Vec::new();
        while let Some(turn) = self.state().next_turn(self) {
            given.push(turn);
        }
        // Outside the lock: a permit whose receiver is gone returns at once, and takes the lock.
        for (sender, turn) in given {
            let _ = sender.send(turn);
        }
    }

    /// Stops the longest-running operation of other owners, if it has run for [`LEAST_TIME`] and
    /// `owner` is below its share.
    fn displace_for(&self, owner: &Arc<str>) {
        let state = self.state();
        if state.owners.get(owner).is_none_or(|owner| owner.running >= self.share) {
            return;
        }
        let others = state.running.values().filter(|running| running.owner != *owner);
        if let Some(longest) = others.min_by_key(|running| running.since)
            && longest.since.elapsed() >= LEAST_TIME
        {
            longest.budget.displace();
        }
    }
}

impl PoolState {
    /// Takes the next operation out of the queue, if a permit is free.
    fn next_turn(&mut self, turns: &Arc<Queue>) -> Option<(oneshot::Sender<Turn>, Turn)> {
        if self.running.len() >= turns.most {
            return None;
        }
        let now = Instant::now();
        let candidates = self.order.iter().enumerate().filter_map(|(index, name)| {
            let owner = self.owners.get(name).filter(|owner| owner.running < turns.share)?;
            Some((owner.running, owner.used(now), index))
        });
        let (.., index) = candidates.min()?;
        let name = self.order.remove(index)?;
        let owner = self.owners.get_mut(&name)?;
        let Waiting { id, budget, sender } = owner.waiting.pop_front()?;
        owner.running += 1;
        if !owner.waiting.is_empty() {
            self.order.push_back(Arc::clone(&name));
        }
        self.waiting -= 1;
        self.running.insert(id, Running { owner: name, budget, since: now });
        Some((sender, Turn { turns: Arc::clone(turns), id }))
    }

    /// Removes owners without recent use, once there are many owners.
    fn forget_idle(&mut self, now: Instant) {
        if self.owners.len() < self.forget_at.max(FORGET_AT) {
            return;
        }
        self.owners.retain(|_, owner| !owner.is_idle() || owner.used(now) > Duration::from_millis(1));
        self.forget_at = 2 * self.owners.len();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let now = Instant::now();
            let mut state = self.turns.state();
            if let Some(Running { owner, since, .. }) = state.running.remove(&self.id)
                && let Some(owner) = state.owners.get_mut(&owner)
            {
                owner.running -= 1;
                owner.note_used(now.saturating_duration_since(since), now);
            }
            state.forget_idle(now);
        }
        self.turns.give_turns();
    }
}

/// A position in the queue. Dropping it leaves the queue.
struct Ticket {
    turns: Arc<Queue>,
    owner: Arc<str>,
    id: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let Some(owner) = state.owners.get_mut(&self.owner) else { return };
        let Ok(index) = owner.waiting.binary_search_by_key(&self.id, |waiting| waiting.id) else { return };
        owner.waiting.remove(index);
        let is_waiting = !owner.waiting.is_empty();
        state.waiting -= 1;
        if !is_waiting {
            state.order.retain(|owner| *owner != self.owner);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;

    use futures_util::FutureExt;
    use query::{Limits, MemoryPool, budget::spend};

    use super::*;

    fn owner(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn owners_take_turns_and_have_at_most_a_share() {
        let turns = Arc::new(Queue::new(3, 2));
        let (greedy, other) = (owner("greedy"), owner("other"));
        let budget = Budget::default();
        let ask = |owner: &Arc<str>| Box::pin(turns.ask(owner, &budget).unwrap());
        let mut greedy_turns: Vec<_> = (0..100).map(|_| ask(&greedy)).collect();
        let running: Vec<Turn> = greedy_turns.drain(..2).map(|turn| turn.now_or_never().unwrap().unwrap()).collect();
        assert!(greedy_turns[0].as_mut().now_or_never().is_none(), "a third one exceeds the share");
        let mut first = ask(&other);
        let first = first.as_mut().now_or_never().unwrap().unwrap();
        let second = ask(&other);
        // Both permits of the greedy owner are free. The other owner has used less and gets the
        // first.
        drop(running);
        let second = second.now_or_never().unwrap().unwrap();
        let greedy_turn = greedy_turns[0].as_mut().now_or_never().unwrap().unwrap();
        assert!(greedy_turns[1].as_mut().now_or_never().is_none());
        drop((greedy_turns, greedy_turn, first, second));
        let state = turns.state();
        assert!(state.running.is_empty() && state.waiting == 0 && state.order.is_empty());
        assert!(state.owners.values().all(Owner::is_idle));
    }

    #[test]
    fn the_owner_that_has_used_least_is_next_and_used_time_decays() {
        let turns = Arc::new(Queue::new(1, 1));
        let budget = Budget::default();
        let busy = turns.ask(&owner("busy"), &budget).unwrap().now_or_never().unwrap().unwrap();
        let many: Vec<Arc<str>> = (0..20).map(|number| owner(&format!("heavy {number}"))).collect();
        for heavy in &many {
            let mut used = Owner::new();
            used.note_used(Duration::from_secs(5), Instant::now());
            turns.state().owners.insert(Arc::clone(heavy), used);
        }
        let heavy: Vec<_> = many.iter().map(|heavy| Box::pin(turns.ask(heavy, &budget).unwrap())).collect();
        let newcomer = turns.ask(&owner("newcomer"), &budget).unwrap();
        drop(busy);
        let turn = newcomer.now_or_never().unwrap().unwrap();
        drop((turn, heavy));
        let mut state = turns.state();
        let later = Instant::now() + 20 * HALF_LIFE;
        state.forget_at = 1;
        assert!(state.owners[&many[0]].used(later) < Duration::from_millis(1));
        for number in 0..FORGET_AT {
            state.owners.insert(owner(&number.to_string()), Owner::new());
        }
        state.forget_idle(later);
        assert!(state.owners.is_empty());
    }

    #[test]
    fn long_running_operations_are_stopped_for_another_owner() {
        let turns = Arc::new(Queue::new(2, 2));
        let (long, short) = (Budget::default(), Budget::default());
        let greedy = owner("greedy");
        let ask = |owner: &Arc<str>, budget: &Budget| turns.ask(owner, budget).unwrap();
        let running = [ask(&greedy, &long), ask(&greedy, &short)].map(|turn| turn.now_or_never().unwrap().unwrap());
        let own = Box::pin(ask(&greedy, &Budget::default()));
        if let Some(oldest) = turns.state().running.get_mut(&running[0].id) {
            oldest.since -= LEAST_TIME;
        }
        turns.displace_for(&greedy);
        assert!(!long.is_exhausted(), "an owner at its share stops no operation");
        let other = owner("other");
        let waiting = Box::pin(ask(&other, &Budget::default()));
        turns.displace_for(&other);
        assert!(!short.is_exhausted());
        assert_eq!(number(&long.check().unwrap_err().into()), 50);
        drop((running, own, waiting));
    }

    #[test]
    fn rejects_operations_when_too_many_wait() {
        let turns = Arc::new(Queue::new(1, 1));
        let (greedy, budget) = (owner("greedy"), Budget::default());
        let mut waiting: Vec<_> = (0..=MOST_WAITING_OF_ONE).map(|_| turns.ask(&greedy, &budget).unwrap()).collect();
        let refused = turns.ask(&greedy, &budget).map(drop);
        assert!(matches!(refused, Err(Error::TooManyWaiting { is_of_one: true })));
        let other = turns.ask(&owner("other"), &budget).unwrap();
        waiting.truncate(10);
        assert!(turns.ask(&greedy, &budget).is_ok(), "leaving the queue makes room");
        drop(waiting);
        assert!(other.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn work_that_waits_too_long_fails_and_work_without_an_owner_does_not_wait() {
        static POOL: MemoryPool = MemoryPool::new(0);
        let slow = Limits { time: Some(Duration::from_millis(300)), ..Limits::default() };
        let budget = || Budget::owned(slow, owner("work that waits"), &POOL);
        let busy: Vec<Budget> = (0..THREADS.share).map(|_| budget()).collect();
        let busy: Vec<_> = busy
            .into_iter()
            .map(|budget| tokio::spawn(async move { run(&budget, || while query::budget::spend(1) {}).await }))
            .collect();
        tokio::task::yield_now().await;
        let short = Limits { time: Some(Duration::from_millis(30)), ..Limits::default() };
        let refused = run(&Budget::owned(short, owner("work that waits"), &POOL), || ()).await;
        assert!(matches!(refused, Err(Error::Query(error)) if error.code.number() == 50));
        assert_eq!(run(&Budget::default(), || 7).await.unwrap(), 7);
        for task in busy {
            task.await.unwrap().unwrap();
        }
    }

    fn number(error: &Error) -> i32 {
        match error {
            Error::Query(error) => error.number(),
            _ => 0,
        }
    }

    #[tokio::test]
    async fn only_long_work_moves_to_a_worker_thread() {
        let here = thread::current().id();
        let budget = Budget::new(Limits { steps: Some(1_000_000), ..Limits::default() });
        let count = |steps| {
            move || {
                query::budget::charge(steps)?;
                Ok::<_, Error>(thread::current().id())
            }
        };
        assert_eq!(run_if_large(&budget, count(5_000)).await.unwrap(), here);
        assert_ne!(run_if_large(&budget, count(20_000)).await.unwrap(), here);
        // The work ignores that its budget is exhausted.
        let careless = || Ok::<_, Error>(spend(2_000_000));
        assert_eq!(number(&run_if_large(&budget, careless).await.unwrap_err()), 50);
        assert_eq!(number(&run_if_large(&budget, || Ok::<_, Error>(())).await.unwrap_err()), 50);
    }

    #[tokio::test]
    async fn stops_when_the_future_is_dropped_and_reports_a_panic() {
        let (ended, end) = std::sync::mpsc::channel();
        let budget = Budget::default();
        let endless = move || {
            while spend(1_000) {}
            let _ = ended.send(thread::current().id());
            Ok::<_, Error>(())
        };
        let here = thread::current().id();
        assert!(tokio::time::timeout(Duration::from_millis(50), run_if_large(&budget, endless)).await.is_err());
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_apart = |thread: thread::ThreadId| thread != here;
        while !end.recv_timeout(deadline.saturating_duration_since(Instant::now())).map(is_apart).unwrap() {}
        assert_eq!(number(&budget.check().unwrap_err().into()), 11601);

        #[allow(clippy::panic)]
        let broken = || {
            query::budget::charge(20_000)?;
            panic!("broken")
        };
        let error = run_if_large::<(), Error>(&Budget::default(), broken).await.unwrap_err();
        assert!(error.to_string().contains("failed unexpectedly"), "{error}");
    }
}
