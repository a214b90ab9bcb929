//! The difference between two versions of a document, in the form of a change event's
//! `updateDescription` (<https://www.mongodb.com/docs/manual/reference/change-events/update/>).

use std::collections::{HashMap, HashSet};

use bson::raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr};

use crate::{
    budget,
    document::{append, as_document, elements, items, with_stack},
};

/// Maximum total of repeated path prefixes, in bytes. Beyond it, values are reported whole.
const MAX_REPEATED: usize = 16 * 1024 * 1024;

/// Prefixes up to this length, in bytes, do not count.
const SHORT_PREFIX: usize = 32;

/// Returns the difference between two versions of a document:
/// `{ updatedFields: { path: value, … }, removedFields: [path, …] }`.
///
/// Paths lead into documents, and into arrays that have not become shorter; all other changed
/// values are reported whole. So setting the updated fields and removing the removed ones turns
/// `before` into `after`, except for the order of its fields.
///
/// The work is linear in the size of the documents. It is charged to the entered budget, but
/// completes even if the budget is exhausted.
///
/// ```
/// use bson::rawdoc;
///
/// let before = rawdoc! { "a": 1, "b": { "c": 1 } };
/// let after = rawdoc! { "a": 1, "b": { "c": 2, "d": 3 } };
/// let expected = rawdoc! { "updatedFields": { "b.c": 2, "b.d": 3 }, "removedFields": [] };
/// assert_eq!(query::difference(&before, &after), expected);
/// ```
pub fn difference(before: &RawDocument, after: &RawDocument) -> RawDocumentBuf {
    let mut difference = Difference { updated: RawDocumentBuf::new(), removed: RawArrayBuf::new(), repeated: 0 };
    difference.between("", before, after);
    let mut description = RawDocumentBuf::new();
    description.append(cstr!("updatedFields"), difference.updated);
    description.append(cstr!("removedFields"), difference.removed);
    description
}

struct Difference {
    updated: RawDocumentBuf,
    removed: RawArrayBuf,
    /// Total bytes of the prefixes that would be repeated for all compared fields.
    repeated: usize,
}

impl Difference {
    /// Collects the differences below a prefix. Returns true if there are any.
    fn between(&mut self, prefix: &str, before: &RawDocument, after: &RawDocument) -> bool {
        let mut differs = false;
        let mut old_fields = elements(before);
        // Most updates keep the order of the fields, and then need no lookup by name.
        let mut by_name: Option<HashMap<&str, RawBsonRef<'_>>> = None;
        for (name, new) in elements(after) {
            let old = match (&by_name, old_fields.next()) {
                (None, Some((old_name, old))) if old_name == name => Some(old),
                _ => by_name.get_or_insert_with(|| elements(before).collect()).get(name).copied(),
            };
            differs |= self.of_value(prefix, name, old, new);
        }
        if by_name.is_none() && old_fields.next().is_none() {
            return differs;
        }
        let names: HashSet<&str> = elements(after).map(|(name, _)| name).collect();
        for (name, _) in elements(before).filter(|(name, _)| !names.contains(name)) {
            self.removed.push(format!("{prefix}{name}"));
            differs = true;
        }
        differs
    }

    fn of_value(&mut self, prefix: &str, name: &str, old: Option<RawBsonRef<'_>>, new: RawBsonRef<'_>) -> bool {
        budget::spend(1);
        if old.is_some_and(|old| is_same(old, new)) {
            return false;
        }
        let path = format!("{prefix}{name}");
        let inner = format!("{path}.");
        let told_inside = with_stack(|| match (old, new) {
            (Some(RawBsonRef::Document(old)), RawBsonRef::Document(new))
                if is_plain(old) && is_plain(new) && self.may_repeat(&inner, old, new) =>
            {
                self.between(&inner, old, new)
            }
            (Some(RawBsonRef::Array(old)), RawBsonRef::Array(new))
                if items(old).count() <= items(new).count()
                    && self.may_repeat(&inner, as_document(old), as_document(new)) =>
            {
                self.between(&inner, as_document(old), as_document(new))
            }
            _ => false,
        });
        if !told_inside {
            append(&mut self.updated, &path, new);
        }
        true
    }
}

impl Difference {
    /// Adds the cost of repeating a prefix for all fields of two documents. Returns false if the
    /// total exceeds the limit.
    fn may_repeat(&mut self, prefix: &str, old: &RawDocument, new: &RawDocument) -> bool {
        if prefix.len() <= SHORT_PREFIX {
            return true;
        }
        let count = elements(old).count() + elements(new).count();
        self.repeated = self.repeated.saturating_add(prefix.len().saturating_mul(count));
        self.repeated <= MAX_REPEATED
    }
}

/// True if a path through each of the fields is unambiguous.
fn is_plain(document: &RawDocument) -> bool {
    elements(document).all(|(name, _)| !name.is_empty() && !name.contains('.'))
}

/// True if two values have the same stored form.
fn is_same(one: RawBsonRef<'_>, other: RawBsonRef<'_>) -> bool {
    match (one, other) {
        // By its bits: NaN equals nothing.
        (RawBsonRef::Double(one), RawBsonRef::Double(other)) => one.to_bits() == other.to_bits(),
        (RawBsonRef::Document(one), RawBsonRef::Document(other)) => one.as_bytes() == other.as_bytes(),
        (RawBsonRef::Array(one), RawBsonRef::Array(other)) => one.as_bytes() == other.as_bytes(),
        (one, other) => one == other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn told(before: RawDocumentBuf, after: RawDocumentBuf) -> (RawDocumentBuf, Vec<String>) {
        let description = difference(&before, &after);
        let removed = description.get_array("removedFields").unwrap();
        let removed = removed.into_iter().map(|path| path.unwrap().as_str().unwrap().to_owned()).collect();
        (description.get_document("updatedFields").unwrap().to_owned(), removed)
    }

    #[test]
    fn reports_updated_and_removed_fields() {
        let before = rawdoc! { "_id": 1, "a": 1, "b": 2, "c": { "d": 1, "e": 2 } };
        let after = rawdoc! { "_id": 1, "a": 1_i64, "c": { "e": 3 }, "f": true };
        let (updated, removed) = told(before, after);
        assert_eq!(updated, rawdoc! { "a": 1_i64, "c.e": 3, "f": true });
        assert_eq!(removed, ["c.d", "b"]);
    }

    #[test]
    fn reports_paths_into_arrays_that_have_not_become_shorter() {
        let (updated, removed) = told(
            rawdoc! { "a": [1, { "b": 1 }], "c": [1, 2, 3], "d": [] },
            rawdoc! { "a": [1, { "b": 2 }, 5], "c": [2, 3], "d": [[]] },
        );
        assert_eq!(updated, rawdoc! { "a.1.b": 2, "a.2": 5, "c": [2, 3], "d.0": [] });
        assert!(removed.is_empty());
    }

    #[test]
    fn reports_values_whole_if_no_path_is_unambiguous() {
        let (updated, _) = told(rawdoc! { "a": { "b.c": 1 } }, rawdoc! { "a": { "b.c": 2 } });
        assert_eq!(updated, rawdoc! { "a": { "b.c": 2 } });
        // Only the order of the fields changes.
        let (updated, _) = told(rawdoc! { "a": { "b": 1, "c": 2 } }, rawdoc! { "a": { "c": 2, "b": 1 } });
        assert_eq!(updated, rawdoc! { "a": { "c": 2, "b": 1 } });
        let (updated, _) = told(rawdoc! { "a": f64::NAN, "b": 1 }, rawdoc! { "a": f64::NAN, "b": 1 });
        assert_eq!(updated, rawdoc! {});
    }

    #[test]
    fn compares_many_fields_in_any_order_in_linear_time() {
        let wide = |reversed: bool| {
            let mut document = RawDocumentBuf::new();
            for number in 0..50_000 {
                let number = if reversed { 49_999 - number } else { number };
                append(&mut document, &format!("f{number}"), number);
            }
            document
        };
        let begun = std::time::Instant::now();
        let (updated, removed) = told(wide(false), wide(true));
        assert!(updated.is_empty() && removed.is_empty());
        assert!(begun.elapsed().as_secs() < 10, "the work must be linear in the number of fields");
    }
}
