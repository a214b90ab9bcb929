//! Values by name, in the order in which the names first came.

use std::collections::HashMap;

/// So few names are compared one by one, which is faster than to hash one.
const FEW: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Names<T> {
    all: Vec<(String, T)>,
    /// The places of the names, if they are many.
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

    /// The place of a name among all.
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

    /// The value at a place that [`place`](Self::place) returned.
    pub(crate) fn at(&self, place: usize) -> &T {
        &self.all[place].1
    }

    /// The value of a name, made if there is none.
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
