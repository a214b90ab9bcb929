//! Projections: which fields of a document an answer carries.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Filter, Path, Predicate, Result, Variables,
    aggregate::set_in,
    document::{elements, items, truthy},
    expression::Expression,
    filter::PathFilter,
};

/// A parsed projection: only some fields, or all but some; parts of arrays, and computed fields.
#[derive(Debug, Clone)]
pub struct Projection {
    including: bool,
    root: Branch,
    with_id: bool,
    parts: Vec<(Path, Part)>,
    computed: Vec<(Path, Expression)>,
    source: RawDocumentBuf,
}

/// Which items stay of an array.
#[derive(Debug, Clone)]
enum Part {
    /// So many from a place (`$slice`), counted from the end where it is negative.
    Slice { skip: Option<i64>, limit: i64 },
    /// The first that matches (`$elemMatch`).
    ElemMatch(Predicate),
    /// The one by which the document matched (`$`).
    Positional,
}

#[derive(Debug, Clone, Default)]
struct Branch {
    fields: Vec<(String, Option<Branch>)>,
}

/// What a projection says of a path.
enum Leaf {
    Flag(bool),
    Part(Part),
    Computed(Expression),
}

impl Projection {
    /// Parses `{ path: 0 | 1, … }`, where a nested document is the same as a dotted path.
    ///
    /// # Errors
    /// `MixedProjection` for inclusion and exclusion in one (but for `_id`), `ProjectionPathCollision` for a path
    /// within another, the server's own for operators that are not of their form.
    pub fn parse(projection: &RawDocument) -> Result<Self> {
        let mut leaves = Vec::new();
        flatten(projection, "", &mut leaves)?;
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
            parts: Vec::new(),
            computed: Vec::new(),
            source: projection.to_owned(),
        };
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
                    parsed.parts.push((path, part));
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
                    parsed.computed.push((path, expression));
                }
            }
        }
        Ok(parsed)
    }

    /// What it was parsed from.
    pub fn to_document(&self) -> &RawDocument {
        &self.source
    }

    /// Whether it keeps of an array the item by which the document matched (`$`), which depends on the whole filter.
    pub fn is_positional(&self) -> bool {
        self.parts.iter().any(|(_, part)| matches!(part, Part::Positional))
    }

    /// Names each operator of a filter or an expression in it.
    pub fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        for (_, part) in &self.parts {
            if let Part::ElemMatch(Predicate::ElemMatch(filter) | Predicate::ElemMatchValue(filter, _)) = part {
                filter.operators(visit);
            }
        }
        self.computed.iter().for_each(|(_, expression)| expression.operators(visit));
    }

    /// Puts in what the variables of its expressions stand for.
    ///
    /// # Errors
    /// 17276 where one is not among them.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.computed.iter_mut().try_for_each(|(_, expression)| expression.bind(variables))
    }

    /// Whether it can be of what a filter matches.
    ///
    /// # Errors
    /// `QueryFeatureNotAllowed` where an expression matched what a positional projection needs the place of.
    pub fn check_filter(&self, filter: &Filter) -> Result<()> {
        match self.is_positional() {
            true => filter.refuse(&["$expr"], "the query predicate used with the positional operator"),
            false => Ok(()),
        }
    }

    /// The projection that keeps paths, and `_id` if it is told so.
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
        Ok(Self { including: true, root, with_id, parts: Vec::new(), computed: Vec::new(), source })
    }

    /// What is asked for of a document that `filter` matched.
    ///
    /// # Errors
    /// Where a computed field cannot be computed, or the filter led through no array for `$`.
    pub fn apply(&self, document: &RawDocument, filter: &Filter) -> Result<RawDocumentBuf> {
        if self.parts.is_empty() && self.computed.is_empty() {
            return Ok(self.keep(document));
        }
        let mut current = document.to_owned();
        for (path, part) in &self.parts {
            let position = match part {
                Part::Positional => filter.position(document).flatten(),
                _ => None,
            };
            current = part.take(&current, path.parts(), position)?;
        }
        let mut projected = self.keep(&current);
        for (path, expression) in &self.computed {
            projected = set_in(&projected, path.parts(), expression.evaluate(document)?.as_ref());
        }
        Ok(projected)
    }

    /// The document with only the fields that are asked for.
    pub(crate) fn keep(&self, document: &RawDocument) -> RawDocumentBuf {
        let mut projected = RawDocumentBuf::new();
        for (name, value) in elements(document) {
            if name == "_id" && !self.root.fields.iter().any(|(field, _)| field == "_id") {
                if self.with_id {
                    crate::append(&mut projected, name, value);
                }
                continue;
            }
            self.project_field(&self.root, name, value, &mut projected);
        }
        projected
    }

    fn project_field(&self, branch: &Branch, name: &str, value: RawBsonRef<'_>, projected: &mut RawDocumentBuf) {
        match branch.fields.iter().find(|(field, _)| field == name) {
            None if self.including => {}
            None => crate::append(projected, name, value),
            Some((_, None)) if self.including => crate::append(projected, name, value),
            Some((_, None)) => {}
            Some((_, Some(inner))) => match value {
                RawBsonRef::Document(document) => {
                    crate::append(projected, name, &self.project_document(inner, document))
                }
                RawBsonRef::Array(array) => crate::append(projected, name, &self.project_array(inner, array)),
                // There is nothing below a value that has no fields.
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

impl Part {
    /// The document with only the part of the array at a path.
    fn take(&self, document: &RawDocument, parts: &[String], position: Option<usize>) -> Result<RawDocumentBuf> {
        let Some((first, rest)) = parts.split_first() else { return Ok(document.to_owned()) };
        let mut taken = RawDocumentBuf::new();
        for (name, value) in elements(document) {
            if name != first {
                crate::append(&mut taken, name, value);
            } else if let Some(value) = self.take_from(value, rest, position)? {
                crate::append(&mut taken, name, &value);
            }
        }
        Ok(taken)
    }

    fn take_from(&self, value: RawBsonRef<'_>, rest: &[String], position: Option<usize>) -> Result<Option<RawBson>> {
        Ok(match value {
            RawBsonRef::Array(array) if rest.is_empty() || matches!(self, Self::Positional) => {
                self.of_array(array, position)?.map(RawBson::Array)
            }
            RawBsonRef::Array(array) => {
                let mut mapped = RawArrayBuf::new();
                for item in items(array) {
                    if let Some(item) = self.take_from(item, rest, position)? {
                        mapped.push(item);
                    }
                }
                Some(RawBson::Array(mapped))
            }
            RawBsonRef::Document(inner) if !rest.is_empty() => {
                Some(RawBson::Document(self.take(inner, rest, position)?))
            }
            // Only an array has an item that matches.
            _ if matches!(self, Self::ElemMatch(_)) => None,
            value => Some(value.into()),
        })
    }

    fn of_array(&self, array: &bson::raw::RawArray, position: Option<usize>) -> Result<Option<RawArrayBuf>> {
        let all: Vec<RawBsonRef<'_>> = items(array).collect();
        let (from, count) = match self {
            Self::Slice { skip, limit } => {
                let length = all.len() as i64;
                match skip {
                    None if *limit < 0 => ((length + limit).max(0), length),
                    None => (0, *limit),
                    Some(skip) if *skip < 0 => ((length + skip).max(0), *limit),
                    Some(skip) => (*skip, *limit),
                }
            }
            Self::ElemMatch(predicate) => {
                let mut found = None;
                predicate.matches_within(Some(RawBsonRef::Array(array)), &mut found);
                let Some(found) = found else { return Ok(None) };
                (found as i64, 1)
            }
            Self::Positional => {
                let failed = |code, why: &str| {
                    let message =
                        format!("Executor error during find command :: caused by :: positional operator '.$' {why}");
                    Error::location(code, message)
                };
                match position {
                    None => return Err(failed(51246, "couldn't find a matching element in the array")),
                    Some(position) if position >= all.len() => return Err(failed(51247, "element mismatch")),
                    Some(position) => (position as i64, 1),
                }
            }
        };
        let mut taken = RawArrayBuf::new();
        let place = |number: i64| usize::try_from(number).unwrap_or(0);
        all.into_iter().skip(place(from)).take(place(count)).for_each(|item| taken.push(item));
        Ok(Some(taken))
    }
}

/// Checks what may not stand beside a positional part. What the server says depends on which comes first.
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

/// Checks that no path leads through another, nor is one twice.
fn check_collisions<'p>(paths: impl Iterator<Item = &'p Path>) -> Result<()> {
    let mut seen: Vec<&Path> = Vec::new();
    for path in paths {
        for other in &seen {
            if other.starts_with(path) {
                return Err(collision(ErrorCode::ProjectionParentCollision, path.as_str()));
            }
            if path.starts_with(other) {
                return Err(collision(ErrorCode::ProjectionPathCollision, path.as_str()));
            }
        }
        seen.push(path);
    }
    Ok(())
}

fn collision(code: ErrorCode, path: &str) -> Error {
    Error::new(code, format!("Path collision at {path}"))
}

impl Branch {
    fn insert(&mut self, parts: &[String]) {
        let Some((first, rest)) = parts.split_first() else { return };
        let place = self.fields.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
            self.fields.push((first.clone(), None));
            self.fields.len() - 1
        });
        if !rest.is_empty() {
            self.fields[place].1.get_or_insert_default().insert(rest);
        }
    }
}

fn flatten(projection: &RawDocument, prefix: &str, leaves: &mut Vec<(Path, Leaf)>) -> Result<()> {
    for (name, value) in elements(projection) {
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
            leaves.push((projected_path(array)?, Leaf::Part(Part::Positional)));
            continue;
        }
        match value {
            RawBsonRef::Document(inner) => match elements(inner).next() {
                None => {
                    let message =
                        format!("An empty sub-projection is not a valid value. Found empty object at path '{text}'");
                    return Err(Error::location(51270, message));
                }
                Some((operator, operand)) if operator.starts_with('$') => {
                    leaves.push((projected_path(&text)?, operated(&text, inner, operator, operand)?));
                }
                Some(_) => {
                    let path = Path::new(&text);
                    if leaves.iter().any(|(other, _)| other.starts_with(&path)) {
                        return Err(collision(ErrorCode::ProjectionParentCollision, &text));
                    }
                    flatten(inner, &format!("{text}."), leaves)?;
                }
            },
            RawBsonRef::Boolean(_)
            | RawBsonRef::Int32(_)
            | RawBsonRef::Int64(_)
            | RawBsonRef::Double(_)
            | RawBsonRef::Decimal128(_) => leaves.push((projected_path(&text)?, Leaf::Flag(truthy(value)))),
            value => leaves.push((projected_path(&text)?, Leaf::Computed(Expression::parse(value)?))),
        }
    }
    Ok(())
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
            // With an array of its own for the first operand it is the expression of the same name.
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
                return Err(Error::location(16410, "$elemMatch in a projection takes no other fields beside it"));
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

/// A number of items: what is none is nought, and what is beyond all is all.
fn number(value: RawBsonRef<'_>) -> Option<i64> {
    let number = crate::Number::of(value)?;
    if number.is_nan() {
        return Some(0);
    }
    let most = i64::from(i32::MAX);
    Some(number.truncated().unwrap_or(if number.to_f64() > 0.0 { most } else { -most }).clamp(-most, most))
}

/// How many items, and from where.
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
    fn refuses_what_it_cannot_do() {
        let code = |projection: RawDocumentBuf| Projection::parse(&projection).unwrap_err().code;
        assert_eq!(code(rawdoc! { "a": 1, "b": 0 }), ErrorCode::MixedProjection);
        assert_eq!(code(rawdoc! { "a": 1, "a.b": 1 }), ErrorCode::ProjectionPathCollision);
        assert_eq!(code(rawdoc! { "a": { "$meta": "textScore" } }), ErrorCode::CommandNotSupported);
        assert_eq!(code(rawdoc! { "a.$": 1, "b.$": 1 }), ErrorCode::Location(31276));
        assert_eq!(code(rawdoc! { "a": { "$slice": "x" } }), ErrorCode::Location(28667));
    }
}
