//! The results of a read, within their limits and in their order.

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Sort, SortKey, budget::Held};

use crate::{Error, Result};

/// The documents of a result, limited in number and in bytes.
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
    /// If the result exceeds its limit of documents or of bytes.
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

/// Checks the number of documents of a result.
///
/// # Errors
/// [`Error::TooManyDocuments`] if it exceeds the limit.
pub(crate) fn check_count(count: usize, most: Option<usize>) -> Result<()> {
    match most {
        Some(limit) if count > limit => Err(Error::TooManyDocuments { limit }),
        _ => Ok(()),
    }
}

/// Sorts documents and keeps the first `limit` of them. Documents that cannot be among those are
/// dropped early, and the budget is charged for the memory of the others.
pub(crate) struct Sorter<'s> {
    sort: &'s Sort,
    limit: usize,
    /// Each entry has its sequence number, so that equal documents keep their order.
    entries: Vec<(SortKey, usize, RawDocumentBuf)>,
    count: usize,
    held: Held,
}

impl<'s> Sorter<'s> {
    pub(crate) fn new(sort: &'s Sort, limit: usize) -> Result<Self> {
        Ok(Self { sort, limit, entries: Vec::new(), count: 0, held: query::budget::hold(0)? })
    }

    /// Returns the number of documents in the result.
    pub(crate) fn len(&self) -> usize {
        self.count.min(self.limit)
    }

    /// Adds a document.
    ///
    /// # Errors
    /// If the budget does not allow the memory for it.
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

    /// Returns the documents in their order.
    pub(crate) fn finish(mut self) -> impl Iterator<Item = RawDocumentBuf> {
        self.sort_entries();
        self.entries.truncate(self.limit);
        self.entries.into_iter().map(|(_, _, document)| document)
    }
}

fn size(key: &SortKey, document: &RawDocument) -> usize {
    key.len() + document.as_bytes().len() + size_of::<(SortKey, usize, RawDocumentBuf)>()
}
