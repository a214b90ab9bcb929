//! A document under change. Only what a path leads through is taken apart; everything else stays the bytes it was.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Path, Result,
    document::{array_index, elements, items},
};

/// How far beyond its end an array may be written to, as in the server.
const MAX_PADDING: usize = 1_500_000;

#[derive(Debug)]
pub(crate) struct Tree<'a> {
    root: Vec<(String, Node<'a>)>,
}

#[derive(Debug)]
pub(crate) enum Node<'a> {
    Kept(RawBsonRef<'a>),
    Value(RawBson),
    Document(Vec<(String, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

impl<'a> Tree<'a> {
    pub(crate) fn new(document: &'a RawDocument) -> Self {
        Self { root: open_document(document) }
    }

    /// The node at a path after taking apart what leads to it, or `None` where nothing is there.
    pub(crate) fn open(&mut self, path: &Path) -> Option<&mut Node<'a>> {
        let (first, rest) = path.parts().split_first()?;
        let mut node = &mut self.root.iter_mut().find(|(name, _)| name == first)?.1;
        for part in rest {
            node.take_apart();
            node = match node {
                Node::Document(fields) => &mut fields.iter_mut().find(|(name, _)| name == part)?.1,
                Node::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Puts a value at a path, making the documents that lead to it.
    pub(crate) fn set(&mut self, path: &Path, value: RawBson) -> Result<()> {
        let Some((first, rest)) = path.parts().split_first() else { return Ok(()) };
        let mut node = field(&mut self.root, first);
        let mut name = first.as_str();
        for part in rest {
            node.take_apart();
            // What was just made by `field` is null in an empty slot: it becomes a document on the way.
            node = match node {
                Node::Document(fields) => field(fields, part),
                Node::Array(items) => {
                    let index = array_index(part).ok_or_else(|| not_viable(part, name, &array_text(items)))?;
                    if index >= items.len() {
                        if index - items.len() > MAX_PADDING {
                            return Err(Error::new(
                                ErrorCode::BadValue,
                                format!("can't backfill more than {MAX_PADDING} elements"),
                            ));
                        }
                        items.resize_with(index, || Node::Kept(RawBsonRef::Null));
                        items.push(Node::made());
                    }
                    &mut items[index]
                }
                other => return Err(not_viable(part, name, &text(&other.to_value()))),
            };
            name = part;
        }
        *node = Node::Value(value);
        Ok(())
    }

    /// Takes the value at a path out; an item of an array becomes null.
    pub(crate) fn remove(&mut self, path: &Path) {
        let Some((last, parents)) = path.parts().split_last() else { return };
        if parents.is_empty() {
            self.root.retain(|(name, _)| name != last);
            return;
        }
        if let Some(parent) = self.open(&Path::new(&parents.join("."))) {
            parent.take_apart();
            match parent {
                Node::Document(fields) => fields.retain(|(name, _)| name != last),
                Node::Array(items) => {
                    if let Some(item) = array_index(last).and_then(|index| items.get_mut(index)) {
                        *item = Node::Kept(RawBsonRef::Null);
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn into_document(self) -> RawDocumentBuf {
        write_document(&self.root)
    }
}

impl Node<'_> {
    /// A place for a value that does not exist yet: an empty document until it is set.
    fn made() -> Self {
        Node::Document(Vec::new())
    }

    pub(crate) fn take_apart(&mut self) {
        let opened = match self {
            Node::Kept(RawBsonRef::Document(document)) => Node::Document(open_document(document)),
            Node::Kept(RawBsonRef::Array(array)) => Node::Array(items(array).map(Node::Kept).collect()),
            Node::Value(RawBson::Document(document)) => Node::Document(
                elements(document).map(|(name, value)| (name.to_owned(), Node::Value(value.into()))).collect(),
            ),
            Node::Value(RawBson::Array(array)) => {
                Node::Array(items(array).map(|item| Node::Value(item.into())).collect())
            }
            _ => return,
        };
        *self = opened;
    }

    pub(crate) fn to_value(&self) -> RawBson {
        match self {
            Node::Kept(value) => (*value).into(),
            Node::Value(value) => value.clone(),
            Node::Document(fields) => RawBson::Document(write_document(fields)),
            Node::Array(items) => RawBson::Array(write_array(items)),
        }
    }
}

fn open_document(document: &RawDocument) -> Vec<(String, Node<'_>)> {
    elements(document).map(|(name, value)| (name.to_owned(), Node::Kept(value))).collect()
}

fn field<'t, 'a>(fields: &'t mut Vec<(String, Node<'a>)>, name: &str) -> &'t mut Node<'a> {
    let index = fields.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
        fields.push((name.to_owned(), Node::made()));
        fields.len() - 1
    });
    &mut fields[index].1
}

fn write_document(fields: &[(String, Node<'_>)]) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    for (name, node) in fields {
        match node {
            Node::Kept(value) => crate::append(&mut document, name, *value),
            Node::Value(value) => crate::append(&mut document, name, value),
            Node::Document(fields) => crate::append(&mut document, name, &write_document(fields)),
            Node::Array(items) => crate::append(&mut document, name, &write_array(items)),
        }
    }
    document
}

fn write_array(items: &[Node<'_>]) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    for node in items {
        match node {
            Node::Kept(value) => array.push(*value),
            Node::Value(value) => array.push(value),
            Node::Document(fields) => array.push(write_document(fields)),
            Node::Array(items) => array.push(write_array(items)),
        }
    }
    array
}

fn not_viable(part: &str, name: &str, value: &str) -> Error {
    Error::new(ErrorCode::PathNotViable, format!("Cannot create field '{part}' in element {{{name}: {value}}}"))
}

fn array_text(items: &[Node<'_>]) -> String {
    text(&RawBson::Array(write_array(items)))
}

/// A value for an error message, short enough to read.
pub(crate) fn text(value: &RawBson) -> String {
    let text = match bson::Bson::try_from(value.clone()) {
        Ok(value) => value.to_string(),
        Err(_) => "?".into(),
    };
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
