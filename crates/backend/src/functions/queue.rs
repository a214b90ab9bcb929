//! The calls that wait for a thread. Users take turns, so the calls of one user delay those of
//! another by one call at most.

use std::collections::{HashMap, VecDeque};

use bson::oid::ObjectId;

use super::pool::CallId;

/// The user whose work a call is; `None` for the app's own work.
pub(super) type Payer = Option<ObjectId>;

/// The decision about the first waiting call of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It runs now.
    Take,
    /// It is not wanted any more.
    Drop,
    /// It waits, and so do the other calls of its user.
    Wait,
}

/// The waiting calls by user.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The users with waiting calls, the next one first.
    turns: VecDeque<Payer>,
    calls: HashMap<Payer, VecDeque<CallId>>,
    len: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of waiting calls of one user.
    pub(super) fn len_of(&self, payer: Payer) -> usize {
        self.calls.get(&payer).map_or(0, VecDeque::len)
    }

    /// Adds a call behind the others of its user.
    pub(super) fn push(&mut self, payer: Payer, call: CallId) {
        let calls = self.calls.entry(payer).or_default();
        if calls.is_empty() {
            self.turns.push_back(payer);
        }
        calls.push_back(call);
        self.len += 1;
    }

    /// Removes the next call that `choose` takes, after which its user is the last one to have a
    /// turn. `choose` sees the first call of each user.
    pub(super) fn take(&mut self, mut choose: impl FnMut(CallId) -> Choice) -> Option<CallId> {
        let mut turn = 0;
        while let Some(payer) = self.turns.get(turn).copied() {
            let calls = self.calls.entry(payer).or_default();
            let choice = calls.front().map_or(Choice::Wait, |call| choose(*call));
            if choice == Choice::Wait && !calls.is_empty() {
                turn += 1;
                continue;
            }
            let taken = calls.pop_front();
            self.len -= usize::from(taken.is_some());
            let is_last = calls.is_empty();
            if is_last {
                self.calls.remove(&payer);
            }
            if choice == Choice::Take || is_last {
                self.turns.remove(turn);
            }
            if choice == Choice::Take {
                if !is_last {
                    self.turns.push_back(payer);
                }
                return taken;
            }
        }
        None
    }

    /// Removes one call.
    pub(super) fn remove(&mut self, payer: Payer, call: CallId) {
        let Some(calls) = self.calls.get_mut(&payer) else { return };
        let before = calls.len();
        calls.retain(|waiting| *waiting != call);
        self.len -= before - calls.len();
        if calls.is_empty() {
            self.calls.remove(&payer);
            self.turns.retain(|waiting| *waiting != payer);
        }
    }

    /// Removes all calls.
    pub(super) fn drain(&mut self) -> Vec<CallId> {
        self.turns.clear();
        self.len = 0;
        std::mem::take(&mut self.calls).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u8) -> Payer {
        Some(ObjectId::from_bytes([number; 12]))
    }

    fn all(queue: &mut Queue) -> Vec<CallId> {
        std::iter::from_fn(|| queue.take(|_| Choice::Take)).collect()
    }

    #[test]
    fn users_take_turns() {
        let mut queue = Queue::default();
        for call in 0..4 {
            queue.push(user(1), call);
        }
        queue.push(user(2), 10);
        queue.push(None, 20);
        queue.push(user(2), 11);
        assert_eq!((queue.len(), queue.len_of(user(2))), (7, 2));
        assert_eq!(all(&mut queue), [0, 10, 20, 1, 11, 2, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_user_whose_call_waits_does_not_stop_others() {
        let mut queue = Queue::default();
        queue.push(user(1), 0);
        queue.push(user(1), 1);
        queue.push(user(2), 2);
        let large = |call| if call == 0 { Choice::Wait } else { Choice::Take };
        assert_eq!(queue.take(large), Some(2));
        assert_eq!(queue.take(large), None);
        assert_eq!(all(&mut queue), [0, 1]);
    }

    #[test]
    fn unwanted_and_removed_calls_leave_the_queue() {
        let mut queue = Queue::default();
        for call in 0..3 {
            queue.push(user(1), call);
        }
        queue.push(user(2), 3);
        queue.remove(user(2), 3);
        queue.remove(user(2), 3);
        let unwanted = |call| if call < 2 { Choice::Drop } else { Choice::Take };
        assert_eq!(queue.take(unwanted), Some(2));
        assert_eq!((queue.len(), queue.take(unwanted)), (0, None));
        queue.push(user(1), 4);
        queue.push(None, 5);
        let mut drained = queue.drain();
        drained.sort_unstable();
        assert_eq!(drained, [4, 5]);
        assert!(queue.is_empty() && queue.take(|_| Choice::Take).is_none());
    }
}
