//! The fields of a document during an update, found by name.

use std::collections::HashMap;

use super::{Field, Node};
use crate::budget;

/// Number of fields compared without a match from which on an index is built: about the cost of
/// building one.
const LINEAR: usize = 1024;

/// Up to this number of fields, a lookup costs no more than the work on its result.
const FEW: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    /// The fields in order. A removed field keeps its position.
    all: Vec<Field<'a>>,
    /// The positions by name, once there were many lookups.
    index: Option<HashMap<String, usize>>,
    looked_at: usize,
}

impl<'a> From<Vec<Field<'a>>> for Fields<'a> {
    fn from(all: Vec<Field<'a>>) -> Self {
        Self { all, index: None, looked_at: 0 }
    }
}

impl<'a> Fields<'a> {
    /// Iterates over the fields that are not removed.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Field<'a>> {
        self.all.iter().filter(|field| !matches!(field.node, Node::Removed))
    }

    pub(super) fn get(&mut self, name: &str) -> Option<&mut Node<'a>> {
        let place = self.place(name)?;
        Some(&mut self.all[place].node)
    }

    /// Returns the field with a name; appends it if it is missing.
    pub(super) fn get_or_make(&mut self, name: &str) -> &mut Node<'a> {
        let place = self.place(name).unwrap_or_else(|| {
            let place = self.all.len();
            self.all.push(Field { name: name.to_owned().into(), node: Node::made() });
            if let Some(index) = &mut self.index {
                index.insert(name.to_owned(), place);
            }
            place
        });
        &mut self.all[place].node
    }

    /// Removes all fields with a name.
    pub(super) fn remove(&mut self, name: &str) {
        while let Some(place) = self.place(name) {
            self.all[place].node = Node::Removed;
            if let Some(index) = &mut self.index {
                index.remove(name);
            }
        }
    }

    fn place(&mut self, name: &str) -> Option<usize> {
        if let Some(index) = &self.index {
            budget::spend(1);
            return index.get(name).copied();
        }
        let is_it = |field: &Field<'_>| field.name == name && !matches!(field.node, Node::Removed);
        let place = self.all.iter().position(is_it);
        let looked_at = place.map_or(self.all.len(), |place| place + 1);
        if looked_at >= FEW {
            budget::spend(looked_at as u64 / 4);
        }
        self.looked_at += looked_at;
        if self.looked_at > LINEAR + 8 * self.all.len() {
            self.make_index();
        }
        place
    }

    /// Builds the index, unless a name occurs twice, which validated documents exclude.
    fn make_index(&mut self) {
        self.looked_at = 0;
        budget::spend(self.all.len() as u64);
        let mut index = HashMap::with_capacity(self.all.len());
        for (place, field) in self.all.iter().enumerate().filter(|(_, field)| !matches!(field.node, Node::Removed)) {
            if index.insert(field.name.clone().into_owned(), place).is_some() {
                return;
            }
        }
        self.index = Some(index);
    }
}
