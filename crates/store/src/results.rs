//! What a read gathers: an answer within its limits, and documents in an order.

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Sort, SortKey, budget::Held};

use crate::{Error, Result};

/// The documents of an answer, which may be limited in number and in bytes.
pub(crate) struct Results {
    pub(crate) documents: Vec<RawDocumentBuf>,
    bytes: usize,
    most: Option<usize>,
    most_bytes: Option<usize>,
}

impl Results {
    pub(crate) fn new(most: Option<usize>, most_bytes: Option<usize>) -> Self {
        Self { documents: Vec::new(), bytes: 0, most, most_bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.documents.len()
    }

    /// Adds a document.
    ///
    /// # Errors
    /// If the answer would have more documents, or more bytes, than it may.
    pub(crate) fn push(&mut self, document: RawDocumentBuf) -> Result<()> {
        self.bytes += document.as_bytes().len();
        self.documents.push(document);
        check_count(self.documents.len(), self.most)?;
        match self.most_bytes {
            Some(limit) if self.bytes > limit => Err(Error::AnswerTooLarge { limit }),
            _ => Ok(()),
        }
    }
}

/// Checks the number of documents of an answer.
///
/// # Errors
/// [`Error::TooManyDocuments`] if it is above the limit.
pub(crate) fn check_count(count: usize, most: Option<usize>) -> Result<()> {
    match most {
        Some(limit) if count > limit => Err(Error::TooManyDocuments { limit }),
        _ => Ok(()),
    }
}

/// Sorts documents, of which only the first so many are wanted. Those that cannot be among them are dropped on the way;
/// what is kept is held in the budget.
pub(crate) struct Sorter<'s> {
    sort: &'s Sort,
    limit: usize,
    /// With the number of each, so that equal ones keep their order.
    entries: Vec<(SortKey, usize, RawDocumentBuf)>,
    count: usize,
    held: Held,
}

impl<'s> Sorter<'s> {
    pub(crate) fn new(sort: &'s Sort, limit: usize) -> Result<Self> {
        Ok(Self { sort, limit, entries: Vec::new(), count: 0, held: query::budget::hold(0)? })
    }

    /// How many documents will come out.
    pub(crate) fn len(&self) -> usize {
        self.count.min(self.limit)
    }

    /// Adds a document.
    ///
    /// # Errors
    /// If the budget does not allow to hold it.
    pub(crate) fn add(&mut self, document: &RawDocument) -> Result<()> {
        let key = self.sort.key(document);
        self.held.grow(size(&key, document))?;
        self.entries.push((key, self.count, document.to_owned()));
        self.count += 1;
        if self.entries.len() >= self.limit.saturating_mul(2).max(64) {
            self.keep_first()?;
        }
        Ok(())
    }

    fn keep_first(&mut self) -> Result<()> {
        self.sort_entries();
        self.entries.truncate(self.limit);
        let bytes = self.entries.iter().map(|(key, _, document)| size(key, document)).sum();
        self.held = query::budget::hold(0)?;
        Ok(self.held.grow(bytes)?)
    }

    fn sort_entries(&mut self) {
        self.entries.sort_unstable_by(|(one, first, _), (other, second, _)| (one, first).cmp(&(other, second)));
    }

    /// The documents in their order.
    pub(crate) fn finish(mut self) -> impl Iterator<Item = RawDocumentBuf> {
        self.sort_entries();
        self.entries.truncate(self.limit);
        self.entries.into_iter().map(|(_, _, document)| document)
    }
}

fn size(key: &SortKey, document: &RawDocument) -> usize {
    key.len() + document.as_bytes().len() + size_of::<(SortKey, usize, RawDocumentBuf)>()
}
