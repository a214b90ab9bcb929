//! What an update has done to a document, as `updateDescription` of a change event tells it
//! (<https://www.mongodb.com/docs/manual/reference/change-events/update/>).

use std::collections::{HashMap, HashSet};

use bson::raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr};

use crate::{
    budget,
    document::{append, as_document, elements, items, with_stack},
};

/// Bytes of long prefixes that may be repeated in front of the paths. Beyond them values are told whole.
const MAX_REPEATED: usize = 16 * 1024 * 1024;

/// Prefixes up to this length, in bytes, may be repeated always.
const SHORT_PREFIX: usize = 32;

/// How one version of a document becomes the next: `{ updatedFields: { path: value, … }, removedFields: [path, …] }`.
///
/// Paths lead into documents, and into arrays that have not become shorter; anything else is told whole. So whoever
/// assigns the one and removes the other has the next version, but for the order of its fields. The work is linear in the
/// documents and charged to the entered budget, and is done even if that is exhausted.
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
    /// The bytes that the paths of all fields which were compared would repeat.
    repeated: usize,
}

impl Difference {
    /// Notes what differs; whether anything does.
    fn between(&mut self, prefix: &str, before: &RawDocument, after: &RawDocument) -> bool {
        let mut differs = false;
        let mut old_fields = elements(before);
        // Most updates leave the fields where they are, and then nothing has to be looked up.
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
    /// Notes that a prefix comes before all fields of two documents; false if such prefixes would take too many bytes.
    fn may_repeat(&mut self, prefix: &str, old: &RawDocument, new: &RawDocument) -> bool {
        if prefix.len() <= SHORT_PREFIX {
            return true;
        }
        let count = elements(old).count() + elements(new).count();
        self.repeated = self.repeated.saturating_add(prefix.len().saturating_mul(count));
        self.repeated <= MAX_REPEATED
    }
}

/// Whether a path through each of the fields has one meaning.
fn is_plain(document: &RawDocument) -> bool {
    elements(document).all(|(name, _)| !name.is_empty() && !name.contains('.'))
}

/// Whether two values are stored alike.
fn is_same(one: RawBsonRef<'_>, other: RawBsonRef<'_>) -> bool {
    match (one, other) {
        // By its bits: one that is not a number equals nothing.
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
    fn names_what_was_set_and_what_was_removed() {
        let before = rawdoc! { "_id": 1, "a": 1, "b": 2, "c": { "d": 1, "e": 2 } };
        let after = rawdoc! { "_id": 1, "a": 1_i64, "c": { "e": 3 }, "f": true };
        let (updated, removed) = told(before, after);
        assert_eq!(updated, rawdoc! { "a": 1_i64, "c.e": 3, "f": true });
        assert_eq!(removed, ["c.d", "b"]);
    }

    #[test]
    fn leads_into_arrays_that_have_not_become_shorter() {
        let (updated, removed) = told(
            rawdoc! { "a": [1, { "b": 1 }], "c": [1, 2, 3], "d": [] },
            rawdoc! { "a": [1, { "b": 2 }, 5], "c": [2, 3], "d": [[]] },
        );
        assert_eq!(updated, rawdoc! { "a.1.b": 2, "a.2": 5, "c": [2, 3], "d.0": [] });
        assert!(removed.is_empty());
    }

    #[test]
    fn tells_whole_what_no_path_leads_to() {
        let (updated, _) = told(rawdoc! { "a": { "b.c": 1 } }, rawdoc! { "a": { "b.c": 2 } });
        assert_eq!(updated, rawdoc! { "a": { "b.c": 2 } });
        // The order of the fields alone.
        let (updated, _) = told(rawdoc! { "a": { "b": 1, "c": 2 } }, rawdoc! { "a": { "c": 2, "b": 1 } });
        assert_eq!(updated, rawdoc! { "a": { "c": 2, "b": 1 } });
        let (updated, _) = told(rawdoc! { "a": f64::NAN, "b": 1 }, rawdoc! { "a": f64::NAN, "b": 1 });
        assert_eq!(updated, rawdoc! {});
    }

    #[test]
    fn takes_a_document_of_many_fields_in_any_order() {
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
        assert!(begun.elapsed().as_secs() < 10, "it must not compare each field with each");
    }
}
