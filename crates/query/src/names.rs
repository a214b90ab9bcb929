//! Values by name, in the order in which the names were added.

use std::collections::HashMap;

/// Up to this number, names are compared one by one, which is faster than hashing.
const FEW: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Names<T> {
    all: Vec<(String, T)>,
    /// The positions by name, if there are more than `FEW`.
    places: HashMap<String, usize>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: HashMap::new() }
    }
}

impl<T> Names<T> {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, T)> {
        self.all.iter()
    }

    /// Returns the position of a name.
    #[inline]
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        if self.all.len() <= FEW {
            return self.all.iter().position(|(other, _)| other == name);
        }
        self.places.get(name).copied()
    }

    #[inline]
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.place(name).map(|place| &self.all[place].1)
    }

    /// Returns the value at a position that [`place`](Self::place) returned.
    pub(crate) fn at(&self, place: usize) -> &T {
        &self.all[place].1
    }

    /// Returns the value of a name; inserts it if it is missing.
    pub(crate) fn get_or_insert_with(&mut self, name: &str, make: impl FnOnce() -> T) -> &mut T {
        let place = self.place(name).unwrap_or_else(|| {
            self.all.push((name.to_owned(), make()));
            let added = if self.all.len() == FEW + 1 { 0 } else { self.all.len() - 1 };
            if self.all.len() > FEW {
                let names = self.all.iter().enumerate().skip(added);
                self.places.extend(names.map(|(place, (name, _))| (name.clone(), place)));
            }
            self.all.len() - 1
        });
        &mut self.all[place].1
    }
}
