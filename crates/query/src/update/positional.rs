//! Paths through arrays: `$` for the item that the filter found, `$[]` for every item, and `$[name]` for those that an array
//! filter takes (<https://www.mongodb.com/docs/manual/reference/operator/update/positional-filtered/>).

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::tree::{Node, Tree, text};
use crate::{Error, ErrorCode, Filter, Path, Result, document::items};

/// Which items of an array a name in a path stands for.
#[derive(Debug, Clone)]
pub struct ArrayFilter {
    name: String,
    filter: Filter,
}

impl ArrayFilter {
    /// Parses the `arrayFilters` of an update.
    pub(super) fn parse_all(filters: &RawArray) -> Result<Vec<Self>> {
        let mut parsed: Vec<Self> = Vec::new();
        for filter in items(filters) {
            let RawBsonRef::Document(filter) = filter else {
                return Err(Error::type_mismatch("each array filter must be an object"));
            };
            let filter = Self::parse(filter)?;
            if parsed.iter().any(|other| other.name == filter.name) {
                return Err(Error::parse(format!(
                    "Found multiple array filters with the same top-level field name {}",
                    filter.name
                )));
            }
            parsed.push(filter);
        }
        Ok(parsed)
    }

    fn parse(document: &RawDocument) -> Result<Self> {
        let filter = Filter::parse(document)?;
        filter.refuse(&["$expr", "$jsonSchema"], "an array filter")?;
        let mut names = Vec::new();
        filter.top_level_names(&mut names);
        let name = match names.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => first.clone(),
            Some((first, rest)) => {
                let other = rest.iter().find(|other| *other != first).unwrap_or(first);
                return Err(Error::parse(format!(
                    "Error parsing array filter :: caused by :: Expected a single top-level field name, found '{first}' and '{other}'"
                )));
            }
            None => {
                return Err(Error::parse("Cannot use an expression without a top-level field name in arrayFilters"));
            }
        };
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::bad_value(format!(
                "Error parsing array filter :: caused by :: The top-level field name must be an alphanumeric string beginning with a lowercase letter, found '{name}'"
            )));
        }
        Ok(Self { name, filter })
    }

    fn takes(&self, item: &RawBson) -> bool {
        let mut holder = RawDocumentBuf::new();
        crate::append(&mut holder, &self.name, item);
        self.filter.matches(&holder)
    }

    pub(super) fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        self.filter.operators(visit);
    }
}

/// The name in `$[name]`, empty for `$[]`.
fn identifier(part: &str) -> Option<&str> {
    part.strip_prefix("$[")?.strip_suffix(']')
}

fn is_positional_part(part: &str) -> bool {
    part == "$" || part.starts_with("$[")
}

/// Whether a path leads through an array by other means than an index.
pub(super) fn is_positional(path: &Path) -> bool {
    path.parts().iter().any(|part| is_positional_part(part))
}

/// Whether a path needs the item that the filter found.
pub(super) fn needs_match(path: &Path) -> bool {
    path.parts().iter().any(|part| part == "$")
}

/// Checks a path when it is parsed.
pub(super) fn check(path: &Path) -> Result<()> {
    for (place, part) in path.parts().iter().enumerate() {
        if is_positional_part(part) && place == 0 {
            return Err(Error::bad_value(format!(
                "Cannot have positional (i.e. '$') element in the first position in path '{}'",
                path.as_str()
            )));
        }
        if part == "$" && path.parts()[..place].iter().any(|part| is_positional_part(part)) {
            return Err(Error::bad_value(format!(
                "Too many positional (i.e. '$') elements found in path '{}'",
                path.as_str()
            )));
        }
        if part.starts_with("$[") && !part.ends_with(']') {
            return Err(Error::bad_value(format!("The path '{}' has a part that is not closed", path.as_str())));
        }
    }
    Ok(())
}

/// Checks that each name has its filter, and each filter is used.
pub(super) fn check_filters<'p>(paths: impl Iterator<Item = &'p Path>, filters: &[ArrayFilter]) -> Result<()> {
    let mut used: Vec<&str> = Vec::new();
    for path in paths {
        for name in path.parts().iter().filter_map(|part| identifier(part)).filter(|name| !name.is_empty()) {
            if !filters.iter().any(|filter| filter.name == name) {
                return Err(Error::bad_value(format!(
                    "No array filter found for identifier '{name}' in path '{}'",
                    path.as_str()
                )));
            }
            used.push(name);
        }
    }
    match filters.iter().find(|filter| !used.contains(&filter.name.as_str())) {
        Some(filter) => {
            Err(Error::parse(format!("The array filter for identifier '{}' was not used in the update", filter.name)))
        }
        None => Ok(()),
    }
}

/// The paths that an update has changed so far.
#[derive(Debug, Default)]
pub(super) struct Touched {
    paths: HashSet<String>,
    /// What leads to them.
    parents: HashSet<String>,
}

impl Touched {
    /// Notes that a path is changed.
    ///
    /// # Errors
    /// `ConflictingUpdateOperators` where it was before, or leads through one that was, or such a one through it.
    pub(super) fn note(&mut self, path: &Path) -> Result<()> {
        let parents: Vec<String> = (1..path.parts().len()).map(|length| path.parts()[..length].join(".")).collect();
        let whole = path.as_str();
        let is_free = !self.parents.contains(whole) && !parents.iter().any(|parent| self.paths.contains(parent));
        if !is_free || !self.paths.insert(whole.to_owned()) {
            return Err(Error::new(
                ErrorCode::ConflictingUpdateOperators,
                format!("Update created a conflict at '{whole}'"),
            ));
        }
        self.parents.extend(parents);
        Ok(())
    }
}

/// The paths that a path stands for in a document.
pub(super) fn resolve(
    path: &Path,
    tree: &mut Tree<'_>,
    filters: &[ArrayFilter],
    position: Option<usize>,
) -> Result<Vec<Path>> {
    let mut resolved = vec![Vec::new()];
    for part in path.parts() {
        let mut next = Vec::new();
        for parts in resolved {
            let with = |part: &str| [&parts[..], &[part.to_owned()]].concat();
            if part == "$" {
                let position = position.ok_or_else(|| {
                    Error::bad_value("The positional operator did not find the match needed from the query.")
                })?;
                next.push(with(&position.to_string()));
            } else if let Some(name) = identifier(part) {
                let items = array_at(&Path::new(&parts.join(".")), path, tree)?;
                let filter = filters.iter().find(|filter| filter.name == name);
                for (place, item) in items.iter().enumerate() {
                    if name.is_empty() || filter.is_some_and(|filter| filter.takes(item)) {
                        next.push(with(&place.to_string()));
                    }
                }
            } else {
                next.push(with(part));
            }
        }
        resolved = next;
    }
    Ok(resolved.into_iter().map(|parts| Path::new(&parts.join("."))).collect())
}

fn array_at(path: &Path, whole: &Path, tree: &mut Tree<'_>) -> Result<Vec<RawBson>> {
    match tree.open(path).map(|node: &mut Node<'_>| node.to_value()) {
        Some(RawBson::Array(array)) => Ok(items(&array).map(Into::into).collect()),
        Some(other) => Err(Error::bad_value(format!(
            "Cannot apply array updates to non-array element {}: {}",
            path.as_str(),
            text(&other)
        ))),
        None => Err(Error::bad_value(format!(
            "The path '{}' must exist in the document in order to apply array updates, for '{}'.",
            path.as_str(),
            whole.as_str()
        ))),
    }
}

/// Refuses field names that only an operator may have.
pub(super) fn check_dollars(path: &Path) -> Result<()> {
    match path.parts().first().filter(|part| part.starts_with('$') && !is_positional_part(part)) {
        Some(part) => Err(Error::new(
            ErrorCode::DollarPrefixedFieldName,
            format!("The dollar ($) prefixed field '{part}' in '{}' is not valid for storage.", path.as_str()),
        )),
        None => Ok(()),
    }
}
