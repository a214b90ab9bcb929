//! Indexes: the keys under which an index stores a document, and the key ranges that can contain
//! the matches of a filter (<https://www.mongodb.com/docs/manual/indexes/>).

use bson::{
    RawBson,
    raw::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Filter, Path, Predicate, Result, Sort,
    budget::{self, Held},
    compare::type_class,
    document::{array_index, elements, get, items},
    key::{encode, encode_into, turn},
};

/// Maximum number of fields in an index, as in the server.
const MAX_FIELDS: usize = 32;

/// Maximum number of ranges in [`Bounds`]. A further field that would exceed it is ignored.
const MAX_RANGES: usize = 256;

/// The key pattern of an index, such as `{ a: 1, b: -1 }`: its fields and their directions, in
/// order.
///
/// ```
/// use bson::rawdoc;
/// use query::{Filter, KeyPattern};
///
/// let index = KeyPattern::parse(&rawdoc! { "a": 1, "b": -1 }).unwrap();
/// assert_eq!(index.name(), "a_1_b_-1");
/// assert_eq!(index.keys(&rawdoc! { "a": [1, 2], "b": 3 }).unwrap().keys.len(), 2);
///
/// let filter = Filter::parse(&rawdoc! { "a": 1, "b": { "$gt": 2 } }).unwrap();
/// let bounds = index.bounds(&filter, false).unwrap();
/// assert_eq!((bounds.equalities, bounds.bounded), (1, 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern(Vec<(Path, bool)>);

/// The keys under which an index stores a document.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexKeys {
    /// The distinct keys in ascending order.
    pub keys: Vec<IndexKey>,
    /// True if a field of the index leads through an array of the document or ends in one.
    pub is_multikey: bool,
}

/// One key of an index: the encoded values of all its fields.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexKey {
    /// The encoded key. Keys of one index order bytewise, descending fields included.
    pub bytes: Vec<u8>,
    /// True if the document has at least one of the index's fields. A sparse index omits other
    /// keys.
    pub has_field: bool,
}

/// A range of keys: from the first key (inclusive) to the second (exclusive).
pub type KeyRange = (Vec<u8>, Vec<u8>);

/// The key ranges of an index that contain all matches of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The ranges in ascending order, without overlaps.
    pub ranges: Vec<KeyRange>,
    /// The number of leading fields that have a single value each.
    pub equalities: usize,
    /// The number of leading fields that the filter bounds at all.
    pub bounded: usize,
}

/// The state of the search for a field's value.
#[derive(Clone, Copy)]
enum Reached<'a> {
    /// Found; `None` if the document has no such field.
    Value(Option<RawBsonRef<'a>>),
    /// In this value or below it, along the rest of the path.
    Within(RawBsonRef<'a>, &'a [String]),
    /// At an array, whose items are visited one by one.
    At(&'a RawArray, &'a [String]),
}

impl KeyPattern {
    /// Parses `{ path: 1 | -1, … }`. As in the server, any non-zero number is a direction.
    ///
    /// # Errors
    /// `CannotCreateIndex` (67) if the pattern is malformed; `CommandNotSupported` (115) with the
    /// kind of an index that Userkeep does not support (text, geo, hashed, wildcard); 13103 for
    /// more than 32 fields.
    pub fn parse(pattern: &RawDocument) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorCode::CannotCreateIndex, message);
        let mut fields: Vec<(Path, bool)> = Vec::new();
        for (name, value) in elements(pattern) {
            if let RawBsonRef::String(kind) = value {
                return Err(match kind {
                    "text" | "2d" | "2dsphere" | "hashed" | "geoHaystack" => {
                        Error::unsupported(format_args!("an index of the kind {kind}"))
                    }
                    _ => wrong(format!("Unknown index plugin '{kind}'")),
                });
            }
            if name == "$**" || name.ends_with(".$**") {
                return Err(Error::unsupported("a wildcard index"));
            }
            let direction = crate::Number::of(value)
                .map(crate::Number::to_f64)
                .filter(|direction| *direction != 0.0 && !direction.is_nan())
                .ok_or_else(|| wrong(format!("Values in the index key pattern must be 1 or -1, at '{name}'")))?;
            let path = Path::new(name);
            if path.parts().iter().any(std::string::String::is_empty) {
                return Err(wrong(format!("Index keys cannot contain an empty field: '{name}'")));
            }
            if path.parts().iter().any(|part| part.starts_with('$')) {
                return Err(wrong(format!(
                    "Index key contains an illegal field name: field name starts with '$': '{name}'"
                )));
            }
            // A pattern with more fields is rejected below in any case.
            if fields.iter().take(MAX_FIELDS).any(|(other, _)| *other == path) {
                return Err(wrong(format!("the index key pattern names '{name}' twice")));
            }
            fields.push((path, direction < 0.0));
        }
        match fields.len() {
            0 => Err(wrong("Index keys cannot be an empty object".into())),
            count if count > MAX_FIELDS => {
                Err(Error::location(13103, format!("too many compound keys: {count}, and {MAX_FIELDS} are allowed")))
            }
            _ => Ok(Self(fields)),
        }
    }

    /// Creates the pattern of an ascending index on one field.
    pub fn of(path: Path) -> Self {
        Self(vec![(path, false)])
    }

    /// Returns the fields in order; the flag is true for a descending field.
    pub fn fields(&self) -> &[(Path, bool)] {
        &self.0
    }

    /// Returns the pattern as a document, with 1 and -1 as directions.
    pub fn to_document(&self) -> RawDocumentBuf {
        let mut pattern = RawDocumentBuf::new();
        for (path, descending) in &self.0 {
            crate::append(&mut pattern, path.as_str(), if *descending { -1 } else { 1 });
        }
        pattern
    }

    /// Returns MongoDB's default name of the index: `a_1_b_-1`.
    pub fn name(&self) -> String {
        let part =
            |(path, descending): &(Path, bool)| format!("{}_{}", path.as_str(), if *descending { -1 } else { 1 });
        self.0.iter().map(part).collect::<Vec<_>>().join("_")
    }

    /// Returns the keys under which the index stores a document: one for each item of the array
    /// that its fields lead to or through.
    ///
    /// A missing field has the key of null, and an empty array that of undefined.
    ///
    /// # Errors
    /// `CannotIndexParallelArrays` (171) if the fields lead through several arrays; 50 or 292 if
    /// the keys exceed the time or the memory of the entered budget.
    pub fn keys(&self, document: &RawDocument) -> Result<IndexKeys> {
        let reached: Vec<Reached<'_>> =
            self.0.iter().map(|(path, _)| Reached::Within(RawBsonRef::Document(document), path.parts())).collect();
        let mut found = IndexKeys { keys: Vec::with_capacity(1), is_multikey: false };
        self.collect(reached, &mut found, &mut KeyBytes::default())?;
        found.keys.sort_unstable();
        // One item may have null in the place of another one's missing field.
        found.keys.dedup_by(|next, kept| {
            let same = next.bytes == kept.bytes;
            kept.has_field |= same && next.has_field;
            same
        });
        Ok(found)
    }

    fn collect(&self, mut reached: Vec<Reached<'_>>, found: &mut IndexKeys, bytes: &mut KeyBytes) -> Result<()> {
        budget::charge(1)?;
        let mut array: Option<&RawArray> = None;
        for (place, one) in reached.iter_mut().enumerate() {
            *one = one.advanced();
            if let Reached::At(at, _) = one {
                match array {
                    Some(other) if !std::ptr::eq(other.as_bytes(), at.as_bytes()) => {
                        return Err(Error::new(
                            ErrorCode::CannotIndexParallelArrays,
                            format!("cannot index parallel arrays, at '{}'", self.0[place].0.as_str()),
                        ));
                    }
                    _ => array = Some(at),
                }
            }
        }
        let Some(array) = array else {
            let key = self.key_of(&reached);
            bytes.add(key.bytes.len())?;
            found.keys.push(key);
            return Ok(());
        };
        found.is_multikey = true;
        if array.is_empty() {
            let empty = reached.iter().map(|one| match one {
                Reached::At(_, []) => Reached::Value(Some(RawBsonRef::Undefined)),
                Reached::At(..) => Reached::Value(None),
                other => *other,
            });
            return self.collect(empty.collect(), found, bytes);
        }
        for item in items(array) {
            let below = reached.iter().map(|one| match one {
                Reached::At(_, []) => Reached::Value(Some(item)),
                Reached::At(_, rest) if matches!(item, RawBsonRef::Document(_)) => Reached::Within(item, rest),
                Reached::At(..) => Reached::Value(None),
                other => *other,
            });
            self.collect(below.collect(), found, bytes)?;
        }
        Ok(())
    }

    fn key_of(&self, reached: &[Reached<'_>]) -> IndexKey {
        let mut bytes = Vec::with_capacity(16 * reached.len());
        let mut has_field = false;
        for (one, (_, descending)) in reached.iter().zip(&self.0) {
            let value = if let Reached::Value(value) = one { *value } else { None };
            has_field |= value.is_some();
            let start = bytes.len();
            encode_into(&mut bytes, value.unwrap_or(RawBsonRef::Null));
            turn(&mut bytes[start..], *descending);
        }
        IndexKey { bytes, has_field }
    }

    /// Returns the key ranges that contain all matches of a filter.
    ///
    /// `is_multikey` tells if the index may store a document under several keys: then two
    /// conditions may hold for different keys of it. Returns `None` if the filter does not bound
    /// the first field, or if the budget is exhausted.
    pub fn bounds(&self, filter: &Filter, is_multikey: bool) -> Option<Bounds> {
        let (conditions, _) = filter.conditions();
        let mut bounds = Bounds { ranges: vec![(Vec::new(), Vec::new())], equalities: 0, bounded: 0 };
        for (place, (path, descending)) in self.0.iter().enumerate() {
            // Each key holds the fields of one array item, but conditions may hold for different
            // items.
            let shares_array = || self.0[..place].iter().any(|(other, _)| other.parts()[0] == path.parts()[0]);
            // For the filter, a number in a path may also be a field name; for the index it is
            // not.
            if path.parts().iter().any(|part| array_index(part).is_some()) || (is_multikey && shares_array()) {
                break;
            }
            let on_path = conditions.iter().filter(|condition| budget::spend(1) && condition.path == *path);
            let Some(intervals) = intervals(on_path.map(|condition| &condition.predicate), is_multikey) else { break };
            if place > 0 && intervals.len() * bounds.ranges.len() > MAX_RANGES {
                break;
            }
            let mut ranges = Vec::with_capacity(intervals.len() * bounds.ranges.len());
            for (prefix, _) in &bounds.ranges {
                ranges.extend(intervals.iter().map(|interval| interval.range(prefix, *descending)));
            }
            ranges.sort_unstable();
            bounds.ranges = ranges;
            bounds.bounded += 1;
            if !intervals.iter().all(Interval::is_point) {
                break;
            }
            if bounds.equalities == place && intervals.len() == 1 {
                bounds.equalities += 1;
            }
        }
        (bounds.bounded > 0 && budget::spend(bounds.ranges.len() as u64)).then_some(bounds)
    }

    /// Returns true if the keys have the order of a sort when they are read backwards, and false
    /// if they have it when read forwards. `None` if they are not in that order. `equalities` is
    /// the number of leading fields with a single value, from [`Bounds::equalities`].
    pub fn sorts(&self, sort: &Sort, equalities: usize) -> Option<bool> {
        let rest = &self.0[equalities.min(self.0.len())..];
        // A field with one value does not affect the order. Further fields of the key would order
        // documents that the sort considers equal.
        let constant = |path: &Path| self.0[..equalities].iter().any(|(other, _)| other == path);
        let wanted: Vec<_> = sort.fields().iter().filter(|(path, _)| !constant(path)).collect();
        if wanted.len() != rest.len()
            || rest.is_empty()
            || !wanted.iter().zip(rest).all(|(one, other)| one.0 == other.0)
        {
            return None;
        }
        let backwards = wanted[0].1 != rest[0].1;
        wanted.iter().zip(rest).all(|(one, other)| (one.1 != other.1) == backwards).then_some(backwards)
    }
}

impl Reached<'_> {
    /// Follows the path until it ends or meets an array.
    fn advanced(self) -> Self {
        let Self::Within(mut value, mut rest) = self else { return self };
        loop {
            match (value, rest.split_first()) {
                (RawBsonRef::Array(array), Some((next, beyond))) => {
                    match array_index(next).and_then(|index| items(array).nth(index)) {
                        Some(item) => (value, rest) = (item, beyond),
                        None => return Self::At(array, rest),
                    }
                }
                (RawBsonRef::Array(array), None) => return Self::At(array, rest),
                (value, None) => return Self::Value(Some(value)),
                (RawBsonRef::Document(document), Some((next, beyond))) => match get(document, next) {
                    Some(inner) => (value, rest) = (inner, beyond),
                    None => return Self::Value(None),
                },
                (_, Some(_)) => return Self::Value(None),
            }
        }
    }
}

/// Bytes of keys from which on they are reserved in the budget.
const MANY_BYTES: usize = 64 * 1024;

/// Counts the bytes of a document's keys, each of which repeats the index's other fields.
#[derive(Default)]
struct KeyBytes {
    total: usize,
    held: Option<Held>,
}

impl KeyBytes {
    fn add(&mut self, bytes: usize) -> Result<()> {
        budget::charge_bytes(bytes)?;
        self.total += bytes;
        match &mut self.held {
            Some(held) => held.grow(bytes)?,
            None if self.total > MANY_BYTES => self.held = Some(budget::hold(self.total)?),
            None => {}
        }
        Ok(())
    }
}

/// A bound within a field's values: before or after all keys with this prefix.
#[derive(Debug, Clone)]
struct Bound {
    key: Vec<u8>,
    behind: bool,
}

impl Bound {
    /// Returns the first key that is not below the bound, after a prefix.
    fn place(&self, prefix: &[u8], descending: bool) -> Vec<u8> {
        let mut key = prefix.to_vec();
        key.extend(&self.key);
        turn(&mut key[prefix.len()..], descending);
        // In descending order, after becomes before.
        if self.behind == descending { key } else { successor(&key) }
    }
}

/// An interval of one field's values.
#[derive(Debug, Clone)]
struct Interval {
    from: Bound,
    to: Bound,
}

impl Interval {
    fn new(from: (Vec<u8>, bool), to: (Vec<u8>, bool)) -> Self {
        Self { from: Bound { key: from.0, behind: from.1 }, to: Bound { key: to.0, behind: to.1 } }
    }

    fn point(value: RawBsonRef<'_>) -> Self {
        let key = encode(value);
        Self::new((key.clone(), false), (key, true))
    }

    fn is_point(&self) -> bool {
        self.from.key == self.to.key
    }

    /// Returns the intersection with another interval.
    fn and(&self, other: &Self) -> Option<Self> {
        let place = |bound: &Bound| bound.place(&[], false);
        let from = if place(&self.from) < place(&other.from) { &other.from } else { &self.from };
        let to = if place(&self.to) < place(&other.to) { &self.to } else { &other.to };
        (place(from) < place(to)).then(|| Self { from: from.clone(), to: to.clone() })
    }

    /// Returns the keys of the interval after a prefix.
    fn range(&self, prefix: &[u8], descending: bool) -> KeyRange {
        let (from, to) = (self.from.place(prefix, descending), self.to.place(prefix, descending));
        if descending { (to, from) } else { (from, to) }
    }
}

/// Returns the least key that is greater than all keys with this prefix.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    while let Some(last) = next.pop() {
        if last < 0xff {
            next.push(last + 1);
            return next;
        }
    }
    // No key starts with this many 0xff bytes.
    vec![0xff; key.len() + 1]
}

/// Returns the values that the conditions on one field allow, or `None` if they allow all.
fn intervals<'f>(predicates: impl Iterator<Item = &'f Predicate>, is_multikey: bool) -> Option<Vec<Interval>> {
    let mut all: Vec<Vec<Interval>> = predicates.filter_map(intervals_of).collect();
    if is_multikey {
        // Each condition may hold for another item, so only one is used: preferably points, and
        // few.
        return all.into_iter().min_by_key(|one| (!one.iter().all(Interval::is_point), one.len()));
    }
    // Starting with the fewest, the intersection never has more intervals than the next list.
    all.sort_by_key(Vec::len);
    all.into_iter().reduce(|one, other| intersection(&one, &other))
}

/// Intersects two lists of ordered, non-overlapping intervals.
fn intersection(one: &[Interval], other: &[Interval]) -> Vec<Interval> {
    let end = |interval: &Interval| interval.to.place(&[], false);
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut both = Vec::new();
    while let (Some(left), Some(right)) = (one.peek(), other.peek()) {
        if !budget::spend(1) {
            break;
        }
        both.extend(left.and(right));
        if end(left) <= end(right) {
            one.next();
        } else {
            other.next();
        }
    }
    both
}

fn intervals_of(predicate: &Predicate) -> Option<Vec<Interval>> {
    // An index stores an array by its items, so it cannot answer comparisons with a whole array.
    let usable = |value: &RawBson| !matches!(value, RawBson::Array(_) | RawBson::MinKey | RawBson::MaxKey);
    let class = |value: &RawBson| vec![type_class(value.as_raw_bson_ref())];
    let key = |value: &RawBson| encode(value.as_raw_bson_ref());
    let point = |value: &RawBson| Interval::point(value.as_raw_bson_ref());
    Some(match predicate {
        Predicate::Eq(value) if usable(value) => vec![point(value)],
        Predicate::In(values, patterns) if patterns.is_empty() && values.iter().all(usable) => {
            let mut keys = values.sorted_keys();
            keys.dedup();
            keys.into_iter().map(|key| Interval::new((key.clone(), false), (key, true))).collect()
        }
        // Null equals a missing field, and has no other comparison.
        Predicate::Gte(RawBson::Null) | Predicate::Lte(RawBson::Null) => vec![point(&RawBson::Null)],
        Predicate::Gt(value) if usable(value) => vec![Interval::new((key(value), true), (class(value), true))],
        Predicate::Gte(value) if usable(value) => vec![Interval::new((key(value), false), (class(value), true))],
        Predicate::Lt(value) if usable(value) => vec![Interval::new((class(value), false), (key(value), false))],
        Predicate::Lte(value) if usable(value) => vec![Interval::new((class(value), false), (key(value), true))],
        // All conditions are about the same item.
        Predicate::ElemMatchValue(filter, _) => {
            let (conditions, _) = filter.conditions();
            return intervals(conditions.iter().map(|condition| &condition.predicate), false);
        }
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{Document, doc, rawdoc};

    use super::*;

    fn pattern(pattern: RawDocumentBuf) -> KeyPattern {
        KeyPattern::parse(&pattern).unwrap()
    }

    fn values(index: &KeyPattern, document: RawDocumentBuf) -> usize {
        index.keys(&document).unwrap().keys.len()
    }

    #[test]
    fn stores_a_document_under_a_key_for_each_array_item() {
        let index = pattern(rawdoc! { "a.b": 1, "c": -1 });
        assert_eq!(values(&index, rawdoc! { "a": { "b": 1 }, "c": 2 }), 1);
        assert_eq!(values(&index, rawdoc! { "a": [{ "b": 1 }, { "b": 2 }, { "b": 1.0 }], "c": 2 }), 2);
        assert_eq!(values(&index, rawdoc! { "a": [{ "b": [1, 2] }, { "b": 3 }, 4] }), 4);
        assert_eq!(values(&index, rawdoc! {}), 1);
        assert!(!index.keys(&rawdoc! { "a": { "b": 1 } }).unwrap().is_multikey);
        assert!(index.keys(&rawdoc! { "a": [{ "b": 1 }] }).unwrap().is_multikey);
        let parallel = index.keys(&rawdoc! { "a": [{ "b": 1 }], "c": [2] }).unwrap_err();
        assert_eq!(parallel.number(), 171);
        // Null and a missing field have the same key.
        assert_eq!(values(&index, rawdoc! { "a": [{ "b": null }, { "x": 1 }] }), 1);
        // Both fields lead through the same array.
        let both = pattern(rawdoc! { "a.b": 1, "a.c": 1 });
        assert_eq!(values(&both, rawdoc! { "a": [{ "b": 1, "c": 1 }, { "b": 2, "c": 2 }] }), 2);
    }

    #[test]
    fn rejects_invalid_patterns() {
        let code = |pattern: RawDocumentBuf| KeyPattern::parse(&pattern).unwrap_err().number();
        assert_eq!(code(rawdoc! {}), 67);
        assert_eq!(code(rawdoc! { "a": 0 }), 67);
        assert_eq!(code(rawdoc! { "a": true }), 67);
        assert_eq!(code(rawdoc! { "a..b": 1 }), 67);
        assert_eq!(code(rawdoc! { "$a": 1 }), 67);
        assert_eq!(code(rawdoc! { "a": "text" }), 115);
        assert_eq!(code(rawdoc! { "$**": 1 }), 115);
    }

    /// True if the bounds of a filter contain a key of a document, as a single-key and a multikey
    /// index.
    fn held(index: &KeyPattern, filter: &Document, document: &Document) -> [bool; 2] {
        let raw = |document: &Document| RawDocumentBuf::try_from(document.clone()).unwrap();
        let filter = Filter::parse(&raw(filter)).unwrap();
        let keys = index.keys(&raw(document)).unwrap();
        [keys.is_multikey, true].map(|is_multikey| {
            let Some(bounds) = index.bounds(&filter, is_multikey) else { return true };
            let holds = |key: &IndexKey| bounds.ranges.iter().any(|(from, to)| (from..to).contains(&&key.bytes));
            keys.keys.iter().any(holds)
        })
    }

    #[test]
    fn bounds_are_as_narrow_as_possible() {
        for direction in [1, -1] {
            let index = pattern(rawdoc! { "a": direction, "b": -direction });
            let holds = |filter: Document, document: Document| held(&index, &filter, &document)[0];
            assert!(holds(doc! { "a": { "$gt": 1, "$lte": 3 } }, doc! { "a": 3, "b": 9 }));
            assert!(!holds(doc! { "a": { "$gt": 1, "$lte": 3 } }, doc! { "a": 1 }));
            assert!(!holds(doc! { "a": { "$gt": 1, "$lt": 3 } }, doc! { "a": 3 }));
            assert!(!holds(doc! { "a": { "$gt": 1 } }, doc! { "a": "x" }));
            assert!(!holds(doc! { "a": 1, "b": { "$gte": "m" } }, doc! { "a": 1, "b": "l" }));
            assert!(holds(doc! { "a": 1, "b": { "$gte": "m" } }, doc! { "a": 1, "b": "m" }));
            assert!(!holds(doc! { "a": { "$in": [1, 2] }, "b": 5 }, doc! { "a": 2, "b": 6 }));
            assert!(holds(doc! { "a": { "$in": [1, 2] }, "b": 5 }, doc! { "a": 2, "b": 5 }));
            assert!(holds(doc! { "a": null }, doc! { "b": 5 }));
            // The conditions hold for different items.
            assert!(holds(doc! { "a": { "$gt": 5, "$lt": 2 } }, doc! { "a": [1, 9] }));
        }
    }

    #[test]
    fn bounds_only_the_first_field_if_there_are_many_ranges() {
        let index = pattern(rawdoc! { "a": 1, "b": 1 });
        let many: Vec<i32> = (0..1000).collect();
        let filter = doc! { "a": { "$in": many }, "b": { "$in": [1, 2] } };
        let filter = Filter::parse(&RawDocumentBuf::try_from(filter).unwrap()).unwrap();
        let bounds = index.bounds(&filter, false).unwrap();
        assert_eq!((bounds.ranges.len(), bounds.bounded), (1000, 1));
    }

    #[test]
    fn provides_sorts_in_the_order_of_its_keys() {
        let index = pattern(rawdoc! { "a": 1, "b": -1 });
        let sorts = |sort: RawDocumentBuf, equalities| index.sorts(&Sort::parse(&sort).unwrap(), equalities);
        assert_eq!(sorts(rawdoc! { "a": 1, "b": -1 }, 0), Some(false));
        assert_eq!(sorts(rawdoc! { "a": -1, "b": 1 }, 0), Some(true));
        assert_eq!(sorts(rawdoc! { "a": 1, "b": 1 }, 0), None);
        assert_eq!(sorts(rawdoc! { "a": 1 }, 0), None);
        assert_eq!(sorts(rawdoc! { "b": 1 }, 1), Some(true));
        assert_eq!(sorts(rawdoc! { "a": 1, "b": -1 }, 1), Some(false));
    }
}
