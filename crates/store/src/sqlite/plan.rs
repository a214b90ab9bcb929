//! How the documents that a filter can match are found.

use query::{Bounds, Filter, KeyPattern, KeyRange, Path, Sort};

use super::catalog::{Collection, HeldIndex};
use crate::{Explanation, Guard};

/// A way to what a filter can match, and perhaps to more.
pub(super) struct Plan<'c> {
    pub(super) access: AccessPath<'c>,
    /// Whether the documents come in the order of the sort that was asked for, instead of that of their insertion.
    pub(super) is_sorted: bool,
}

pub(super) enum AccessPath<'c> {
    /// All documents.
    Scan,
    /// Those under one key.
    Point(Source<'c>, Vec<u8>),
    /// Those under keys in any of these ranges.
    Ranges(Vec<(Source<'c>, Vec<KeyRange>)>),
    /// Those under keys in a range, or under all, in the order of the keys.
    Ordered { source: Source<'c>, range: Option<KeyRange>, backwards: bool },
}

/// Where keys stand.
#[derive(Clone, Copy)]
pub(super) enum Source<'c> {
    /// Beside the documents: their `_id`s.
    Id,
    Index(&'c HeldIndex),
}

/// What is asked.
#[derive(Clone, Copy)]
pub(super) struct QueryShape<'q> {
    pub(super) filter: &'q Filter,
    /// Whose documents alone are of use.
    pub(super) guard: Option<&'q dyn Guard>,
    pub(super) sort: Option<&'q Sort>,
    pub(super) limit: Option<usize>,
    /// Whether every index is to be taken for one that holds documents under keys of an array's items, as it may by now.
    pub(super) all_multikey: bool,
}

/// One way, and how good it is.
struct Candidate<'c> {
    source: Source<'c>,
    bounds: Option<Bounds>,
    fields: usize,
    is_unique: bool,
    /// Whether it gives the order that is asked for, and if so whether backwards.
    order: Option<bool>,
}

/// The best candidates to what a filter can match.
struct CandidatePlans<'c> {
    /// By one index.
    by_one: Option<Candidate<'c>>,
    /// By several, where no one bounds it: what must be one of several things is in one of several places, if each can be looked up.
    places: Option<Vec<(Source<'c>, Vec<KeyRange>)>>,
}

impl<'c> Plan<'c> {
    /// The best way to what the filter can match and the guard can let be seen.
    pub(super) fn choose(shape: QueryShape<'_>, collection: &'c Collection) -> Self {
        // What most reads ask for needs no comparing.
        let equalities = shape.filter.equalities();
        if let Some((_, id)) = equalities.iter().find(|(path, _)| path.as_str() == "_id") {
            let key = query::encode_key(id.as_raw_bson_ref());
            return Self { access: AccessPath::Point(Source::Id, key), is_sorted: false };
        }
        let candidates = CandidatePlans::of(shape, collection);
        let filters = if candidates.are_enough() { None } else { shape.guard.and_then(Guard::filters) };
        match filters.map(|filters| &filters.seen) {
            None | Some(Filter::Always(true)) => candidates.plan(),
            Some(Filter::Always(false)) => Self { access: AccessPath::Ranges(Vec::new()), is_sorted: false },
            Some(seen) => {
                let filter = &Filter::all_of([shape.filter.clone(), seen.clone()]);
                let both = CandidatePlans::of(QueryShape { filter, ..shape }, collection);
                match (&both.by_one, &candidates.by_one) {
                    (Some(by_both), Some(own)) if by_both.gains_on(own) => both.plan(),
                    (_, Some(_)) => candidates.plan(),
                    (_, None) => both.plan(),
                }
            }
        }
    }
}

impl<'c> CandidatePlans<'c> {
    fn of(shape: QueryShape<'_>, collection: &'c Collection) -> Self {
        let by_one = best(shape, collection);
        // All that a filter leaves beats all in order.
        if by_one.as_ref().is_some_and(|best| best.bounds.is_some()) {
            return Self { by_one, places: None };
        }
        let places = alternatives(shape.filter)
            .filter_map(|filters| {
                let places = filters.iter().map(|filter| {
                    let shape = QueryShape { filter, sort: None, limit: None, ..shape };
                    best(shape, collection).and_then(Candidate::place)
                });
                places.collect::<Option<Vec<_>>>()
            })
            .min_by_key(|places| places.iter().map(|(_, ranges)| ranges.len()).sum::<usize>());
        Self { by_one, places }
    }

    /// Whether to know more of what is wanted would not make them better: there is one document at most, or some places.
    fn are_enough(&self) -> bool {
        self.places.is_some() || self.by_one.as_ref().is_some_and(Candidate::is_one)
    }

    fn plan(self) -> Plan<'c> {
        match (self.places, self.by_one) {
            (Some(places), _) => Plan { access: AccessPath::Ranges(places), is_sorted: false },
            (None, Some(best)) => best.plan(),
            (None, None) => Plan { access: AccessPath::Scan, is_sorted: false },
        }
    }
}

/// The branches of each `$or` that every document must satisfy.
fn alternatives(filter: &Filter) -> impl Iterator<Item = &[Filter]> {
    let all = if let Filter::And(filters) = filter { &filters[..] } else { std::slice::from_ref(filter) };
    all.iter().filter_map(|filter| if let Filter::Or(filters) = filter { Some(&filters[..]) } else { None })
}

/// The best way by one index.
fn best<'c>(shape: QueryShape<'_>, collection: &'c Collection) -> Option<Candidate<'c>> {
    let sort = shape.sort.filter(|sort| !sort.is_empty());
    let id = KeyPattern::of(Path::new("_id"));
    let of_id = candidate(Source::Id, &id, true, false, shape, sort);
    let of_indexes = collection.indexes.iter().filter(|held| held.index.covers(shape.filter)).map(|held| {
        let is_multikey = held.is_multikey || shape.all_multikey;
        candidate(Source::Index(held), &held.index.keys, held.index.unique, is_multikey, shape, sort)
    });
    std::iter::once(of_id).chain(of_indexes).filter(Candidate::is_of_use).max_by_key(Candidate::rank)
}

impl Plan<'_> {
    /// What it does, in MongoDB's words, with nothing counted yet.
    pub(super) fn explain(&self) -> Explanation {
        let (stage, mut names, ranges) = match &self.access {
            AccessPath::Scan => ("COLLSCAN", Vec::new(), 0),
            AccessPath::Point(Source::Id, _) => ("IDHACK", vec![Source::Id.name()], 1),
            AccessPath::Point(source, _) => ("IXSCAN", vec![source.name()], 1),
            AccessPath::Ranges(places) if places.is_empty() => ("EOF", Vec::new(), 0),
            AccessPath::Ranges(places) => {
                let names = places.iter().map(|(source, _)| source.name()).collect();
                ("IXSCAN", names, places.iter().map(|(_, ranges)| ranges.len()).sum())
            }
            AccessPath::Ordered { source, range, .. } => ("IXSCAN", vec![source.name()], usize::from(range.is_some())),
        };
        names.dedup();
        let index = (!names.is_empty()).then(|| names.join(", "));
        Explanation { stage, index, sorted_by_index: self.is_sorted, ranges, ..Explanation::default() }
    }
}

fn candidate<'c>(
    source: Source<'c>,
    keys: &KeyPattern,
    is_unique: bool,
    is_multikey: bool,
    shape: QueryShape<'_>,
    sort: Option<&Sort>,
) -> Candidate<'c> {
    let bounds = keys.bounds(shape.filter, is_multikey);
    let one_range = bounds.as_ref().is_none_or(|bounds| bounds.ranges.len() == 1);
    let equalities = bounds.as_ref().map_or(0, |bounds| bounds.equalities);
    // Under several keys a document has several places in the order.
    let order = sort.filter(|_| !is_multikey && one_range).and_then(|sort| keys.sorts(sort, equalities));
    // All documents by an index, one by one, are worth it only where few of them are wanted.
    let order = order.filter(|_| bounds.is_some() || shape.limit.is_some());
    Candidate { source, bounds, fields: keys.fields().len(), is_unique, order }
}

impl<'c> Candidate<'c> {
    fn is_of_use(&self) -> bool {
        self.bounds.is_some() || self.order.is_some()
    }

    /// One document at most.
    fn is_one(&self) -> bool {
        self.is_unique && self.equalities() == self.fields
    }

    fn equalities(&self) -> usize {
        self.bounds.as_ref().map_or(0, |bounds| bounds.equalities)
    }

    /// Whether what the guard asks for makes it better than the query's own: that may be rare, or give the first few of an order, where
    /// what the guard asks for is common.
    fn gains_on(&self, own: &Self) -> bool {
        self.bounded() > own.bounded() && (self.order.is_some() || own.order.is_none())
    }

    fn bounded(&self) -> usize {
        self.bounds.as_ref().map_or(0, |bounds| bounds.bounded)
    }

    /// What finds the least documents; of equals what spares a sort, and then what has fewer fields.
    fn rank(&self) -> impl Ord + use<> {
        let finds_nothing = self.bounds.as_ref().is_some_and(|bounds| bounds.ranges.is_empty());
        (
            finds_nothing,
            self.is_one(),
            self.equalities(),
            self.bounded(),
            self.order.is_some(),
            std::cmp::Reverse(self.fields),
        )
    }

    /// Where all is that it finds, whatever the order.
    fn place(self) -> Option<(Source<'c>, Vec<KeyRange>)> {
        self.bounds.map(|bounds| (self.source, bounds.ranges))
    }

    fn plan(self) -> Plan<'c> {
        let Self { source, bounds, fields, order, .. } = self;
        let is_point = bounds.as_ref().is_some_and(|bounds| bounds.equalities == fields);
        let access = match (bounds, order) {
            (Some(Bounds { mut ranges, .. }), _) if is_point && ranges.len() == 1 => {
                AccessPath::Point(source, ranges.remove(0).0)
            }
            (bounds, Some(backwards)) => {
                let range = bounds.and_then(|bounds| bounds.ranges.into_iter().next());
                AccessPath::Ordered { source, range, backwards }
            }
            (Some(bounds), None) => AccessPath::Ranges(vec![(source, bounds.ranges)]),
            (None, None) => AccessPath::Scan,
        };
        let is_sorted = matches!(access, AccessPath::Ordered { .. });
        Plan { access, is_sorted }
    }
}

impl Source<'_> {
    /// The name of its index.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Id => "_id_",
            Self::Index(held) => &held.index.name,
        }
    }
}
