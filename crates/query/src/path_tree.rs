//! A prefix tree of field paths. It detects paths that are prefixes of other paths, without
//! comparing each pair of paths.

use std::collections::HashMap;

use crate::{Result, budget};

/// A set of field paths, as a prefix tree with a node for each part of a path.
#[derive(Debug, Clone)]
pub(crate) struct PathTree {
    /// The nodes; the first is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// The index of each child in `PathTree::nodes`, by the next part of the path.
    children: HashMap<String, usize>,
    /// True if a path of the set ends at this node.
    is_path: bool,
}

/// A collision of a new path with a path in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collision {
    /// A path in the tree, with this number of parts, is a prefix of the new path.
    Through(usize),
    /// The tree already contains the new path.
    Same,
    /// The new path is a prefix of a path in the tree.
    Above,
}

impl Default for PathTree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl PathTree {
    /// Adds a path, or returns its collision with a path in the tree.
    ///
    /// # Errors
    /// Fails if the budget is exhausted.
    pub(crate) fn insert(&mut self, parts: &[String]) -> Result<Option<Collision>> {
        let mut place = 0;
        for (length, part) in parts.iter().enumerate() {
            if self.nodes[place].is_path {
                return Ok(Some(Collision::Through(length)));
            }
            place = self.child(place, part)?;
        }
        let node = &mut self.nodes[place];
        if node.is_path {
            return Ok(Some(Collision::Same));
        }
        if !node.children.is_empty() {
            return Ok(Some(Collision::Above));
        }
        node.is_path = true;
        Ok(None)
    }

    /// Adds the nodes of a path for [`leads_to`](Self::leads_to), without a check for collisions.
    ///
    /// # Errors
    /// Fails if the budget is exhausted.
    pub(crate) fn note(&mut self, parts: &[String]) -> Result<()> {
        let mut place = 0;
        for part in parts {
            place = self.child(place, part)?;
        }
        Ok(())
    }

    /// True if the tree contains the path, or a path that it is a prefix of.
    pub(crate) fn leads_to(&self, parts: &[String]) -> bool {
        let mut place = 0;
        for part in parts {
            match self.nodes[place].children.get(part) {
                Some(child) => place = *child,
                None => return false,
            }
        }
        true
    }

    fn child(&mut self, place: usize, part: &str) -> Result<usize> {
        budget::charge(1)?;
        if let Some(child) = self.nodes[place].children.get(part) {
            return Ok(*child);
        }
        let child = self.nodes.len();
        self.nodes.push(Node::default());
        self.nodes[place].children.insert(part.to_owned(), child);
        Ok(child)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Path;

    #[test]
    fn finds_paths_that_lead_through_one_another() {
        let mut tree = PathTree::default();
        let mut insert = |path: &str| tree.insert(Path::new(path).parts()).unwrap();
        assert_eq!(insert("a.b.c"), None);
        assert_eq!(insert("a.bc"), None);
        assert_eq!(insert("a.b.c"), Some(Collision::Same));
        assert_eq!(insert("a.b.c.d"), Some(Collision::Through(3)));
        assert_eq!(insert("a.b"), Some(Collision::Above));
        assert_eq!(insert("b"), None);
        assert!(tree.leads_to(Path::new("a.b").parts()) && !tree.leads_to(Path::new("a.x").parts()));
    }
}
