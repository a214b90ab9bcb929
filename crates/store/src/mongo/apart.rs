//! Computations of the node, apart from the threads that serve connections.

use query::Budget;

use crate::{Error, Result};

/// Steps that a computation may take on the polling thread before it moves to another one: about a millisecond.
const INLINE_STEPS: u64 = 8_000;

/// Computes within a budget: at once if that is a small matter, else on another thread. What a first attempt has found is
/// discarded, so the work must have no effect but its answer.
///
/// # Errors
/// Those of the work, and those of [`Budget::check`] if the budget is exhausted by it.
pub(super) async fn compute<T: Send + 'static>(
    budget: &Budget,
    work: impl Fn() -> Result<T> + Send + 'static,
) -> Result<T> {
    let attempt = budget.attempt(INLINE_STEPS);
    let answer = attempt.enter(&work);
    if !attempt.is_exhausted() {
        return answer;
    }
    drop(answer);
    budget.check()?;
    on_a_thread(budget, work).await
}

/// Computes on another thread, within a budget. The work is cancelled when the future is dropped.
///
/// # Errors
/// As [`compute`].
pub(super) async fn on_a_thread<T: Send + 'static>(
    budget: &Budget,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let waiting = budget.cancel_on_drop();
    let within = budget.clone();
    let answer = tokio::task::spawn_blocking(move || within.enter(work)).await;
    waiting.disarm();
    budget.check()?;
    answer.unwrap_or_else(|error| Err(Error::Engine(format!("a computation was abandoned: {error}"))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use query::{Limits, budget::spend};

    use super::*;

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
                Ok(thread::current().id())
            }
        };
        assert_eq!(compute(&budget, count(5_000)).await.unwrap(), here);
        assert_ne!(compute(&budget, count(20_000)).await.unwrap(), here);
        // What the work makes of the end of its budget does not count.
        let careless = || Ok(spend(2_000_000));
        assert_eq!(number(&compute(&budget, careless).await.unwrap_err()), 50);
        assert_eq!(number(&compute(&budget, || Ok(())).await.unwrap_err()), 50);
    }

    #[tokio::test]
    async fn ends_when_the_future_is_dropped_and_reports_a_panic() {
        let (ended, end) = std::sync::mpsc::channel();
        let budget = Budget::default();
        let endless = move || {
            while spend(1_000) {}
            let _ = ended.send(thread::current().id());
            Ok(())
        };
        let here = thread::current().id();
        assert!(tokio::time::timeout(Duration::from_millis(50), compute(&budget, endless)).await.is_err());
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_apart = |thread: thread::ThreadId| thread != here;
        while !end.recv_timeout(deadline.saturating_duration_since(Instant::now())).map(is_apart).unwrap() {}
        assert_eq!(number(&budget.check().unwrap_err().into()), 11601);

        #[allow(clippy::panic)]
        let broken = || {
            query::budget::charge(20_000)?;
            panic!("broken")
        };
        let error = compute::<()>(&Budget::default(), broken).await.unwrap_err();
        assert!(error.to_string().contains("was abandoned"), "{error}");
    }
}
