//! Filters (<https://www.mongodb.com/docs/manual/reference/operator/query/>): parsed once, asked of each document.

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

/// A parsed filter. Its values stay values: nothing in them is looked at as an operator again.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All must match; none is true.
    And(Vec<Filter>),
    /// One must match.
    Or(Vec<Filter>),
    /// None may match.
    Nor(Vec<Filter>),
    /// Must not match.
    Not(Box<Filter>),
    /// What a path reaches must satisfy a predicate.
    Path(PathFilter),
    /// An expression must be true (`$expr`), with what it was parsed from.
    Expression(Box<Expression>, RawBson),
    /// The document must be of a form (`$jsonSchema`), with what that was parsed from.
    Schema(Box<Schema>, RawDocumentBuf),
    /// Matches always, or never.
    Always(bool),
}

/// A predicate on what a path reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct PathFilter {
    /// Where to look.
    pub path: Path,
    /// What must be there.
    pub predicate: Predicate,
}

/// A condition that one value satisfies or does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Equal by value; null also matches a missing field.
    Eq(RawBson),
    /// Greater, within the same type.
    Gt(RawBson),
    /// Greater or equal, within the same type.
    Gte(RawBson),
    /// Less, within the same type.
    Lt(RawBson),
    /// Less or equal, within the same type.
    Lte(RawBson),
    /// Equal to one of these, or matching one of the regular expressions.
    In(Candidates, Vec<Regex>),
    /// The field is there, whatever it holds.
    Exists,
    /// Of one of these types.
    Type(TypeSet),
    /// Whole part of the number, divided by the first, leaves the second.
    Mod(i64, i64),
    /// Text that matches.
    Regex(Regex),
    /// Bits that are set or not.
    Bits(Bits),
    /// An array of so many items.
    Size(i64),
    /// An array with a document (or an array) that matches.
    ElemMatch(Box<Filter>),
    /// An array with an item of which all of this is true; the paths in it mean the item itself. With what it was parsed from.
    ElemMatchValue(Box<Filter>, RawDocumentBuf),
}

/// Conditions among which [`Filter::all_of`] and [`Filter::any_of`] look for repeated ones.
const REPEATED: usize = 16;

impl Filter {
    /// Parses a filter document.
    ///
    /// # Errors
    /// The server's own for an operator that does not exist or an operand of the wrong type;
    /// `CommandNotSupported` by name for what this version does not have.
    pub fn parse(filter: &RawDocument) -> Result<Self> {
        let filter = parse::filter(filter)?;
        budget::charge(1)?;
        Ok(filter)
    }

    /// The filter that matches everything.
    pub fn all() -> Self {
        Self::And(Vec::new())
    }

    /// The filter for what all of these match, without what does not matter.
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

    /// The filter for what any of these matches, without what does not matter.
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

    /// The filter for what none of these matches, without what does not matter.
    pub fn none_of(filters: impl IntoIterator<Item = Self>) -> Self {
        match Self::any_of(filters) {
            Self::Always(any) => Self::Always(!any),
            Self::Or(filters) => Self::Nor(filters),
            filter => Self::Nor(vec![filter]),
        }
    }

    /// A filter for equality of one field.
    pub fn equals(path: &str, value: impl Into<RawBson>) -> Self {
        Self::Path(PathFilter { path: Path::new(path), predicate: Predicate::Eq(value.into()) })
    }

    /// Whether the document matches. One for which an expression cannot be computed does not.
    ///
    /// The answer may be wrong if the entered budget is exhausted: the caller checks the budget before it uses the answer.
    pub fn matches(&self, document: &RawDocument) -> bool {
        self.try_matches(document).unwrap_or(false)
    }

    /// Whether the document matches.
    ///
    /// # Errors
    /// Where an expression (`$expr`) cannot be computed for it, or the entered budget is exhausted.
    pub fn try_matches(&self, document: &RawDocument) -> Result<bool> {
        match self {
            // What is asked of most documents needs no more stack than there is.
            Self::Path(filter) => {
                let matches = filter.matches(document, &mut None);
                budget::charge(1).map(|()| matches)
            }
            // These charge what they are made of.
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

    /// True if one of the filters answers so. The first that does is the last that is asked.
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

    /// Whether asking it can fail.
    pub fn is_fallible(&self) -> bool {
        match self {
            Self::And(filters) | Self::Or(filters) | Self::Nor(filters) => filters.iter().any(Self::is_fallible),
            Self::Not(filter) => filter.is_fallible(),
            Self::Expression(..) => true,
            _ => false,
        }
    }

    /// Whether the document matches, and if so by which item of the array that a condition led through: what
    /// `$` stands for in updates and projections. As for [`matches`](Self::matches), the caller checks the budget.
    pub fn position(&self, document: &RawDocument) -> Option<Option<usize>> {
        let mut position = None;
        self.find_position(document, &mut position).then_some(position)
    }

    fn find_position(&self, document: &RawDocument, position: &mut Option<usize>) -> bool {
        match self {
            // The server puts conditions in an order of its own, and the last of them counts.
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
            // As in the server, what `$or` found is noted only where it is of one field, as `$in` is.
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

    /// Where the server puts it among others: by the operator, then by the path.
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

    /// Whether a value satisfies conditions on it.
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

    /// The conditions on paths that are all true where the filter is, and whether there is nothing else to it.
    pub fn conditions(&self) -> (Vec<&PathFilter>, bool) {
        let mut found = Vec::new();
        let is_all = self.collect_conditions(&mut found);
        (found, is_all)
    }

    fn collect_conditions<'a>(&'a self, found: &mut Vec<&'a PathFilter>) -> bool {
        match self {
            Self::And(filters) => {
                // Each is looked into, whatever the others are.
                let mut is_all = true;
                filters.iter().for_each(|filter| is_all &= filter.collect_conditions(found));
                is_all
            }
            // One branch is as good as none.
            Self::Or(filters) if filters.len() == 1 => filters[0].collect_conditions(found),
            Self::Path(filter) => {
                found.push(filter);
                true
            }
            _ => false,
        }
    }

    /// The values that the filter demands of fields by equality, as an upsert copies them and a planner looks them up.
    pub fn equalities(&self) -> Vec<(&Path, &RawBson)> {
        let mut found = Vec::new();
        self.collect_equalities(&mut found);
        found
    }

    fn collect_equalities<'a>(&'a self, found: &mut Vec<(&'a Path, &'a RawBson)>) {
        match self {
            Self::And(filters) => filters.iter().for_each(|filter| filter.collect_equalities(found)),
            // One branch, or one candidate, is as good as none.
            Self::Or(filters) if filters.len() == 1 => {
                filters.iter().for_each(|filter| filter.collect_equalities(found))
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

    /// The filter for no more than the values that this one demands of fields by equality.
    pub fn demanded(&self) -> Self {
        Self::And(
            self.equalities().into_iter().map(|(path, value)| Self::equals(path.as_str(), value.clone())).collect(),
        )
    }

    /// Whether it asks for one `_id`, and for nothing else.
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

    /// The first parts of all its paths.
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

    /// Puts in what the variables of its expressions stand for.
    ///
    /// # Errors
    /// 17276 where one is not among them.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        match self {
            Self::And(filters) | Self::Or(filters) | Self::Nor(filters) => {
                filters.iter_mut().try_for_each(|filter| filter.bind(variables))
            }
            Self::Not(filter) => filter.bind(variables),
            Self::Expression(expression, _) => expression.bind(variables),
            // No condition on a path has an expression.
            Self::Path(_) | Self::Schema(..) | Self::Always(_) => Ok(()),
        }
    }

    /// Refuses an operator where the server does not take it, `$expr` above all.
    ///
    /// # Errors
    /// `QueryFeatureNotAllowed` with the operator's name.
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

    /// Names each operator that the filter uses and that not everybody may use.
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
    /// Whether the document matches; notes by which item.
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
    /// Whether it is asked of an array itself, and not of its items.
    fn is_of_arrays(&self) -> bool {
        matches!(self, Self::Size(_) | Self::ElemMatch(_) | Self::ElemMatchValue(..))
    }

    /// Whether a value, or a missing one, satisfies the condition.
    pub fn matches(&self, value: Option<RawBsonRef<'_>>) -> bool {
        self.matches_within(value, &mut None)
    }

    /// The same; notes by which item of an array.
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
            Self::Gt(bound) => compares(bound, value, |order| order.is_gt(), false),
            Self::Gte(bound) => compares(bound, value, |order| order.is_ge(), true),
            Self::Lt(bound) => compares(bound, value, |order| order.is_lt(), false),
            Self::Lte(bound) => compares(bound, value, |order| order.is_le(), true),
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

/// The whole part of a number, towards zero, if it is within an int64.
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

/// A comparison holds within one type only; the key bounds compare with everything, NaN with nothing but itself.
fn compares(
    bound: &RawBson,
    value: Option<RawBsonRef<'_>>,
    holds: fn(std::cmp::Ordering) -> bool,
    or_equal: bool,
) -> bool {
    let bound = bound.as_raw_bson_ref();
    let bounded = matches!(bound, RawBsonRef::MinKey | RawBsonRef::MaxKey);
    let Some(value) = value else {
        // What is not there lies between the bounds of all keys, too.
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
