//! A document during an update. Only the parts on a path are decoded; the rest stays raw bytes.

mod fields;

use std::borrow::Cow;

use bson::{
    RawBson,
    raw::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, RawElement},
    spec::ElementType,
};

use crate::{
    Error, ErrorCode, Path, Result, budget,
    document::{array_index, as_document, empty, size_of},
};
use fields::Fields;

/// Maximum number of nulls that fill up an array before a new item, as in the server.
const MAX_PADDING: usize = 1_500_000;

#[derive(Debug)]
pub(crate) struct Tree<'a> {
    root: Fields<'a>,
    /// Total bytes of the values that were set: a lower bound of the document's size.
    set: usize,
}

#[derive(Debug)]
pub(crate) struct Field<'a> {
    name: Cow<'a, str>,
    node: Node<'a>,
}

/// The kind of a value, by how a path continues in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Document,
    Array,
    Other,
}

#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// An unchanged element.
    Kept(Element<'a>),
    Value(RawBson),
    Document(Fields<'a>),
    Array(Vec<Node<'a>>),
    /// A removed field.
    Removed,
}

/// An element of a document with its bytes: the type, the name and the value.
#[derive(Clone)]
pub(crate) struct Element<'a> {
    element: RawElement<'a>,
    bytes: &'a [u8],
}

impl std::fmt::Debug for Element<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.value())
    }
}

impl<'a> Element<'a> {
    fn value(&self) -> RawBsonRef<'a> {
        self.element.value().unwrap_or(RawBsonRef::Null)
    }

    /// Returns the bytes of the value.
    fn value_bytes(&self) -> &'a [u8] {
        self.bytes.get(name_end(&self.element)..).unwrap_or_default()
    }
}

/// Returns the offset of the value within an element.
fn name_end(element: &RawElement<'_>) -> usize {
    // The type byte, and the NUL byte after the name.
    element.key().as_str().len() + 2
}

/// Iterates over the elements of a document with their bytes.
fn parts(document: &RawDocument) -> impl Iterator<Item = Element<'_>> {
    // The elements follow the length of the document.
    let mut place = 4;
    document.iter_elements().map_while(move |element| {
        let element = element.ok()?;
        let end = place + name_end(&element) + element.size();
        let bytes = document.as_bytes().get(place..end)?;
        place = end;
        Some(Element { element, bytes })
    })
}

impl<'a> Tree<'a> {
    pub(crate) fn new(document: &'a RawDocument) -> Self {
        Self { root: open_document(document), set: 0 }
    }

    /// Returns the node at a path, or `None` if there is none. Decodes the nodes on the path.
    pub(crate) fn open(&mut self, path: &Path) -> Option<&mut Node<'a>> {
        self.open_parts(path.parts())
    }

    /// As [`open`](Self::open), for the parts of a path.
    pub(crate) fn open_parts(&mut self, parts: &[String]) -> Option<&mut Node<'a>> {
        let (first, rest) = parts.split_first()?;
        let mut node = self.root.get(first)?;
        for part in rest {
            node.take_apart();
            node = match node {
                Node::Document(fields) => fields.get(part)?,
                Node::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Sets the value at a path and creates missing parent documents.
    pub(crate) fn set(&mut self, path: &Path, value: RawBson) -> Result<()> {
        let Some((first, rest)) = path.parts().split_first() else { return Ok(()) };
        let size = size_of(&value);
        self.set += size;
        // No update sets a value twice, so the document would exceed the limit, too.
        super::check_length(self.set)?;
        budget::charge_bytes(size)?;
        let mut node = self.root.get_or_make(first);
        let mut name = first.as_str();
        for part in rest {
            node.take_apart();
            // A new node is an empty document: it stays one if the path goes on.
            node = match node {
                Node::Document(fields) => fields.get_or_make(part),
                Node::Array(items) => {
                    let index = array_index(part).ok_or_else(|| not_viable(part, name, &array_text(items)))?;
                    if index >= items.len() {
                        if index - items.len() > MAX_PADDING {
                            return Err(Error::new(
                                ErrorCode::BadValue,
                                format!("can't backfill more than {MAX_PADDING} elements"),
                            ));
                        }
                        budget::charge((index - items.len()) as u64)?;
                        items.resize_with(index, || Node::Value(RawBson::Null));
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

    /// Removes the value at a path. An item of an array becomes null.
    pub(crate) fn remove(&mut self, path: &Path) {
        let Some((last, parents)) = path.parts().split_last() else { return };
        if parents.is_empty() {
            self.root.remove(last);
            return;
        }
        if let Some(parent) = self.open_parts(parents) {
            parent.take_apart();
            match parent {
                Node::Document(fields) => fields.remove(last),
                Node::Array(items) => {
                    if let Some(item) = array_index(last).and_then(|index| items.get_mut(index)) {
                        *item = Node::Value(RawBson::Null);
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn into_document(self) -> RawDocumentBuf {
        document_of(&self.root)
    }
}

impl Node<'_> {
    /// Creates the node of a new field: an empty document until it is set.
    fn made() -> Self {
        Node::Document(Fields::default())
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Document(_) | Self::Value(RawBson::Document(_)) => Kind::Document,
            Self::Array(_) | Self::Value(RawBson::Array(_)) => Kind::Array,
            Self::Kept(element) => match element.element.element_type() {
                ElementType::EmbeddedDocument => Kind::Document,
                ElementType::Array => Kind::Array,
                _ => Kind::Other,
            },
            Self::Value(_) | Self::Removed => Kind::Other,
        }
    }

    pub(crate) fn take_apart(&mut self) {
        let opened = match self {
            Node::Kept(element) => match element.value() {
                RawBsonRef::Document(document) => Node::Document(open_document(document)),
                RawBsonRef::Array(array) => Node::Array(open_array(array)),
                _ => return,
            },
            Node::Value(RawBson::Document(document)) => Node::Document(
                crate::document::elements(document)
                    .map(|(name, value)| Field { name: name.to_owned().into(), node: Node::Value(value.into()) })
                    .collect::<Vec<_>>()
                    .into(),
            ),
            Node::Value(RawBson::Array(array)) => {
                Node::Array(crate::document::items(array).map(|item| Node::Value(item.into())).collect())
            }
            _ => return,
        };
        *self = opened;
    }

    pub(crate) fn to_value(&self) -> RawBson {
        match self {
            Node::Kept(element) => element.value().into(),
            Node::Value(value) => value.clone(),
            Node::Document(fields) => RawBson::Document(document_of(fields)),
            Node::Array(items) => RawBson::Array(array_of(items)),
            Node::Removed => RawBson::Null,
        }
    }

    fn write(&self, name: &str, out: &mut Vec<u8>) {
        match self {
            Node::Kept(element) if element.element.key().as_str() == name => out.extend_from_slice(element.bytes),
            Node::Kept(element) => {
                begin(element.bytes.first().copied().unwrap_or_default(), name, out);
                out.extend_from_slice(element.value_bytes());
            }
            Node::Value(value) => write_value(value, name, out),
            Node::Document(fields) => {
                begin(0x03, name, out);
                write_document(fields, out);
            }
            Node::Array(items) => {
                begin(0x04, name, out);
                write_array(items, out);
            }
            Node::Removed => {}
        }
    }
}

fn open_document(document: &RawDocument) -> Fields<'_> {
    // Most fields are larger than 24 bytes.
    let mut fields = Vec::with_capacity((document.as_bytes().len() / 24).clamp(2, 64));
    fields.extend(parts(document).map(|element| {
        let name = Cow::Borrowed(element.element.key().as_str());
        Field { name, node: Node::Kept(element) }
    }));
    budget::spend(fields.len() as u64);
    fields.into()
}

fn open_array(array: &RawArray) -> Vec<Node<'_>> {
    let items: Vec<_> = parts(as_document(array)).map(Node::Kept).collect();
    budget::spend(items.len() as u64);
    items
}

/// Writes the type and the name of an element.
fn begin(kind: u8, name: &str, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

fn write_value(value: &RawBson, name: &str, out: &mut Vec<u8>) {
    let mut scalar = |kind, bytes: &[u8]| {
        begin(kind, name, out);
        out.extend_from_slice(bytes);
    };
    match value {
        RawBson::Double(number) => scalar(0x01, &number.to_le_bytes()),
        RawBson::Boolean(flag) => scalar(0x08, &[u8::from(*flag)]),
        RawBson::Null => scalar(0x0a, &[]),
        RawBson::Int32(number) => scalar(0x10, &number.to_le_bytes()),
        RawBson::Int64(number) => scalar(0x12, &number.to_le_bytes()),
        RawBson::String(text) => {
            scalar(0x02, &(text.len() as u32 + 1).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        value => {
            let mut holder = RawDocumentBuf::new();
            crate::append(&mut holder, name, value);
            let bytes = holder.as_bytes();
            out.extend_from_slice(&bytes[4..bytes.len() - 1]);
        }
    }
}

/// Writes the length, the content and the terminator of a document.
fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    write(out);
    out.push(0);
    // A document that exceeds the limit is rejected later, by its true size.
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn write_document(fields: &Fields<'_>, out: &mut Vec<u8>) {
    framed(out, |out| fields.iter().for_each(|field| field.node.write(&field.name, out)));
}

fn write_array(items: &[Node<'_>], out: &mut Vec<u8>) {
    budget::spend(items.len() as u64);
    framed(out, |out| items.iter().enumerate().for_each(|(index, item)| item.write(&index.to_string(), out)));
}

fn document_of(fields: &Fields<'_>) -> RawDocumentBuf {
    let mut bytes = Vec::with_capacity(512);
    write_document(fields, &mut bytes);
    budget::spend_bytes(bytes.len());
    // The length and the terminator were just written.
    RawDocumentBuf::from_bytes(bytes).unwrap_or_else(|_| empty().to_owned())
}

fn array_of(items: &[Node<'_>]) -> RawArrayBuf {
    let mut bytes = Vec::new();
    write_array(items, &mut bytes);
    let document = RawDocumentBuf::from_bytes(bytes).unwrap_or_else(|_| empty().to_owned());
    let mut array = RawArrayBuf::new();
    crate::document::elements(&document).for_each(|(_, item)| array.push(item));
    array
}

fn not_viable(part: &str, name: &str, value: &str) -> Error {
    Error::new(ErrorCode::PathNotViable, format!("Cannot create field '{part}' in element {{{name}: {value}}}"))
}

fn array_text(items: &[Node<'_>]) -> String {
    text(&RawBson::Array(array_of(items)))
}

/// Maximum number of characters of a value in an error message.
const LONGEST_TEXT: usize = 120;

/// Values larger than this, in bytes, are cut before they are formatted.
const LONG_VALUE: usize = 4096;

/// Formats a value for an error message, and shortens it.
pub(crate) fn text(value: &RawBson) -> String {
    let text = match bson::Bson::try_from(beginning(value.as_raw_bson_ref())) {
        Ok(value) => value.to_string(),
        Err(_) => "?".into(),
    };
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Returns as much of a value as an error message can show.
fn beginning(value: RawBsonRef<'_>) -> RawBson {
    match value {
        RawBsonRef::String(text) if text.len() > LONG_VALUE => {
            RawBson::String(text.chars().take(LONGEST_TEXT + 1).collect())
        }
        RawBsonRef::Document(document) if document.as_bytes().len() > LONG_VALUE => {
            let mut cut = RawDocumentBuf::new();
            for (name, value) in crate::document::elements(document).take(LONGEST_TEXT) {
                let name: String = name.chars().take(LONGEST_TEXT + 1).collect();
                crate::append(&mut cut, &name, &crate::document::with_stack(|| beginning(value)));
                if cut.as_bytes().len() > LONG_VALUE {
                    break;
                }
            }
            RawBson::Document(cut)
        }
        RawBsonRef::Array(array) if array.as_bytes().len() > LONG_VALUE => {
            let mut cut = RawArrayBuf::new();
            for item in crate::document::items(array).take(LONGEST_TEXT) {
                cut.push(crate::document::with_stack(|| beginning(item)));
                if cut.as_bytes().len() > LONG_VALUE {
                    break;
                }
            }
            RawBson::Array(cut)
        }
        RawBsonRef::Binary(binary) if binary.bytes.len() > LONG_VALUE => {
            RawBson::Binary(bson::Binary { subtype: binary.subtype, bytes: binary.bytes[..LONG_VALUE].to_vec() })
        }
        value => value.into(),
    }
}
