//! A stable sort that charges the budget and stops when it is exhausted.

use std::cmp::Ordering;

use crate::{Result, budget};

/// Number of items that are sorted at once, without a check of the budget: about 10 ms of work.
const RUN: usize = 32_768;

/// Sorts items stably. The order must not depend on the budget; that of keys does not.
///
/// # Errors
/// Fails if the budget is exhausted.
pub(crate) fn sorted<T>(mut items: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> Result<Vec<T>> {
    if items.len() <= RUN {
        budget::charge(cost(items.len()))?;
        items.sort_by(order);
        return Ok(items);
    }
    let mut runs = Vec::new();
    let mut items = items.into_iter();
    loop {
        let mut run: Vec<T> = items.by_ref().take(RUN).collect();
        if run.is_empty() {
            break;
        }
        budget::charge(cost(run.len()))?;
        run.sort_by(&order);
        runs.push(run);
    }
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pairs = runs.into_iter();
        while let Some(first) = pairs.next() {
            merged.push(match pairs.next() {
                Some(second) => merge(first, second, &order)?,
                None => first,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default())
}

/// Approximate number of comparisons to sort `count` items.
fn cost(count: usize) -> u64 {
    count as u64 * u64::from(count.checked_ilog2().unwrap_or(0))
}

fn merge<T>(first: Vec<T>, second: Vec<T>, order: &impl Fn(&T, &T) -> Ordering) -> Result<Vec<T>> {
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let (mut one, mut other) = (first.next(), second.next());
    while let (Some(left), Some(right)) = (&one, &other) {
        budget::charge(1)?;
        let next = match order(left, right).is_le() {
            true => std::mem::replace(&mut one, first.next()),
            false => std::mem::replace(&mut other, second.next()),
        };
        merged.extend(next);
    }
    merged.extend(one.into_iter().chain(first));
    merged.extend(other.into_iter().chain(second));
    Ok(merged)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sorts_and_keeps_the_order_of_equal_items() {
        for count in [0, 1, 100, 32_768, 32_769, 200_000] {
            let items: Vec<(usize, usize)> = (0..count).map(|place| (place * 7919 % 101, place)).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|(key, _)| *key);
            assert_eq!(sorted(items, |one, other| one.0.cmp(&other.0)).unwrap(), expected);
        }
    }
}
