//! Projections: which fields of a document an answer carries.

use bson::raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{
    Error, ErrorCode, Path, Result,
    document::{elements, items, truthy, type_name},
};

/// A parsed projection: only some fields, or all but some.
#[derive(Debug, Clone)]
pub struct Projection {
    including: bool,
    root: Branch,
    with_id: bool,
}

#[derive(Debug, Clone, Default)]
struct Branch {
    fields: Vec<(String, Option<Branch>)>,
}

impl Projection {
    /// Parses `{ path: 0 | 1, … }`, where a nested document is the same as a dotted path.
    ///
    /// # Errors
    /// `MixedProjection` for inclusion and exclusion in one (but for `_id`), `ProjectionPathCollision` for a path
    /// within another, `CommandNotSupported` by name for computed fields and operators.
    pub fn parse(projection: &RawDocument) -> Result<Self> {
        let mut paths = Vec::new();
        flatten(projection, "", &mut paths)?;
        let id = paths.iter().find(|(name, _)| name == "_id").map(|(_, include)| *include);
        let including =
            paths.iter().find(|(name, _)| name != "_id").map_or(id.unwrap_or(false), |(_, include)| *include);
        let mut parsed = Self { including, root: Branch::default(), with_id: id.unwrap_or(true) };
        for (name, include) in paths.iter().filter(|(name, _)| name != "_id") {
            if *include != including {
                let (doing, other) = if including { ("exclusion", "inclusion") } else { ("inclusion", "exclusion") };
                return Err(Error::new(
                    ErrorCode::MixedProjection,
                    format!("Cannot do {doing} on field {name} in {other} projection"),
                ));
            }
            let path = Path::strict(name)?;
            if path.parts().iter().any(|part| part.starts_with('$')) {
                return Err(Error::unsupported(format_args!("the positional projection '{name}'")));
            }
            parsed.root.insert(path.parts(), name)?;
        }
        Ok(parsed)
    }

    /// The projection that keeps paths, and `_id` if it is told so.
    pub(crate) fn including<'p>(paths: impl IntoIterator<Item = &'p Path>, with_id: bool) -> Result<Self> {
        let mut root = Branch::default();
        paths.into_iter().try_for_each(|path| root.insert(path.parts(), path.as_str()))?;
        Ok(Self { including: true, root, with_id })
    }

    /// The document with only the fields that are asked for.
    pub fn apply(&self, document: &RawDocument) -> RawDocumentBuf {
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

impl Branch {
    fn insert(&mut self, parts: &[String], whole: &str) -> Result<()> {
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        let collision = |code| Error::new(code, format!("Path collision at {whole}"));
        match self.fields.iter_mut().find(|(name, _)| name == first) {
            Some((_, Some(branch))) if !rest.is_empty() => branch.insert(rest, whole),
            Some((_, Some(_))) => Err(collision(ErrorCode::ProjectionParentCollision)),
            Some((_, None)) => Err(collision(ErrorCode::ProjectionPathCollision)),
            None => {
                let mut branch = None;
                if !rest.is_empty() {
                    branch.insert(Branch::default()).insert(rest, whole)?;
                }
                self.fields.push((first.clone(), branch));
                Ok(())
            }
        }
    }
}

fn flatten(projection: &RawDocument, prefix: &str, paths: &mut Vec<(String, bool)>) -> Result<()> {
    for (name, value) in elements(projection) {
        let path = format!("{prefix}{name}");
        match value {
            RawBsonRef::Document(inner) => {
                if let Some((operator, _)) = elements(inner).next().filter(|(name, _)| name.starts_with('$')) {
                    return Err(Error::unsupported(format_args!("{operator} in the projection of '{path}'")));
                }
                if inner.is_empty() {
                    return Err(Error::new(
                        ErrorCode::FailedToParse,
                        format!("An empty sub-projection is not a valid value. Found empty object at path '{path}'"),
                    ));
                }
                flatten(inner, &format!("{path}."), paths)?;
            }
            RawBsonRef::Boolean(_)
            | RawBsonRef::Int32(_)
            | RawBsonRef::Int64(_)
            | RawBsonRef::Double(_)
            | RawBsonRef::Decimal128(_) => {
                paths.push((path, truthy(value)));
            }
            other => {
                return Err(Error::unsupported(format_args!(
                    "a computed field ({}) in the projection of '{path}'",
                    type_name(other)
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{Document, doc, rawdoc};

    use super::*;

    fn project(projection: RawDocumentBuf) -> Document {
        let document =
            rawdoc! { "_id": 1, "a": 1, "b": { "c": 2, "d": 3 }, "e": [ { "f": 1, "g": 2 }, 5, [ { "f": 3 } ] ] };
        Document::try_from(Projection::parse(&projection).unwrap().apply(&document)).unwrap()
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
        assert_eq!(code(rawdoc! { "a": { "$slice": 1 } }), ErrorCode::CommandNotSupported);
        assert_eq!(code(rawdoc! { "a": "$b" }), ErrorCode::CommandNotSupported);
        assert_eq!(code(rawdoc! { "a.$": 1 }), ErrorCode::CommandNotSupported);
    }
}
