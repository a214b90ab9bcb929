//! Detection of duplicate names in a JSON object.

use std::{borrow::Cow, collections::HashSet};

use super::Json;

/// Objects of up to this many members are compared pairwise; larger ones use a set.
const FEW_NAMES: usize = 16;

/// Returns the path of the first member with a duplicate name, as text for messages.
pub(super) fn find_twice(value: &Json<'_>) -> Option<String> {
    let way = find(value)?;
    Some(query::shown_path(way.iter().rev()))
}

/// Returns the path of the first member with a duplicate name, as parts from the inside out.
pub(super) fn find<'j>(value: &'j Json<'_>) -> Option<Vec<Cow<'j, str>>> {
    match value {
        Json::Object(members) => {
            if let Some(name) = name_twice(members) {
                return Some(vec![name.into()]);
            }
            members.iter().find_map(|(name, value)| with(find(value)?, name.as_ref().into()))
        }
        Json::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| with(find(item)?, index.to_string().into()))
        }
        _ => None,
    }
}

fn with<'j>(mut way: Vec<Cow<'j, str>>, part: Cow<'j, str>) -> Option<Vec<Cow<'j, str>>> {
    way.push(part);
    Some(way)
}

/// Returns the first duplicate name among the members of one object.
fn name_twice<'j>(members: &'j [(Cow<'_, str>, Json<'_>)]) -> Option<&'j str> {
    if members.len() <= FEW_NAMES {
        return members.iter().enumerate().find_map(|(index, (name, _))| {
            members[..index].iter().any(|(other, _)| other == name).then_some(name.as_ref())
        });
    }
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().map(|(name, _)| name.as_ref()).find(|name| !seen.insert(*name))
}
