//! Filters (<https://www.mongodb.com/docs/manual/reference/operator/query/>): parsed once and then
//! matched against each document.

mod bits;
mod candidates;
mod parse;
mod schema;
mod write;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Path, Result, Variables, budget, compare,
    compare::type_class,
    document::{as_document, items, with_stack},
    equal,
    expression::Expression,
    regex::Regex,
    types::TypeSet,
};

pub use bits::{BitTest, Bits};
pub use candidates::Candidates;
pub use schema::Schema;

use candidates::Equalities;

/// A parsed filter.
///
/// Parsing separates operators from values: a value is never interpreted as an operator later, so
/// that code can build filters from untrusted values.
///
/// ```
/// use bson::rawdoc;
/// use query::Filter;
///
/// let filter = Filter::parse(&rawdoc! { "tags": "a", "n": { "$gt": 1 } }).unwrap();
/// assert!(filter.matches(&rawdoc! { "tags": ["a", "b"], "n": 2.5 }));
/// assert!(!filter.matches(&rawdoc! { "tags": ["a", "b"], "n": "2" }));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All filters must match (`$and`). An empty list matches every document.
    And(Vec<Filter>),
    /// At least one filter must match (`$or`). An empty list matches no document.
    Or(Vec<Filter>),
    /// No filter may match (`$nor`).
    Nor(Vec<Filter>),
    /// The filter must not match (`$not`).
    Not(Box<Filter>),
    /// A value at a path must satisfy a predicate.
    Path(PathFilter),
    /// An expression must be true (`$expr`); the second field is its source.
    Expression(Box<Expression>, RawBson),
    /// The document must match a schema (`$jsonSchema`); the second field is its source.
    Schema(Box<Schema>, RawDocumentBuf),
    /// Matches every document (`$alwaysTrue`) or none (`$alwaysFalse`).
    Always(bool),
}

/// A predicate on the values at a path.
#[derive(Debug, Clone, PartialEq)]
pub struct PathFilter {
    /// The path whose values are tested. It leads through the items of arrays.
    pub path: Path,
    /// The condition that at least one value must satisfy.
    pub predicate: Predicate,
}

/// A condition on one value.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Equal by value (`$eq`); null also matches a missing field.
    Eq(RawBson),
    /// Greater than a value of the same type (`$gt`).
    Gt(RawBson),
    /// Greater than or equal to a value of the same type (`$gte`).
    Gte(RawBson),
    /// Less than a value of the same type (`$lt`).
    Lt(RawBson),
    /// Less than or equal to a value of the same type (`$lte`).
    Lte(RawBson),
    /// Equal to one of the values, or matching one of the regular expressions (`$in`).
    In(Candidates, Vec<Regex>),
    /// The field exists, with any value (`$exists`).
    Exists,
    /// Of one of these types (`$type`).
    Type(TypeSet),
    /// The integer part of the number, divided by the first operand, leaves the second as
    /// remainder (`$mod`).
    Mod(i64, i64),
    /// A string that matches a regular expression (`$regex`).
    Regex(Regex),
    /// A number or binary data with certain bits set or clear (`$bitsAllSet` and its kin).
    Bits(Bits),
    /// An array with this number of items (`$size`).
    Size(i64),
    /// An array with a document (or an array) that matches (`$elemMatch`).
    ElemMatch(Box<Filter>),
    /// An array with an item that satisfies all conditions (`$elemMatch` with operators only). The
    /// empty path in the filter stands for the item; the second field is the operator's source.
    ElemMatchValue(Box<Filter>, RawDocumentBuf),
}

/// Number of conditions that [`Filter::all_of`] and [`Filter::any_of`] check for duplicates.
const REPEATED: usize = 16;

impl Filter {
    /// Parses a filter document.
    ///
    /// # Errors
    /// Returns the server's error for an unknown operator or an invalid operand, and
    /// `CommandNotSupported` (115) with the operator's name for one that Userkeep does not
    /// support. 50 if the entered budget is exhausted.
    pub fn parse(filter: &RawDocument) -> Result<Self> {
        let filter = parse::filter(filter)?;
        budget::charge(1)?;
        Ok(filter)
    }

    /// Returns the filter that matches every document.
    pub fn all() -> Self {
        Self::And(Vec::new())
    }

    /// Returns a filter that matches if all of the given ones match. It flattens nested `$and`s
    /// and drops constants and duplicates.
    pub fn all_of(filters: impl IntoIterator<Item = Self>) -> Self {
        let mut all: Vec<Self> = Vec::new();
        for filter in filters {
            match filter {
                Self::Always(true) => {}
                Self::Always(false) => return filter,
                Self::And(filters) => all.extend(filters),
                filter if all.iter().take(REPEATED).any(|other| *other == filter) => {}
                filter => all.push(filter),
            }
        }
        match all.len() {
            0 => Self::Always(true),
            1 => all.remove(0),
            _ => Self::And(all),
        }
    }

    /// Returns a filter that matches if at least one of the given ones matches. It flattens nested
    /// `$or`s and drops constants and duplicates.
    pub fn any_of(filters: impl IntoIterator<Item = Self>) -> Self {
        let mut any: Vec<Self> = Vec::new();
        for filter in filters {
            match filter {
                Self::Always(false) => {}
                Self::Always(true) => return filter,
                Self::Or(filters) => any.extend(filters),
                filter if any.iter().take(REPEATED).any(|other| *other == filter) => {}
                filter => any.push(filter),
            }
        }
        match any.len() {
            0 => Self::Always(false),
            1 => any.remove(0),
            _ => Self::Or(any),
        }
    }

    /// Returns a filter that matches if none of the given ones matches, simplified as in
    /// [`any_of`](Self::any_of).
    pub fn none_of(filters: impl IntoIterator<Item = Self>) -> Self {
        match Self::any_of(filters) {
            Self::Always(any) => Self::Always(!any),
            Self::Or(filters) => Self::Nor(filters),
            filter => Self::Nor(vec![filter]),
        }
    }

    /// Returns a filter for equality at one path. The value is never interpreted as an operator.
    pub fn equals(path: &str, value: impl Into<RawBson>) -> Self {
        Self::Path(PathFilter { path: Path::new(path), predicate: Predicate::Eq(value.into()) })
    }

    /// True if the document matches. If an expression cannot be evaluated on it, it does not
    /// match.
    ///
    /// The result may be wrong if the entered budget is exhausted: the caller checks the budget
    /// before it uses the result.
    pub fn matches(&self, document: &RawDocument) -> bool {
        self.try_matches(document).unwrap_or(false)
    }

    /// Returns true if the document matches.
    ///
    /// # Errors
    /// Fails if an expression (`$expr`) cannot be evaluated on the document, or if the entered
    /// budget is exhausted.
    pub fn try_matches(&self, document: &RawDocument) -> Result<bool> {
        match self {
            // The most common conditions need no larger stack.
            Self::Path(filter) => {
                let matches = filter.matches(document, &mut None);
                budget::charge(1).map(|()| matches)
            }
            // These filters charge for their parts.
            _ => with_stack(|| self.try_matches_all(document)),
        }
    }

    fn try_matches_all(&self, document: &RawDocument) -> Result<bool> {
        Ok(match self {
            Self::And(filters) => !Self::any_answers(filters, false, document)?,
            Self::Or(filters) => Self::any_answers(filters, true, document)?,
            Self::Nor(filters) => !Self::any_answers(filters, true, document)?,
            Self::Not(filter) => !filter.try_matches(document)?,
            Self::Path(_) => self.try_matches(document)?,
            Self::Expression(expression, _) => expression.holds(document)?,
            Self::Schema(schema, _) => {
                let matches = schema.matches(document);
                budget::charge(1)?;
                matches
            }
            Self::Always(always) => {
                budget::charge(1)?;
                *always
            }
        })
    }

    /// True if one of the filters returns `answer` for the document. Stops at the first one that
    /// does.
    fn any_answers(filters: &[Self], answer: bool, document: &RawDocument) -> Result<bool> {
        if filters.is_empty() {
            budget::charge(1)?;
        }
        let mut equalities = Equalities::help(filters).then(Equalities::default);
        for filter in filters {
            let known = equalities.as_mut().and_then(|equalities| equalities.matches(filter, document));
            let matches = match known {
                Some(matches) => {
                    budget::charge(1)?;
                    matches
                }
                None => filter.try_matches(document)?,
            };
            if matches == answer {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True if evaluating the filter can fail for a reason other than an exhausted budget: it
    /// contains `$expr`.
    pub fn is_fallible(&self) -> bool {
        match self {
            Self::And(filters) | Self::Or(filters) | Self::Nor(filters) => filters.iter().any(Self::is_fallible),
            Self::Not(filter) => filter.is_fallible(),
            Self::Expression(..) => true,
            _ => false,
        }
    }

    /// Returns `None` if the document does not match. Otherwise returns the index of the matching
    /// item of the array that a condition led through, for `$` in updates and projections.
    ///
    /// The inner value is `None` if no condition led through an array. The caller checks the
    /// budget, as for [`matches`](Self::matches).
    pub fn position(&self, document: &RawDocument) -> Option<Option<usize>> {
        let mut position = None;
        self.find_position(document, &mut position).then_some(position)
    }

    fn find_position(&self, document: &RawDocument, position: &mut Option<usize>) -> bool {
        match self {
            // The server sorts the conditions, and the last one determines the position.
            Self::And(_) => {
                let mut all = Vec::new();
                self.flatten_and(&mut all);
                all.sort_by_key(|filter| filter.rank());
                let mut equalities = Equalities::default();
                all.into_iter().all(|filter| {
                    let known = match filter {
                        Self::Path(filter) => equalities.find(filter, document),
                        _ => None,
                    };
                    match known {
                        None => filter.find_position(document, position),
                        Some(found) => {
                            *position = found.flatten().or(*position);
                            found.is_some() && budget::spend(1)
                        }
                    }
                })
            }
            // As in the server, `$or` sets the position only if all branches have one path, as
            // `$in` does.
            Self::Or(filters) if is_of_one_path(filters) => {
                filters.iter().take_while(|_| budget::spend(1)).any(|filter| filter.find_position(document, position))
            }
            Self::Path(filter) => filter.matches(document, position),
            other => other.matches(document),
        }
    }

    fn flatten_and<'a>(&'a self, all: &mut Vec<&'a Self>) {
        match self {
            Self::And(filters) => filters.iter().for_each(|filter| filter.flatten_and(all)),
            other => all.push(other),
        }
    }

    /// The server's sort key among conditions: the operator, then the path.
    fn rank(&self) -> (u8, &str) {
        match self {
            Self::And(_) => (0, ""),
            Self::Or(_) => (1, ""),
            Self::Not(_) => (15, ""),
            Self::Nor(_) => (16, ""),
            Self::Schema(..) | Self::Expression(..) | Self::Always(_) => (18, ""),
            Self::Path(PathFilter { path, predicate }) => {
                let rank = match predicate {
                    Predicate::ElemMatch(_) => 2,
                    Predicate::ElemMatchValue(..) => 3,
                    Predicate::Size(_) => 4,
                    Predicate::Eq(_) => 5,
                    Predicate::Lte(_) => 6,
                    Predicate::Lt(_) => 7,
                    Predicate::Gt(_) => 8,
                    Predicate::Gte(_) => 9,
                    Predicate::Regex(_) => 10,
                    Predicate::Mod(..) => 11,
                    Predicate::Exists => 12,
                    Predicate::In(..) => 13,
                    Predicate::Bits(_) => 14,
                    Predicate::Type(_) => 17,
                };
                (rank, path.as_str())
            }
        }
    }

    /// True if a value satisfies the conditions of an `$elemMatch`.
    pub(crate) fn matches_item(&self, item: RawBsonRef<'_>) -> bool {
        let any = |filters: &[Self], answer: bool| {
            filters.iter().any(|filter| !budget::spend(1) || filter.matches_item(item) == answer)
        };
        match self {
            Self::And(filters) => !any(filters, false),
            Self::Or(filters) => any(filters, true),
            Self::Nor(filters) => !any(filters, true),
            Self::Not(filter) => !filter.matches_item(item),
            Self::Path(filter) => filter.predicate.matches(Some(item)),
            other => item.as_document().is_some_and(|document| other.matches(document)),
        }
    }

    /// Returns the conditions on paths that must all hold for the filter to match. The flag is
    /// true if the filter consists of nothing else.
    ///
    /// A store plans its index use with them; if the flag is false, it matches the documents
    /// against the filter again.
    pub fn conditions(&self) -> (Vec<&PathFilter>, bool) {
        let mut found = Vec::new();
        let is_all = self.collect_conditions(&mut found);
        (found, is_all)
    }

    fn collect_conditions<'a>(&'a self, found: &mut Vec<&'a PathFilter>) -> bool {
        match self {
            Self::And(filters) => {
                // No short circuit: each filter adds its conditions.
                let mut is_all = true;
                filters.iter().for_each(|filter| is_all &= filter.collect_conditions(found));
                is_all
            }
            // An `$or` of one branch is that branch.
            Self::Or(filters) if filters.len() == 1 => filters[0].collect_conditions(found),
            Self::Path(filter) => {
                found.push(filter);
                true
            }
            _ => false,
        }
    }

    /// Returns the equalities that the filter requires, as pairs of path and value. An upsert
    /// copies them into the new document, and a planner uses them for index lookups.
    pub fn equalities(&self) -> Vec<(&Path, &RawBson)> {
        let mut found = Vec::new();
        self.collect_equalities(&mut found);
        found
    }

    fn collect_equalities<'a>(&'a self, found: &mut Vec<(&'a Path, &'a RawBson)>) {
        match self {
            Self::And(filters) => filters.iter().for_each(|filter| filter.collect_equalities(found)),
            // An `$or` of one branch is that branch, and an `$in` of one value is an equality.
            Self::Or(filters) if filters.len() == 1 => {
                filters.iter().for_each(|filter| filter.collect_equalities(found));
            }
            Self::Path(PathFilter { path, predicate: Predicate::Eq(value) }) => found.push((path, value)),
            Self::Path(PathFilter { path, predicate: Predicate::In(values, patterns) })
                if values.len() == 1 && patterns.is_empty() =>
            {
                found.push((path, &values[0]));
            }
            _ => {}
        }
    }

    /// Returns the filter for exactly the [`equalities`](Self::equalities) that this one requires.
    pub fn demanded(&self) -> Self {
        Self::And(
            self.equalities().into_iter().map(|(path, value)| Self::equals(path.as_str(), value.clone())).collect(),
        )
    }

    /// True if the filter is an equality of `_id` and nothing else.
    pub fn is_of_id_alone(&self) -> bool {
        match self {
            Self::Path(PathFilter { path, predicate: Predicate::Eq(_) }) => path.as_str() == "_id",
            Self::Path(PathFilter { path, predicate: Predicate::In(values, patterns) }) => {
                path.as_str() == "_id" && values.len() == 1 && patterns.is_empty()
            }
            Self::And(filters) => matches!(&filters[..], [filter] if filter.is_of_id_alone()),
            _ => false,
        }
    }

    /// Adds the top-level field name of each path in the filter.
    pub(crate) fn top_level_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::And(filters) | Self::Or(filters) | Self::Nor(filters) => {
                filters.iter().for_each(|filter| filter.top_level_names(names));
            }
            Self::Not(filter) => filter.top_level_names(names),
            Self::Path(filter) => names.extend(filter.path.parts().first().map(String::as_str)),
            _ => {}
        }
    }

    /// Replaces the variables in the filter's expressions by their values.
    ///
    /// # Errors
    /// 17276 if an expression uses an undefined variable.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        match self {
            Self::And(filters) | Self::Or(filters) | Self::Nor(filters) => {
                filters.iter_mut().try_for_each(|filter| filter.bind(variables))
            }
            Self::Not(filter) => filter.bind(variables),
            Self::Expression(expression, _) => expression.bind(variables),
            // Conditions on paths contain no expressions.
            Self::Path(_) | Self::Schema(..) | Self::Always(_) => Ok(()),
        }
    }

    /// Rejects operators that are not allowed in some place, such as `$expr`. `refused` lists
    /// their names; `place` ends the error message.
    ///
    /// # Errors
    /// `QueryFeatureNotAllowed` (224) with the operator's name.
    pub fn refuse(&self, refused: &[&str], place: &str) -> Result<()> {
        let mut found = None;
        self.operators(&mut |operator| {
            if refused.contains(&operator) {
                found = Some(operator);
            }
        });
        match found {
            Some(operator) => {
                Err(Error::new(ErrorCode::QueryFeatureNotAllowed, format!("{operator} is not allowed in {place}")))
            }
            None => Ok(()),
        }
    }

    /// Calls `visit` with the name of each operator that a caller may want to restrict: `$expr`
    /// and the operators in its expression, `$jsonSchema`, `$regex` and the `$bits…` operators, at
    /// any depth.
    pub fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::And(filters) | Self::Or(filters) | Self::Nor(filters) => {
                filters.iter().for_each(|filter| filter.operators(visit));
            }
            Self::Not(filter) => filter.operators(visit),
            Self::Expression(expression, _) => {
                visit("$expr");
                expression.operators(visit);
            }
            Self::Schema(..) => visit("$jsonSchema"),
            Self::Always(_) => {}
            Self::Path(filter) => match &filter.predicate {
                Predicate::Regex(_) => visit("$regex"),
                Predicate::In(_, patterns) if !patterns.is_empty() => visit("$regex"),
                Predicate::Bits(bits) => visit(bits.name()),
                Predicate::ElemMatch(filter) | Predicate::ElemMatchValue(filter, _) => filter.operators(visit),
                _ => {}
            },
        }
    }
}

fn is_of_one_path(filters: &[Filter]) -> bool {
    let mut paths = filters.iter().map(|filter| match filter {
        Filter::Path(filter) => Some(&filter.path),
        _ => None,
    });
    let first = paths.next().flatten();
    first.is_some() && paths.all(|path| path == first)
}

impl PathFilter {
    /// True if the document matches; sets `position` to the index of the matching item.
    fn matches(&self, document: &RawDocument, position: &mut Option<usize>) -> bool {
        let mut within = None;
        let mut by = None;
        let matches = self.path.visit_at(document, !self.predicate.is_of_arrays(), &mut |value, outermost| {
            let matches = self.predicate.matches_within(value, &mut within);
            if matches {
                by = outermost;
            }
            matches
        });
        if matches {
            *position = by.or(within).or(*position);
        }
        matches
    }
}

impl Predicate {
    /// True if the predicate tests an array itself and not its items.
    fn is_of_arrays(&self) -> bool {
        matches!(self, Self::Size(_) | Self::ElemMatch(_) | Self::ElemMatchValue(..))
    }

    /// True if a value satisfies the condition; `None` stands for a missing field.
    pub fn matches(&self, value: Option<RawBsonRef<'_>>) -> bool {
        self.matches_within(value, &mut None)
    }

    /// As [`matches`](Self::matches); sets `within` to the index of the matching item of an array.
    pub(crate) fn matches_within(&self, value: Option<RawBsonRef<'_>>, within: &mut Option<usize>) -> bool {
        let mut any_item = |matches: &dyn Fn(RawBsonRef<'_>) -> bool| {
            let Some(RawBsonRef::Array(array)) = value else { return false };
            let found = items(array).position(|item| !budget::spend(1) || matches(item));
            *within = found;
            found.is_some()
        };
        match self {
            Self::Eq(expected) => equals(expected, value),
            Self::In(candidates, patterns) => {
                candidates.contain(value) || patterns.iter().any(|pattern| pattern.matches(value))
            }
            Self::Gt(bound) => compares(bound, value, std::cmp::Ordering::is_gt, false),
            Self::Gte(bound) => compares(bound, value, std::cmp::Ordering::is_ge, true),
            Self::Lt(bound) => compares(bound, value, std::cmp::Ordering::is_lt, false),
            Self::Lte(bound) => compares(bound, value, std::cmp::Ordering::is_le, true),
            Self::Exists => value.is_some(),
            Self::Type(types) => value.is_some_and(|value| types.contains(value)),
            Self::Mod(divisor, remainder) => {
                value.and_then(whole_part).is_some_and(|number| number.wrapping_rem(*divisor) == *remainder)
            }
            Self::Regex(regex) => regex.matches(value),
            Self::Bits(bits) => bits.matches(value),
            Self::Size(size) => {
                matches!(value, Some(RawBsonRef::Array(array)) if i64::try_from(items(array).count()) == Ok(*size))
            }
            Self::ElemMatch(filter) => any_item(&|item| match item {
                RawBsonRef::Document(document) => filter.matches(document),
                RawBsonRef::Array(array) => filter.matches(as_document(array)),
                _ => false,
            }),
            Self::ElemMatchValue(filter, _) => any_item(&|item| filter.matches_item(item)),
        }
    }
}

/// Returns the integer part of a number, rounded towards zero, if it is in the range of an int64.
pub(crate) fn whole_part(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Double(number) => crate::integer(RawBsonRef::Double(number.trunc())),
        RawBsonRef::Decimal128(_) => crate::Number::of(value)?.truncated(),
        value => crate::integer(value),
    }
}

fn equals(expected: &RawBson, value: Option<RawBsonRef<'_>>) -> bool {
    let expected = expected.as_raw_bson_ref();
    match value {
        Some(value) => equal(expected, value),
        None => matches!(expected, RawBsonRef::Null),
    }
}

/// Compares within one type only. MinKey and MaxKey compare with every type, NaN only with itself.
fn compares(
    bound: &RawBson,
    value: Option<RawBsonRef<'_>>,
    holds: fn(std::cmp::Ordering) -> bool,
    or_equal: bool,
) -> bool {
    let bound = bound.as_raw_bson_ref();
    let bounded = matches!(bound, RawBsonRef::MinKey | RawBsonRef::MaxKey);
    let Some(value) = value else {
        // A missing field counts as null, which lies between MinKey and MaxKey.
        return (or_equal && matches!(bound, RawBsonRef::Null)) || (bounded && holds(compare(RawBsonRef::Null, bound)));
    };
    if bounded {
        return holds(compare(value, bound));
    }
    if type_class(bound) != type_class(value) {
        return false;
    }
    if is_nan(bound) || is_nan(value) {
        return or_equal && is_nan(bound) && is_nan(value);
    }
    holds(compare(value, bound))
}

fn is_nan(value: RawBsonRef<'_>) -> bool {
    crate::Number::of(value).is_some_and(crate::Number::is_nan)
}

#[cfg(test)]
mod tests;
