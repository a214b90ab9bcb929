//! Blocking stages: they collect their input and reserve its bytes in the budget.

use bson::raw::RawDocumentBuf;

use super::Documents;
use crate::{
    Budget, Result, Sort,
    budget::{self, Held},
    sort::SortKey,
    sorting,
};

/// Memory of a collected document in bytes, in addition to the document and its sort key.
const OVERHEAD: usize = 96;

/// Documents with their sort keys.
type Keyed = Vec<(SortKey, RawDocumentBuf)>;

/// The output of a blocking stage, with the memory reservation for it.
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

/// Sorts documents. Returns only the first `most` if that is given.
pub(super) fn sorted<'a>(
    sort: &Sort,
    documents: Documents<'a>,
    most: Option<usize>,
    budget: &Budget,
) -> Result<impl Iterator<Item = Result<RawDocumentBuf>> + use<'a>> {
    let mut held = budget.hold(0)?;
    let mut keyed: Keyed = Vec::new();
    let mut pending = Vec::new();
    // Sorts batches of twice the wanted number, so that each document is sorted only a few times.
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

/// Adds documents with their keys. Keys that are made together lie side by side in memory.
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

/// Sorts and keeps the first `most` documents; returns them with their memory reservation.
fn first(keyed: Keyed, most: Option<usize>, held: Held, budget: &Budget) -> Result<(Keyed, Held)> {
    let mut keyed = sorting::sorted(keyed, |(one, _), (other, _)| one.cmp(other))?;
    let Some(most) = most.filter(|most| *most < keyed.len()) else { return Ok((keyed, held)) };
    keyed.truncate(most);
    drop(held);
    let held = budget.hold(keyed.iter().map(|(key, document)| size(key, document)).sum())?;
    Ok((keyed, held))
}
