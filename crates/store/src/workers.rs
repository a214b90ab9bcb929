//! Threads for the expensive work of operations, shared fairly: every owner of operations has at most a share of them, and
//! owners take turns. Work that belongs to the operator or to the backend itself does not wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use query::Budget;
use tokio::sync::oneshot;

use crate::{Error, Result};

/// Steps that work may take on the calling thread, which may be that of the event loop: about a millisecond.
pub const INLINE_STEPS: u64 = 8_000;

/// Largest number of operations of one owner that wait for a thread. Further ones are refused.
const MOST_WAITING_OF_ONE: usize = 1_000;

/// Largest number of operations of all owners that wait for a thread. Further ones are refused.
const MOST_WAITING: usize = 10_000;

/// The threads of this process: twice as many as there are cores, since some wait for the disk.
static THREADS: LazyLock<Arc<Turns>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = (2 * cores).max(4);
    Arc::new(Turns::new(most, (most / 4).clamp(2, 5)))
});

/// Runs work on another thread, within its budget and in the turn of the budget's owner. It stops soon after the future is
/// dropped.
///
/// # Errors
/// `MaxTimeMSExpired` (50) if the time is over before its turn comes, and [`Error::TooManyWaiting`] if too many operations wait.
/// If the budget is exhausted later, the work's own result is returned, and is of no use: callers check the budget.
pub async fn run<T: Send + 'static>(budget: &Budget, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let turn = match budget.owner() {
        Some(owner) => Some(turn_of(owner, budget).await?),
        None => None,
    };
    let waiting = budget.cancel_on_drop();
    let within = budget.clone();
    let task = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        within.enter(work)
    });
    // A caller that polls once on the event loop must not find the answer there: it may be large, and be worked on.
    yield_once().await;
    let answer = task.await;
    waiting.disarm();
    answer.map_err(|error| Error::Engine(format!("an operation was abandoned: {error}")))
}

/// Runs work here if it takes up to [`INLINE_STEPS`] steps, else on another thread. What a first attempt has found is
/// discarded, so the work must have no effect but its answer.
///
/// # Errors
/// Those of the work and of [`run`], and those of [`Budget::check`] if the budget is exhausted by it.
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

/// Is pending at the first poll.
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
    let turn = THREADS.ask(owner)?;
    let Some(deadline) = budget.deadline() else { return turn.await };
    match tokio::time::timeout_at(deadline.into(), turn).await {
        Ok(turn) => turn,
        Err(_) => {
            budget.check()?;
            Err(Error::Closed)
        }
    }
}

/// Permits to run, given to owners in turn.
#[derive(Debug)]
struct Turns {
    /// How many run at once.
    most: usize,
    /// How many of one owner run at once.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    owners: HashMap<Arc<str>, Owner>,
    /// The owners with operations that wait, in the order of their turns.
    order: VecDeque<Arc<str>>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Owner {
    running: usize,
    waiting: VecDeque<(u64, oneshot::Sender<Turn>)>,
}

/// A permit to run. Gives its place to the next when it is dropped.
#[derive(Debug)]
struct Turn {
    turns: Arc<Turns>,
    owner: Arc<str>,
}

impl Turns {
    fn new(most: usize, share: usize) -> Self {
        Self { most, share, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets in line. The future leaves the line when it is dropped.
    fn ask(self: &Arc<Self>, owner: &Arc<str>) -> Result<impl Future<Output = Result<Turn>> + Send + use<>> {
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
            let of_owner = state.owners.entry(Arc::clone(owner)).or_default();
            of_owner.waiting.push_back((id, sender));
            if of_owner.waiting.len() == 1 {
                state.order.push_back(Arc::clone(owner));
            }
            id
        };
        self.give_turns();
        let place = Place { turns: Arc::clone(self), owner: Arc::clone(owner), id };
        Ok(async move {
            let turn = receiver.await.map_err(|_| Error::Closed);
            drop(place);
            turn
        })
    }

    /// Gives free places to those whose turn it is.
    fn give_turns(self: &Arc<Self>) {
        let mut given = Vec::new();
        {
            let mut state = self.state();
            // Owners that have their share are passed over. Each of them runs something, so there are few.
            let mut passed_over = 0;
            while state.running < self.most && passed_over < state.order.len() {
                let Some(owner) = state.order.pop_front() else { break };
                let Some(of_owner) = state.owners.get_mut(&owner) else { continue };
                if of_owner.running >= self.share {
                    state.order.push_back(owner);
                    passed_over += 1;
                    continue;
                }
                let Some((_, sender)) = of_owner.waiting.pop_front() else { continue };
                of_owner.running += 1;
                if !of_owner.waiting.is_empty() {
                    state.order.push_back(Arc::clone(&owner));
                }
                state.waiting -= 1;
                state.running += 1;
                given.push((sender, Turn { turns: Arc::clone(self), owner }));
            }
        }
        // Outside the lock: a turn that is not taken any more comes back at once, and takes the lock.
        for (sender, turn) in given {
            let _ = sender.send(turn);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut state = self.turns.state();
            state.running -= 1;
            if let Some(owner) = state.owners.get_mut(&self.owner) {
                owner.running -= 1;
                if owner.running == 0 && owner.waiting.is_empty() {
                    state.owners.remove(&self.owner);
                }
            }
        }
        self.turns.give_turns();
    }
}

/// A place in the line, which is left when this is dropped.
struct Place {
    turns: Arc<Turns>,
    owner: Arc<str>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let Some(owner) = state.owners.get_mut(&self.owner) else { return };
        let Ok(index) = owner.waiting.binary_search_by_key(&self.id, |(id, _)| *id) else { return };
        owner.waiting.remove(index);
        let (is_waiting, is_running) = (!owner.waiting.is_empty(), owner.running > 0);
        state.waiting -= 1;
        if !is_waiting {
            state.order.retain(|owner| *owner != self.owner);
        }
        if !is_waiting && !is_running {
            state.owners.remove(&self.owner);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use futures_util::FutureExt;
    use query::{Limits, MemoryPool, budget::spend};

    use super::*;

    fn owner(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn owners_take_turns_and_have_at_most_a_share() {
        let turns = Arc::new(Turns::new(3, 2));
        let (greedy, other) = (owner("greedy"), owner("other"));
        let ask = |owner: &Arc<str>| Box::pin(turns.ask(owner).unwrap());
        let mut greedy_turns: Vec<_> = (0..100).map(|_| ask(&greedy)).collect();
        let running: Vec<Turn> = greedy_turns.drain(..2).map(|turn| turn.now_or_never().unwrap().unwrap()).collect();
        assert!(greedy_turns[0].as_mut().now_or_never().is_none(), "a third is over the share");
        let mut first = ask(&other);
        let second = ask(&other);
        let first = first.as_mut().now_or_never().unwrap().unwrap();
        drop(running);
        // Both places of the greedy one are free: it gets the next turn, then the other one does.
        let greedy_turn = greedy_turns[0].as_mut().now_or_never().unwrap().unwrap();
        let second = second.now_or_never().unwrap().unwrap();
        assert!(greedy_turns[1].as_mut().now_or_never().is_none());
        drop((greedy_turns, greedy_turn, first, second));
        let state = turns.state();
        assert!(state.running == 0 && state.waiting == 0 && state.owners.is_empty() && state.order.is_empty());
    }

    #[test]
    fn refuses_what_is_too_much_to_wait() {
        let turns = Arc::new(Turns::new(1, 1));
        let greedy = owner("greedy");
        let mut waiting: Vec<_> = (0..=MOST_WAITING_OF_ONE).map(|_| turns.ask(&greedy).unwrap()).collect();
        assert!(matches!(turns.ask(&greedy).map(drop), Err(Error::TooManyWaiting { is_of_one: true })));
        let other = turns.ask(&owner("other")).unwrap();
        waiting.truncate(10);
        assert!(turns.ask(&greedy).is_ok(), "who leaves the line makes room");
        drop(waiting);
        assert!(other.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn work_that_waits_too_long_fails_and_work_of_nobody_does_not_wait() {
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
    async fn only_what_takes_long_moves_to_another_thread() {
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
        // What the work makes of the end of its budget does not count.
        let careless = || Ok::<_, Error>(spend(2_000_000));
        assert_eq!(number(&run_if_large(&budget, careless).await.unwrap_err()), 50);
        assert_eq!(number(&run_if_large(&budget, || Ok::<_, Error>(())).await.unwrap_err()), 50);
    }

    #[tokio::test]
    async fn ends_when_the_future_is_dropped_and_reports_a_panic() {
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
        assert!(error.to_string().contains("was abandoned"), "{error}");
    }
}
