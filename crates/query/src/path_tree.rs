//! A tree of paths by their parts, which finds paths that lead through one another without
//! comparing all pairs.

use std::collections::HashMap;

use crate::{Result, budget};

/// A set of paths.
#[derive(Debug, Clone)]
pub(crate) struct PathTree {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    children: HashMap<String, usize>,
    is_path: bool,
}

/// A collision of a path with one in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collision {
    /// It leads through a path with this number of parts.
    Through(usize),
    /// The path is in the tree already.
    Same,
    /// Another path leads through it.
    Above,
}

impl Default for PathTree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl PathTree {
    /// Adds a path, unless it collides with another one.
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

    /// Adds a path, even if it collides with others.
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

    /// True if a path is in the tree or is a prefix of one.
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
