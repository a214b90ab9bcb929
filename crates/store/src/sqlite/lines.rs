//! The queue of the writer thread: jobs in one line for each owner.
//!
//! The next job is that of the owner whose jobs have used the least writer time lately. Thus, many
//! or expensive writes of some users delay the write of another by one of them, not by all. Jobs
//! without an owner, which are those of the operator and of the backend itself, get every second
//! turn: log-ins are among them.
//!
//! This is start-time fair queuing (<https://doi.org/10.1145/248156.248171>). A virtual clock
//! counts the time of the jobs. An owner that becomes active again begins at the current virtual
//! time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The number of owners at which idle ones are removed.
const FORGET_AT: usize = 1_000;

/// Jobs in one line for each owner.
pub(super) struct Lines<J> {
    unowned: VecDeque<J>,
    owners: HashMap<Arc<str>, Line<J>>,
    /// The owners with jobs, by the start times of their next jobs, and then in the order of
    /// arrival.
    order: BTreeMap<(Duration, u64), Arc<str>>,
    /// The start time of the last job or, while no job waits, the latest end time.
    clock: Duration,
    latest_end: Duration,
    /// The sequence number of the last entry in `order`.
    entries: u64,
    /// True if the last job had no owner.
    is_owners_turn: bool,
}

struct Line<J> {
    jobs: VecDeque<J>,
    /// The end time of the owner's last job.
    end: Duration,
}

impl<J> Default for Lines<J> {
    fn default() -> Self {
        Self {
            unowned: VecDeque::new(),
            owners: HashMap::new(),
            order: BTreeMap::new(),
            clock: Duration::ZERO,
            latest_end: Duration::ZERO,
            entries: 0,
            is_owners_turn: false,
        }
    }
}

impl<J> Lines<J> {
    /// Appends a job to its owner's line.
    pub(super) fn push(&mut self, owner: Option<Arc<str>>, job: J) {
        let Some(owner) = owner else { return self.unowned.push_back(job) };
        let line = self
            .owners
            .entry(Arc::clone(&owner))
            .or_insert_with(|| Line { jobs: VecDeque::new(), end: Duration::ZERO });
        line.jobs.push_back(job);
        if line.jobs.len() == 1 {
            let begin = line.end.max(self.clock);
            self.get_in_line(owner, begin);
        }
    }

    fn get_in_line(&mut self, owner: Arc<str>, begin: Duration) {
        self.entries += 1;
        self.order.insert((begin, self.entries), owner);
    }

    /// Runs the next job, and counts its time. Returns `None` if no job waits.
    pub(super) fn run_next<T>(&mut self, run: impl FnOnce(J) -> (T, Duration)) -> Option<T> {
        if !self.is_owners_turn || self.order.is_empty() {
            self.is_owners_turn = true;
            if let Some(job) = self.unowned.pop_front() {
                return Some(run(job).0);
            }
        }
        self.is_owners_turn = false;
        let ((begin, _), owner) = self.order.pop_first()?;
        self.clock = begin;
        let line = self.owners.get_mut(&owner)?;
        let (answer, took) = run(line.jobs.pop_front()?);
        line.end = begin + took;
        self.latest_end = self.latest_end.max(line.end);
        if !line.jobs.is_empty() {
            let end = line.end;
            self.get_in_line(owner, end);
        }
        if self.order.is_empty() {
            self.clock = self.latest_end;
        }
        if self.owners.len() >= FORGET_AT {
            self.owners.retain(|_, line| !line.jobs.is_empty() || line.end > self.clock);
        }
        Some(answer)
    }

    /// Removes and returns all jobs.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = J> {
        let Self { unowned, owners, .. } = std::mem::take(self);
        unowned.into_iter().chain(owners.into_values().flat_map(|line| line.jobs))
    }

    /// True if no job waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.unowned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Option<Arc<str>> {
        Some(Arc::from(name))
    }

    /// Runs all jobs; a job takes a tenth of its number in milliseconds.
    fn order(lines: &mut Lines<u64>) -> Vec<u64> {
        std::iter::from_fn(|| lines.run_next(|job| (job, Duration::from_millis(job / 10)))).collect()
    }

    #[test]
    fn owners_share_the_time_and_their_jobs_keep_their_order() {
        let mut lines = Lines::default();
        for job in [100, 101, 102] {
            lines.push(owner("expensive"), job);
        }
        for job in 30..39 {
            lines.push(owner("cheap"), job);
        }
        // Several cheap jobs run for each expensive one.
        assert_eq!(order(&mut lines), [100, 30, 31, 32, 33, 101, 34, 35, 36, 102, 37, 38]);
        // Of the owners that arrive while another job waits, the newcomer has used the least time.
        lines.push(owner("cheap"), 30);
        lines.push(owner("cheap"), 31);
        lines.run_next(|job| (job, Duration::from_millis(100)));
        lines.push(owner("expensive"), 100);
        lines.run_next(|job| (job, Duration::from_millis(100)));
        lines.push(owner("expensive"), 101);
        lines.push(owner("newcomer"), 10);
        assert_eq!(order(&mut lines), [10, 31, 101]);
        assert!(lines.is_empty());
    }

    #[test]
    fn jobs_without_an_owner_have_every_second_turn() {
        let mut lines = Lines::default();
        for number in 0..4 {
            lines.push(owner(&number.to_string()), number);
        }
        for job in [10, 11, 12] {
            lines.push(None, job);
        }
        assert_eq!(order(&mut lines), [10, 0, 11, 1, 12, 2, 3]);
        lines.push(None, 1);
        lines.push(None, 2);
        assert_eq!(order(&mut lines), [1, 2]);
    }

    #[test]
    fn idle_owners_are_forgotten_and_all_jobs_can_be_taken() {
        let mut lines = Lines::default();
        for number in 0..5 * FORGET_AT as u64 {
            lines.push(owner(&number.to_string()), number % 7 * 10);
            order(&mut lines);
        }
        assert!(lines.owners.len() <= FORGET_AT, "{}", lines.owners.len());
        lines.push(owner("one"), 1);
        lines.push(owner("one"), 2);
        lines.push(None, 3);
        assert_eq!(lines.drain().sum::<u64>(), 6);
        assert!(lines.is_empty());
    }
}
