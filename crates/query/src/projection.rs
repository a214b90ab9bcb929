//! Projections
//! (<https://www.mongodb.com/docs/manual/tutorial/project-fields-from-query-results/>): they
//! select the fields of the returned documents.

mod parts;

use bson::raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{
    Error, ErrorCode, Filter, Path, Predicate, Result, Variables,
    aggregate::Computed,
    budget::{self, Held},
    document::{elements, items, truthy},
    expression::Expression,
    filter::PathFilter,
    names::Names,
    path_tree::{Collision, PathTree},
};
use parts::{Part, Parts};

/// A parsed projection. It includes some fields or excludes some, selects items of arrays, and
/// adds computed fields.
///
/// ```
/// use bson::rawdoc;
/// use query::{Filter, Projection};
///
/// let projection = Projection::parse(&rawdoc! { "a.b": 1, "_id": 0 }).unwrap();
/// let document = rawdoc! { "_id": 1, "a": { "b": 2, "c": 3 } };
/// let projected = projection.apply(&document, &Filter::all()).unwrap();
/// assert_eq!(projected, rawdoc! { "a": { "b": 2 } });
/// ```
#[derive(Debug, Clone)]
pub struct Projection {
    including: bool,
    root: Branch,
    with_id: bool,
    parts: Parts,
    computed: Computed,
    source: RawDocumentBuf,
}

#[derive(Debug, Clone, Default)]
struct Branch {
    fields: Names<Option<Branch>>,
}

/// The operand of a path in a projection.
enum Leaf {
    Flag(bool),
    Part(Part),
    Computed(Expression),
}

impl Projection {
    /// Parses a projection document `{ path: 0 | 1 | operator | expression, … }`. A nested
    /// document means the same as dotted paths.
    ///
    /// # Errors
    /// `MixedProjection` (31254) or 31253 if inclusion and exclusion are mixed (except for `_id`);
    /// `ProjectionPathCollision` (31249) or `ProjectionParentCollision` (31250) if one path leads
    /// through another; the server's own for malformed operators.
    pub fn parse(projection: &RawDocument) -> Result<Self> {
        let mut flattened = Flattened { leaves: Vec::new(), paths: PathTree::default(), held: budget::hold(0)? };
        flattened.add(projection, "")?;
        let leaves = flattened.leaves;
        let flag = |leaf: &Leaf| match leaf {
            Leaf::Flag(flag) => Some(*flag),
            Leaf::Part(Part::ElemMatch(_) | Part::Positional) | Leaf::Computed(_) => Some(true),
            Leaf::Part(Part::Slice { .. }) => None,
        };
        let id = leaves.iter().find(|(path, _)| path.as_str() == "_id").and_then(|(_, leaf)| match leaf {
            Leaf::Flag(flag) => Some(*flag),
            _ => None,
        });
        let others = || leaves.iter().filter(|(path, _)| path.as_str() != "_id");
        let plain = |leaf: &Leaf| if let Leaf::Flag(flag) = leaf { Some(*flag) } else { None };
        let said = others().find_map(|(_, leaf)| plain(leaf)).or_else(|| others().find_map(|(_, leaf)| flag(leaf)));
        let including = said.unwrap_or(id.unwrap_or(false));
        let mut parsed = Self {
            including,
            root: Branch::default(),
            with_id: id.unwrap_or(true),
            parts: Parts::default(),
            computed: Computed::new(Vec::new())?,
            source: projection.to_owned(),
        };
        let mut computed = Vec::new();
        check_positional(&leaves)?;
        check_collisions(leaves.iter().map(|(path, _)| path))?;
        for (path, leaf) in leaves {
            let is_id = path.as_str() == "_id";
            match leaf {
                Leaf::Flag(_) if is_id => continue,
                Leaf::Flag(flag) if flag != including => {
                    let (doing, other) =
                        if including { ("exclusion", "inclusion") } else { ("inclusion", "exclusion") };
                    let code = if including { ErrorCode::MixedProjection } else { ErrorCode::Location(31253) };
                    let message = format!("Cannot do {doing} on field {} in {other} projection", path.as_str());
                    return Err(Error::new(code, message));
                }
                Leaf::Flag(_) => parsed.root.insert(path.parts()),
                Leaf::Part(part) => {
                    if matches!(part, Part::Positional) && !including {
                        let message = "positional projection cannot be used with exclusion";
                        return Err(Error::new(ErrorCode::MixedProjection, message));
                    }
                    if including {
                        parsed.root.insert(path.parts());
                    }
                    parsed.parts.insert(path, part);
                }
                Leaf::Computed(_) if !including => {
                    let message =
                        format!("Cannot use an expression on field {} in exclusion projection", path.as_str());
                    return Err(Error::location(31252, message));
                }
                Leaf::Computed(expression) => {
                    if is_id {
                        parsed.with_id = false;
                    }
                    computed.push((path, expression));
                }
            }
        }
        parsed.computed = Computed::new(computed)?;
        budget::charge(1)?;
        Ok(parsed)
    }

    /// Returns the document that the projection was parsed from.
    pub fn to_document(&self) -> &RawDocument {
        &self.source
    }

    /// True if the projection keeps the array item by which the document matched (`$`). It then
    /// needs the whole filter of the query.
    pub fn is_positional(&self) -> bool {
        self.parts.is_positional()
    }

    /// Calls `visit` with the name of each operator in the projection's filters and expressions.
    pub fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        self.parts.operators(visit);
        self.computed.expressions().for_each(|expression| expression.operators(visit));
    }

    /// Replaces the variables in the projection's expressions by their values.
    ///
    /// # Errors
    /// 17276 if an expression uses an undefined variable.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.computed.bind(variables)
    }

    /// Checks that the projection can be combined with a filter.
    ///
    /// # Errors
    /// `QueryFeatureNotAllowed` (224) if the projection is positional and the filter contains
    /// `$expr`, which has no matching position.
    pub fn check_filter(&self, filter: &Filter) -> Result<()> {
        match self.is_positional() {
            true => filter.refuse(&["$expr"], "the query predicate used with the positional operator"),
            false => Ok(()),
        }
    }

    /// Creates the projection that keeps the given paths, and `_id` if `with_id`.
    pub(crate) fn including<'p>(paths: impl IntoIterator<Item = &'p Path>, with_id: bool) -> Result<Self> {
        let mut root = Branch::default();
        let paths: Vec<&Path> = paths.into_iter().collect();
        check_collisions(paths.iter().copied())?;
        let mut source = RawDocumentBuf::new();
        for path in paths {
            root.insert(path.parts());
            crate::append(&mut source, path.as_str(), true);
        }
        crate::append(&mut source, "_id", with_id);
        Ok(Self {
            including: true,
            root,
            with_id,
            parts: Parts::default(),
            computed: Computed::new(Vec::new())?,
            source,
        })
    }

    /// Applies the projection to a document that `filter` matched.
    ///
    /// # Errors
    /// Fails if an expression cannot be evaluated, or with 51246 if the projection has `$` and the
    /// filter led through no array.
    pub fn apply(&self, document: &RawDocument, filter: &Filter) -> Result<RawDocumentBuf> {
        let projected = match self.parts.is_empty() {
            true => self.keep(document),
            false => self.keep(&self.parts.take(document, filter)?),
        };
        budget::charge(1)?;
        if self.computed.is_empty() { Ok(projected) } else { self.computed.set(&projected, document) }
    }

    /// Returns the document with only the selected fields, without computed ones. The caller
    /// checks the budget, as for [`Filter::matches`].
    pub(crate) fn keep(&self, document: &RawDocument) -> RawDocumentBuf {
        let mut projected = RawDocumentBuf::new();
        for (name, value) in elements(document) {
            if name == "_id" && self.root.fields.place("_id").is_none() {
                if self.with_id {
                    crate::append(&mut projected, name, value);
                }
                continue;
            }
            self.project_field(&self.root, name, value, &mut projected);
        }
        budget::spend_bytes(document.as_bytes().len());
        projected
    }

    fn project_field(&self, branch: &Branch, name: &str, value: RawBsonRef<'_>, projected: &mut RawDocumentBuf) {
        match branch.fields.get(name) {
            None if self.including => {}
            None => crate::append(projected, name, value),
            Some(None) if self.including => crate::append(projected, name, value),
            Some(None) => {}
            Some(Some(inner)) => match value {
                RawBsonRef::Document(document) => {
                    crate::append(projected, name, &self.project_document(inner, document));
                }
                RawBsonRef::Array(array) => crate::append(projected, name, &self.project_array(inner, array)),
                // A path below a value without fields reaches nothing.
                _ if self.including => {}
                _ => crate::append(projected, name, value),
            },
        }
    }

    fn project_document(&self, branch: &Branch, document: &RawDocument) -> RawDocumentBuf {
        let mut projected = RawDocumentBuf::new();
        for (name, value) in elements(document) {
            self.project_field(branch, name, value, &mut projected);
        }
        projected
    }

    fn project_array(&self, branch: &Branch, array: &bson::raw::RawArray) -> RawArrayBuf {
        let mut projected = RawArrayBuf::new();
        for item in items(array) {
            match item {
                RawBsonRef::Document(document) => projected.push(self.project_document(branch, document)),
                RawBsonRef::Array(inner) => projected.push(self.project_array(branch, inner)),
                _ if self.including => {}
                item => projected.push(item),
            }
        }
        projected
    }
}

/// Checks what cannot be combined with a positional part. The server's error depends on the order.
fn check_positional(leaves: &[(Path, Leaf)]) -> Result<()> {
    let is_positional = |leaf: &Leaf| matches!(leaf, Leaf::Part(Part::Positional));
    let Some(first) = leaves.iter().position(|(_, leaf)| is_positional(leaf)) else { return Ok(()) };
    for (place, (path, leaf)) in leaves.iter().enumerate().filter(|(place, _)| *place != first) {
        let Leaf::Part(part) = leaf else { continue };
        let same = path == &leaves[first].0;
        let wrong = |code: i32, message: &str| Err(Error::location(code, message));
        match part {
            Part::Positional => return wrong(31276, "Cannot specify more than one positional projection per query."),
            Part::ElemMatch(_) if place > first => {
                return wrong(31255, "Cannot specify $elemMatch after a positional operator.");
            }
            Part::ElemMatch(_) => return wrong(31256, "Cannot specify positional operator and $elemMatch."),
            Part::Slice { .. } if same && place > first => {
                return wrong(28667, "Cannot specify $slice after a positional operator.");
            }
            Part::Slice { .. } if same => return Err(collision(ErrorCode::ProjectionParentCollision, path.as_str())),
            Part::Slice { .. } => {}
        }
    }
    Ok(())
}

/// Checks that no path occurs twice or leads through another.
fn check_collisions<'p>(paths: impl Iterator<Item = &'p Path>) -> Result<()> {
    let mut seen = PathTree::default();
    for path in paths {
        match seen.insert(path.parts())? {
            None => {}
            Some(Collision::Through(_)) => return Err(collision(ErrorCode::ProjectionPathCollision, path.as_str())),
            Some(_) => return Err(collision(ErrorCode::ProjectionParentCollision, path.as_str())),
        }
    }
    Ok(())
}

fn collision(code: ErrorCode, path: &str) -> Error {
    Error::new(code, format!("Path collision at {path}"))
}

impl Branch {
    fn insert(&mut self, parts: &[String]) {
        let Some((first, rest)) = parts.split_first() else { return };
        let below = self.fields.get_or_insert_with(first, || None);
        if !rest.is_empty() {
            below.get_or_insert_default().insert(rest);
        }
    }
}

/// A projection flattened to paths, while it is parsed.
struct Flattened {
    leaves: Vec<(Path, Leaf)>,
    /// The paths of `leaves`.
    paths: PathTree,
    /// Reserves the bytes of the repeated path prefixes.
    held: Held,
}

impl Flattened {
    fn push(&mut self, path: Path, leaf: Leaf) -> Result<()> {
        self.paths.note(path.parts())?;
        self.leaves.push((path, leaf));
        Ok(())
    }

    fn add(&mut self, projection: &RawDocument, prefix: &str) -> Result<()> {
        for (name, value) in elements(projection) {
            budget::charge(1)?;
            budget::charge_bytes(prefix.len())?;
            self.held.grow(prefix.len())?;
            let text = format!("{prefix}{name}");
            if let Some(array) = text.strip_suffix(".$") {
                match value {
                    RawBsonRef::Document(_) => {
                        return Err(Error::location(31271, "positional projection cannot be used with an expression"));
                    }
                    value if !matches!(value, RawBsonRef::Boolean(_)) && crate::Number::of(value).is_none() => {
                        return Err(Error::location(31308, "positional projection cannot be used with a literal"));
                    }
                    value if !truthy(value) => {
                        return Err(Error::location(31395, "positional projection cannot be used with exclusion"));
                    }
                    _ => {}
                }
                self.push(projected_path(array)?, Leaf::Part(Part::Positional))?;
                continue;
            }
            match value {
                RawBsonRef::Document(inner) => match elements(inner).next() {
                    None => {
                        let message = format!(
                            "An empty sub-projection is not a valid value. Found empty object at path '{text}'"
                        );
                        return Err(Error::location(51270, message));
                    }
                    Some((operator, operand)) if operator.starts_with('$') => {
                        self.push(projected_path(&text)?, operated(&text, inner, operator, operand)?)?;
                    }
                    Some(_) => {
                        let path = Path::new(&text);
                        if self.paths.leads_to(path.parts()) {
                            return Err(collision(ErrorCode::ProjectionParentCollision, &text));
                        }
                        self.add(inner, &format!("{text}."))?;
                    }
                },
                RawBsonRef::Boolean(_)
                | RawBsonRef::Int32(_)
                | RawBsonRef::Int64(_)
                | RawBsonRef::Double(_)
                | RawBsonRef::Decimal128(_) => self.push(projected_path(&text)?, Leaf::Flag(truthy(value)))?,
                value => self.push(projected_path(&text)?, Leaf::Computed(Expression::parse(value)?))?,
            }
        }
        Ok(())
    }
}

fn projected_path(text: &str) -> Result<Path> {
    if text.split('.').skip(1).any(|part| part == "$") {
        let message = format!("As of 4.4, it's illegal to specify positional operator in the middle of a path: {text}");
        return Err(Error::location(31394, message));
    }
    Path::of_fields(text)
}

fn operated(path: &str, whole: &RawDocument, operator: &str, operand: RawBsonRef<'_>) -> Result<Leaf> {
    match operator {
        "$slice" => match operand {
            // With an array as the first operand, `$slice` is the expression of the same name.
            RawBsonRef::Array(array) => match items(array).collect::<Vec<_>>()[..] {
                [skip, limit] if number(skip).is_some() && number(limit).is_some() => slice(Some(skip), limit),
                [skip, ..] if number(skip).is_some() && items(array).nth(1).is_some() => {
                    Err(Error::location(28724, "First argument to $slice must be an array"))
                }
                _ => Expression::parse(RawBsonRef::Document(whole)).map(Leaf::Computed),
            },
            operand if number(operand).is_some() => slice(None, operand),
            _ => Expression::parse(RawBsonRef::Document(whole)).map(Leaf::Computed),
        },
        "$elemMatch" => {
            if path.contains('.') {
                return Err(Error::location(31275, "Cannot use $elemMatch projection on a nested field."));
            }
            if elements(whole).count() != 1 {
                return Err(Error::location(16410, "$elemMatch in a projection must be the only field of its object"));
            }
            let RawBsonRef::Document(_) = operand else {
                return Err(Error::location(31274, "elemMatch: Invalid argument, object required"));
            };
            let mut holder = RawDocumentBuf::new();
            crate::append(&mut holder, "v", whole);
            match Filter::parse(&holder)? {
                Filter::Path(PathFilter { predicate, .. }) => {
                    if let Predicate::ElemMatch(filter) = &predicate {
                        filter.refuse(&["$jsonSchema"], "an $elemMatch of a projection")?;
                    }
                    Ok(Leaf::Part(Part::ElemMatch(predicate)))
                }
                _ => Err(Error::location(31275, "$elemMatch in a projection takes one object")),
            }
        }
        "$meta" => Err(Error::unsupported(format_args!("$meta in the projection of '{path}'"))),
        _ => Expression::parse(RawBsonRef::Document(whole)).map(Leaf::Computed).map_err(|error| match error.code {
            ErrorCode::InvalidPipelineOperator => Error::location(31325, format!("Unknown expression {operator}")),
            _ => error,
        }),
    }
}

/// Returns a number of items: NaN counts as zero, and out-of-range numbers are clamped.
fn number(value: RawBsonRef<'_>) -> Option<i64> {
    let number = crate::Number::of(value)?;
    if number.is_nan() {
        return Some(0);
    }
    let most = i64::from(i32::MAX);
    Some(number.truncated().unwrap_or(if number.to_f64() > 0.0 { most } else { -most }).clamp(-most, most))
}

/// Parses the number of items to skip and to keep.
fn slice(skip: Option<RawBsonRef<'_>>, limit: RawBsonRef<'_>) -> Result<Leaf> {
    let (skip, limit) = (skip.and_then(number), number(limit).unwrap_or(0));
    if skip.is_some() && limit <= 0 {
        return Err(Error::location(28724, "$slice's limit must be positive"));
    }
    Ok(Leaf::Part(Part::Slice { skip, limit }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{Document, doc, rawdoc};

    use super::*;

    fn project(projection: RawDocumentBuf) -> Document {
        let document =
            rawdoc! { "_id": 1, "a": 1, "b": { "c": 2, "d": 3 }, "e": [ { "f": 1, "g": 2 }, 5, [ { "f": 3 } ] ] };
        Document::try_from(Projection::parse(&projection).unwrap().apply(&document, &Filter::all()).unwrap()).unwrap()
    }

    #[test]
    fn includes_and_excludes() {
        assert_eq!(project(rawdoc! { "a": 1 }), doc! { "_id": 1, "a": 1 });
        assert_eq!(project(rawdoc! { "a": true, "_id": 0 }), doc! { "a": 1 });
        assert_eq!(project(rawdoc! { "_id": 1 }), doc! { "_id": 1 });
        assert_eq!(
            project(rawdoc! { "_id": 0 }),
            doc! { "a": 1, "b": { "c": 2, "d": 3 }, "e": [ { "f": 1, "g": 2 }, 5, [ { "f": 3 } ] ] }
        );
        assert_eq!(
            project(rawdoc! { "b.c": 1, "e.f": 1, "_id": 0 }),
            doc! { "b": { "c": 2 }, "e": [ { "f": 1 }, [ { "f": 3 } ] ] }
        );
        assert_eq!(
            project(rawdoc! { "b": { "c": 0 }, "e.f": 0, "a": 0 }),
            doc! { "_id": 1, "b": { "d": 3 }, "e": [ { "g": 2 }, 5, [ {} ] ] }
        );
        assert_eq!(
            project(rawdoc! {}),
            doc! { "_id": 1, "a": 1, "b": { "c": 2, "d": 3 }, "e": [ { "f": 1, "g": 2 }, 5, [ { "f": 3 } ] ] }
        );
    }

    #[test]
    fn rejects_invalid_projections() {
        let code = |projection: RawDocumentBuf| Projection::parse(&projection).unwrap_err().code;
        assert_eq!(code(rawdoc! { "a": 1, "b": 0 }), ErrorCode::MixedProjection);
        assert_eq!(code(rawdoc! { "a": 1, "a.b": 1 }), ErrorCode::ProjectionPathCollision);
        assert_eq!(code(rawdoc! { "a": { "$meta": "textScore" } }), ErrorCode::CommandNotSupported);
        assert_eq!(code(rawdoc! { "a.$": 1, "b.$": 1 }), ErrorCode::Location(31276));
        assert_eq!(code(rawdoc! { "a": { "$slice": "x" } }), ErrorCode::Location(28667));
    }
}
