//! Stages that collect their input, whose bytes the budget holds.

use bson::raw::RawDocumentBuf;

use super::Documents;
use crate::{
    Budget, Result, Sort,
    budget::{self, Held},
    sort::SortKey,
    sorting,
};

/// Memory of a document beside its bytes and those of its key.
const OVERHEAD: usize = 96;

/// Documents and what they sort by.
type Keyed = Vec<(SortKey, RawDocumentBuf)>;

/// Answers of a stage with the bytes that they hold.
pub(super) struct Collected<I> {
    answers: I,
    _held: Held,
}

impl<I> Collected<I> {
    pub(super) fn new(answers: I, held: Held) -> Self {
        Self { answers, _held: held }
    }
}

impl<I: Iterator> Iterator for Collected<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.answers.next()
    }
}

/// Sorts documents, or as many of the first as are wanted.
pub(super) fn sorted<'a>(
    sort: &Sort,
    documents: Documents<'a>,
    most: Option<usize>,
    budget: &Budget,
) -> Result<impl Iterator<Item = Result<RawDocumentBuf>> + use<'a>> {
    let mut held = budget.hold(0)?;
    let mut keyed: Keyed = Vec::new();
    let mut pending = Vec::new();
    // Twice as many as are wanted are sorted at once, so that each is sorted a few times at most.
    let full = most.and_then(|most| most.checked_mul(2)).map(|full| full.max(64));
    for document in documents {
        let document = document?;
        held.grow(document.as_bytes().len() + OVERHEAD)?;
        pending.push(document);
        if Some(keyed.len() + pending.len()) == full {
            add(&mut keyed, &mut pending, sort, &mut held)?;
            (keyed, held) = first(keyed, most, held, budget)?;
        }
    }
    add(&mut keyed, &mut pending, sort, &mut held)?;
    (keyed, held) = first(keyed, most, held, budget)?;
    Ok(Collected::new(keyed.into_iter().map(|(_, document)| Ok(document)), held))
}

/// Adds documents with their keys, which lie side by side in memory when they are made together.
fn add(keyed: &mut Keyed, pending: &mut Vec<RawDocumentBuf>, sort: &Sort, held: &mut Held) -> Result<()> {
    keyed.reserve(pending.len());
    for document in pending.drain(..) {
        let key = sort.key(&document);
        budget::charge(1)?;
        held.grow(key.len())?;
        keyed.push((key, document));
    }
    Ok(())
}

fn size(key: &SortKey, document: &RawDocumentBuf) -> usize {
    key.len() + document.as_bytes().len() + OVERHEAD
}

/// The first documents in their order, and what they hold.
fn first(keyed: Keyed, most: Option<usize>, held: Held, budget: &Budget) -> Result<(Keyed, Held)> {
    let mut keyed = sorting::sorted(keyed, |(one, _), (other, _)| one.cmp(other))?;
    let Some(most) = most.filter(|most| *most < keyed.len()) else { return Ok((keyed, held)) };
    keyed.truncate(most);
    drop(held);
    let held = budget.hold(keyed.iter().map(|(key, document)| size(key, document)).sum())?;
    Ok((keyed, held))
}
