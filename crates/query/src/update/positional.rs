//! Update paths through arrays: `$` for the item that the filter matched, `$[]` for every item,
//! and `$[name]` for the items that match an array filter. See
//! <https://www.mongodb.com/docs/manual/reference/operator/update/positional-filtered/>.

use std::collections::{HashMap, HashSet};

use bson::{
    RawBson,
    raw::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::tree::{Node, Tree, text};
use crate::{Error, ErrorCode, Filter, Path, Result, budget, document::items, path_tree::PathTree};

/// The array filters of an update, in order and by name.
#[derive(Debug, Clone, Default)]
pub(super) struct ArrayFilters {
    all: Vec<ArrayFilter>,
    by_name: HashMap<String, usize>,
}

/// An array filter: selects the items for `$[name]`.
#[derive(Debug, Clone)]
struct ArrayFilter {
    name: String,
    filter: Filter,
}

impl ArrayFilters {
    /// Parses the `arrayFilters` of an update.
    pub(super) fn parse(filters: &RawArray) -> Result<Self> {
        let mut parsed = Self::default();
        for filter in items(filters) {
            let RawBsonRef::Document(filter) = filter else {
                return Err(Error::type_mismatch("each array filter must be an object"));
            };
            let filter = ArrayFilter::parse(filter)?;
            if parsed.by_name.insert(filter.name.clone(), parsed.all.len()).is_some() {
                return Err(Error::parse(format!(
                    "Found multiple array filters with the same top-level field name {}",
                    filter.name
                )));
            }
            parsed.all.push(filter);
        }
        Ok(parsed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        self.all.iter().for_each(|filter| filter.filter.operators(visit));
    }

    fn get(&self, name: &str) -> Option<&ArrayFilter> {
        self.by_name.get(name).map(|place| &self.all[*place])
    }
}

impl ArrayFilter {
    fn parse(document: &RawDocument) -> Result<Self> {
        let filter = Filter::parse(document)?;
        filter.refuse(&["$expr", "$jsonSchema"], "an array filter")?;
        let mut names = Vec::new();
        filter.top_level_names(&mut names);
        let name = match names.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => (*first).to_owned(),
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

    fn takes(&self, item: &RawBson) -> Result<bool> {
        let mut holder = RawDocumentBuf::new();
        crate::append(&mut holder, &self.name, item);
        let takes = self.filter.matches(&holder);
        budget::charge(1)?;
        Ok(takes)
    }
}

/// Returns the name in `$[name]`, empty for `$[]`.
fn identifier(part: &str) -> Option<&str> {
    part.strip_prefix("$[")?.strip_suffix(']')
}

fn is_positional_part(part: &str) -> bool {
    part == "$" || part.starts_with("$[")
}

/// True if a path leads through an array other than by an index.
pub(super) fn is_positional(path: &Path) -> bool {
    path.parts().iter().any(|part| is_positional_part(part))
}

/// True if a path needs the item that the filter matched.
pub(super) fn needs_match(path: &Path) -> bool {
    path.parts().iter().any(|part| part == "$")
}

/// Checks the positional parts of a path.
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
            return Err(Error::bad_value(format!(
                "The path '{}' has a positional part without a closing bracket",
                path.as_str()
            )));
        }
    }
    Ok(())
}

/// Checks that each name in a path has a filter, and that each filter is used.
pub(super) fn check_filters<'p>(paths: impl Iterator<Item = &'p Path>, filters: &ArrayFilters) -> Result<()> {
    let mut used: HashSet<&str> = HashSet::new();
    for path in paths {
        for name in path.parts().iter().filter_map(|part| identifier(part)).filter(|name| !name.is_empty()) {
            if filters.get(name).is_none() {
                return Err(Error::bad_value(format!(
                    "No array filter found for identifier '{name}' in path '{}'",
                    path.as_str()
                )));
            }
            used.insert(name);
        }
    }
    match filters.all.iter().find(|filter| !used.contains(filter.name.as_str())) {
        Some(filter) => {
            Err(Error::parse(format!("The array filter for identifier '{}' was not used in the update", filter.name)))
        }
        None => Ok(()),
    }
}

/// The paths that an update has changed so far.
#[derive(Debug, Default)]
pub(super) struct Touched(PathTree);

impl Touched {
    /// Adds a changed path.
    ///
    /// # Errors
    /// `ConflictingUpdateOperators` (40) if the path was changed before, or if it leads through a
    /// changed path or a changed path leads through it.
    pub(super) fn note(&mut self, path: &Path) -> Result<()> {
        match self.0.insert(path.parts())? {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorCode::ConflictingUpdateOperators,
                format!("Update created a conflict at '{}'", path.as_str()),
            )),
        }
    }
}

/// Returns the paths without positional parts that a path stands for in a document.
pub(super) fn resolve(
    path: &Path,
    tree: &mut Tree<'_>,
    filters: &ArrayFilters,
    position: Option<usize>,
) -> Result<Vec<Path>> {
    let mut held = budget::hold(0)?;
    let mut resolved = vec![Vec::new()];
    for part in path.parts() {
        let Some(name) = identifier(part) else {
            let place = position.map(|position| position.to_string());
            let part = match (part.as_str(), &place) {
                ("$", Some(place)) => place,
                ("$", None) => {
                    let message = "The positional operator did not find the match needed from the query.";
                    return Err(Error::bad_value(message));
                }
                (part, _) => part,
            };
            for parts in &mut resolved {
                budget::charge(1)?;
                held.grow(part.len() + PART)?;
                parts.push(part.to_owned());
            }
            continue;
        };
        let mut next = Vec::new();
        for parts in resolved {
            let items = array_at(&parts, path, tree)?;
            let filter = filters.get(name);
            let length: usize = parts.iter().map(|part: &String| part.len() + PART).sum();
            for (place, item) in items.iter().enumerate() {
                budget::charge(1)?;
                if name.is_empty() || filter.is_some_and(|filter| filter.takes(item).unwrap_or(false)) {
                    budget::charge_bytes(length)?;
                    held.grow(length)?;
                    next.push([&parts[..], &[place.to_string()]].concat());
                }
            }
        }
        resolved = next;
    }
    Ok(resolved.into_iter().map(|parts| Path::new(&parts.join("."))).collect())
}

/// Memory of a part of a path in bytes, in addition to its text.
const PART: usize = 48;

fn array_at(parts: &[String], whole: &Path, tree: &mut Tree<'_>) -> Result<Vec<RawBson>> {
    match tree.open_parts(parts).map(|node: &mut Node<'_>| node.to_value()) {
        Some(RawBson::Array(array)) => Ok(items(&array).map(Into::into).collect()),
        Some(other) => Err(Error::bad_value(format!(
            "Cannot apply array updates to non-array element {}: {}",
            parts.join("."),
            text(&other)
        ))),
        None => Err(Error::bad_value(format!(
            "The path '{}' must exist in the document in order to apply array updates, for '{}'.",
            parts.join("."),
            whole.as_str()
        ))),
    }
}

/// Rejects a first field name that starts with a dollar sign, unless it is positional.
pub(super) fn check_dollars(path: &Path) -> Result<()> {
    match path.parts().first().filter(|part| part.starts_with('$') && !is_positional_part(part)) {
        Some(part) => Err(Error::new(
            ErrorCode::DollarPrefixedFieldName,
            format!("The dollar ($) prefixed field '{part}' in '{}' is not valid for storage.", path.as_str()),
        )),
        None => Ok(()),
    }
}
