//! Jobs that wait for the writer, in one line for each owner. Owners take turns, so that many writes of one user delay the
//! write of another by one of them, and not by all.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Lines of jobs.
pub(super) struct Lines<J> {
    by_owner: HashMap<Option<Arc<str>>, VecDeque<J>>,
    /// The owners with jobs, in the order of their turns.
    order: VecDeque<Option<Arc<str>>>,
}

impl<J> Default for Lines<J> {
    fn default() -> Self {
        Self { by_owner: HashMap::new(), order: VecDeque::new() }
    }
}

impl<J> Lines<J> {
    /// Puts a job at the end of its owner's line.
    pub(super) fn push(&mut self, owner: Option<Arc<str>>, job: J) {
        let line = self.by_owner.entry(owner.clone()).or_default();
        if line.is_empty() {
            self.order.push_back(owner);
        }
        line.push_back(job);
    }

    /// Takes the job whose turn it is.
    pub(super) fn pop(&mut self) -> Option<J> {
        let owner = self.order.pop_front()?;
        let line = self.by_owner.get_mut(&owner)?;
        let job = line.pop_front();
        if line.is_empty() {
            self.by_owner.remove(&owner);
        } else {
            self.order.push_back(owner);
        }
        job
    }

    /// True if no job waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_and_their_jobs_keep_their_order() {
        let mut lines = Lines::default();
        let (greedy, other) = (Some(Arc::from("greedy")), Some(Arc::from("other")));
        for job in 0..4 {
            lines.push(greedy.clone(), job);
        }
        lines.push(other, 10);
        lines.push(None, 20);
        let order: Vec<i32> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(order, [0, 10, 20, 1, 2, 3]);
        assert!(lines.is_empty() && lines.by_owner.is_empty());
    }
}
