//! The query planner: chooses how to find the documents that a filter can match.

use query::{Bounds, Filter, KeyPattern, KeyRange, Path, Sort};

use super::catalog::{Collection, HeldIndex};
use crate::{Explanation, Guard};

/// A plan that finds every document that a filter can match, and perhaps more.
pub(super) struct Plan<'c> {
    pub(super) access: AccessPath<'c>,
    /// True if the documents come in the requested order instead of the order of insertion.
    pub(super) is_sorted: bool,
}

pub(super) enum AccessPath<'c> {
    /// All documents.
    Scan,
    /// The documents with one key.
    Point(Source<'c>, Vec<u8>),
    /// The documents with keys in one of the ranges.
    Ranges(Vec<(Source<'c>, Vec<KeyRange>)>),
    /// The documents with keys in a range, or with any key, in the order of the keys.
    Ordered { source: Source<'c>, range: Option<KeyRange>, backwards: bool },
}

/// The source of keys.
#[derive(Clone, Copy)]
pub(super) enum Source<'c> {
    /// The `_id`s, which are in the table of the documents.
    Id,
    Index(&'c HeldIndex),
}

/// The parts of a query that decide its plan.
#[derive(Clone, Copy)]
pub(super) struct QueryShape<'q> {
    pub(super) filter: &'q Filter,
    /// The guard; only documents that it allows to see are needed.
    pub(super) guard: Option<&'q dyn Guard>,
    pub(super) sort: Option<&'q Sort>,
    pub(super) limit: Option<usize>,
    /// True to treat every index as multikey, because it may have become so since the catalog was
    /// read.
    pub(super) all_multikey: bool,
}

/// A candidate plan over one source, with the properties that rank it.
struct Candidate<'c> {
    source: Source<'c>,
    bounds: Option<Bounds>,
    fields: usize,
    is_unique: bool,
    /// If the source provides the requested order, whether it must be read backwards.
    order: Option<bool>,
}

/// The best candidates for a filter.
struct CandidatePlans<'c> {
    /// The best plan over one index.
    by_one: Option<Candidate<'c>>,
    /// Ranges in several indexes, if no single index has bounds for the filter: one entry for each
    /// branch of an `$or`, if every branch has an index.
    places: Option<Vec<(Source<'c>, Vec<KeyRange>)>>,
}

impl<'c> Plan<'c> {
    /// Chooses the best plan for the documents that the filter matches and the guard allows to
    /// see.
    pub(super) fn choose(shape: QueryShape<'_>, collection: &'c Collection) -> Self {
        // An equality on `_id`, the most frequent query, needs no comparison of plans.
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
        // A plan with bounds beats one that only provides the order.
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

    /// True if the filter of the guard cannot improve the plan: it finds at most one document, or
    /// uses the branches of an `$or`.
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

/// Returns the branches of each `$or` that every document must satisfy.
fn alternatives(filter: &Filter) -> impl Iterator<Item = &[Filter]> {
    let all = if let Filter::And(filters) = filter { &filters[..] } else { std::slice::from_ref(filter) };
    all.iter().filter_map(|filter| if let Filter::Or(filters) = filter { Some(&filters[..]) } else { None })
}

/// Returns the best candidate over one source.
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
    /// Returns the plan in MongoDB's terms, with all counters at zero.
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
    // A multikey index has several keys for one document, so it provides no order.
    let order = sort.filter(|_| !is_multikey && one_range).and_then(|sort| keys.sorts(sort, equalities));
    // Reading all documents in the order of an index pays off only if few of them are needed.
    let order = order.filter(|_| bounds.is_some() || shape.limit.is_some());
    Candidate { source, bounds, fields: keys.fields().len(), is_unique, order }
}

impl<'c> Candidate<'c> {
    fn is_of_use(&self) -> bool {
        self.bounds.is_some() || self.order.is_some()
    }

    /// True if the candidate finds at most one document.
    fn is_one(&self) -> bool {
        self.is_unique && self.equalities() == self.fields
    }

    fn equalities(&self) -> usize {
        self.bounds.as_ref().map_or(0, |bounds| bounds.equalities)
    }

    /// True if the filter of the guard makes this candidate better than the query's own. The
    /// query's own condition may be rare, or provide the first few documents of an order, while
    /// the guard's condition is common.
    fn gains_on(&self, own: &Self) -> bool {
        self.bounded() > own.bounded() && (self.order.is_some() || own.order.is_none())
    }

    fn bounded(&self) -> usize {
        self.bounds.as_ref().map_or(0, |bounds| bounds.bounded)
    }

    /// Ranks candidates: the fewest documents first, then no sort, then the fewest fields.
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

    /// Returns the ranges of the candidate, whatever the order.
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
    /// Returns the name of the index.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Id => "_id_",
            Self::Index(held) => &held.index.name,
        }
    }
}
