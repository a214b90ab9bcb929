//! The check of everything that comes from outside: after it, every part of this project, the JavaScript decoder and
//! other drivers can read a document, and all of them read the same.

use std::{
    fmt::Write,
    hash::{BuildHasher, RandomState},
};

use bson::raw::RawDocument;

use crate::{
    Error, ErrorCode, Result, budget,
    document::{MAX_NESTING_DEPTH, elements},
};

/// The options that a regular expression can have in MongoDB.
const REGEX_OPTIONS: &str = "imsux";

/// Documents of up to this many fields compare their names pairwise; larger ones use a hash table.
const FEW_NAMES: usize = 16;

/// The longest path in a message, in bytes.
const MAX_SHOWN_PATH: usize = 200;

/// The names of Extended JSON types (<https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/>). No field has one.
pub const EXTENDED_JSON_NAMES: [&str; 17] = [
    "$binary",
    "$code",
    "$date",
    "$dbPointer",
    "$maxKey",
    "$minKey",
    "$numberDecimal",
    "$numberDouble",
    "$numberInt",
    "$numberLong",
    "$oid",
    "$regularExpression",
    "$scope",
    "$symbol",
    "$timestamp",
    "$undefined",
    "$uuid",
];

/// Checks a document from outside, or one that a pipeline has made, in one pass:
///
/// - it is BSON throughout, with valid UTF-8 and nesting up to [`MAX_NESTING_DEPTH`];
/// - no document in it, at any depth, has two fields of one name;
/// - regular expressions have only the options `imsux`, in any order;
/// - no field has a name that Extended JSON keeps for a type (`$oid`), and no path leads to one;
/// - `$regex` and `$options` make a regular expression that can be read.
///
/// The names of an array's items are not looked at, and data of a binary subtype may have any length.
///
/// # Errors
/// `InvalidBSON` (22), `Overflow` (15) for the nesting, `BadValue` (2) for a name that is there twice, 51108 for an option,
/// `DollarPrefixedFieldName` (52), each with the field's path; and as [`budget::charge`].
pub fn validate(document: &RawDocument) -> Result<()> {
    Check { names: true, values: true }.document(document)
}

/// Checks that a stored document is BSON throughout, with valid UTF-8 and bounded nesting, and nothing more: what an
/// earlier version or another program stored is not damaged because [`validate`] refuses it today.
///
/// # Errors
/// As [`validate`]'s for the form.
pub fn validate_form(document: &RawDocument) -> Result<()> {
    Check { names: false, values: false }.document(document)
}

/// Checks that no document in it, at any depth, has two fields of one name: of what was made of something that was
/// checked.
///
/// # Errors
/// `BadValue` (2) with the path; as [`validate_form`] and [`budget::charge`].
pub fn validate_names(document: &RawDocument) -> Result<()> {
    Check { names: true, values: false }.document(document)
}

/// What is wrong, and the way to it from the inside out.
struct Fault {
    error: Error,
    path: Vec<String>,
}

type Checked<T> = std::result::Result<T, Box<Fault>>;

/// The parts of a path, joined by dots, for a message. A long path is cut off after 200 bytes.
pub fn shown_path(parts: impl IntoIterator<Item: AsRef<str>>) -> String {
    let mut path = String::new();
    for part in parts {
        let part = part.as_ref();
        if path.len() + part.len() > MAX_SHOWN_PATH {
            path.push('…');
            break;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
    }
    path
}

impl From<Error> for Box<Fault> {
    fn from(error: Error) -> Self {
        Self::new(Fault { error, path: Vec::new() })
    }
}

impl Fault {
    fn into_error(self) -> Error {
        let path = shown_path(self.path.iter().rev());
        let mut error = self.error;
        // The document itself has no path.
        let place = if self.path.is_empty() { format!(" at '{PATH}'") } else { PATH.to_owned() };
        error.message = error.message.replace(&place, &path);
        error
    }
}

/// Stands for the path in the message of a fault, which is only known when the fault has come all the way out. BSON
/// names cannot hold it.
const PATH: &str = "\0";

fn malformed(what: &str) -> Box<Fault> {
    Error::new(ErrorCode::InvalidBson, format!("invalid BSON: {what} at '{PATH}'")).into()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Array,
}

#[derive(Clone, Copy)]
struct Check {
    /// Whether a name may be there once only.
    names: bool,
    /// Whether options of regular expressions, and names that Extended JSON keeps, are checked.
    values: bool,
}

impl Check {
    fn document(self, document: &RawDocument) -> Result<()> {
        self.fields(document.as_bytes(), Kind::Document, 1).map_err(|fault| fault.into_error())
    }

    /// The elements of a document, whose bytes are known to be as many as its length says.
    fn fields(self, document: &[u8], kind: Kind, depth: usize) -> Checked<()> {
        if depth > MAX_NESTING_DEPTH {
            let message = format!("BSONObj exceeds the maximum nesting depth of {MAX_NESTING_DEPTH}");
            return Err(Error::new(ErrorCode::Overflow, message).into());
        }
        let mut names = (self.names && kind == Kind::Document).then(|| Names::new(document));
        // The frame has been checked: a length of five at least, and a NUL byte at the end.
        let end = document.len() - 1;
        let (mut position, mut index) = (4, 0_usize);
        while position < end {
            budget::charge(1)?;
            let type_byte = document[position];
            let name = cstring(&document[position + 1..end]).ok_or_else(|| malformed("a name that is not text"))?;
            let start = position + 1 + name.len() + 1;
            let checked = self.value(type_byte, &document[start..end], depth).and_then(|size| {
                if let Some(names) = &mut names
                    && names.add(position + 1, name)?
                {
                    return Err(Error::bad_value(format!("the field '{PATH}' is there twice")).into());
                }
                if self.values && name.contains('$') && kind == Kind::Document {
                    operator(name, type_byte, &document[start..start + size])?;
                }
                Ok(size)
            });
            match checked {
                Ok(size) => position = start + size,
                Err(mut fault) => {
                    fault.path.push(match kind {
                        Kind::Document => name.to_owned(),
                        Kind::Array => index.to_string(),
                    });
                    return Err(fault);
                }
            }
            index += 1;
        }
        Ok(())
    }

    /// The size of a value that the bytes begin with.
    fn value(self, type_byte: u8, bytes: &[u8], depth: usize) -> Checked<usize> {
        let size = match type_byte {
            // undefined, null, minKey, maxKey
            0x06 | 0x0a | 0xff | 0x7f => 0,
            0x08 => match bytes.first() {
                Some(0 | 1) => 1,
                _ => return Err(malformed("a boolean that is neither 0 nor 1")),
            },
            0x10 => 4,
            // double, date, timestamp, long
            0x01 | 0x09 | 0x11 | 0x12 => 8,
            0x07 => 12,
            0x13 => 16,
            // string, code, symbol
            0x02 | 0x0d | 0x0e => text(bytes)?.1,
            0x03 | 0x04 => {
                let document = frame(bytes)?;
                self.fields(document, if type_byte == 0x03 { Kind::Document } else { Kind::Array }, depth + 1)?;
                document.len()
            }
            0x05 => binary(bytes)?,
            0x0b => self.regex(bytes)?,
            // DBPointer
            0x0c => text(bytes)?.1 + 12,
            0x0f => self.code_with_scope(bytes, depth)?,
            _ => return Err(malformed(&format!("there is no type {type_byte:#04x}"))),
        };
        if size > bytes.len() { Err(malformed("a value that is longer than its document")) } else { Ok(size) }
    }

    fn regex(self, bytes: &[u8]) -> Checked<usize> {
        let not_text = || malformed("a regular expression that is not text");
        let pattern = cstring(bytes).ok_or_else(not_text)?;
        let options = cstring(&bytes[pattern.len() + 1..]).ok_or_else(not_text)?;
        budget::charge_bytes(pattern.len())?;
        if self.values {
            regex_options(options)?;
        }
        Ok(pattern.len() + 1 + options.len() + 1)
    }

    fn code_with_scope(self, bytes: &[u8], depth: usize) -> Checked<usize> {
        let wrong = || malformed("code with a scope of another length");
        let bytes = length(bytes).and_then(|length| bytes.get(..length)).ok_or_else(wrong)?;
        let (_, size) = text(bytes.get(4..).ok_or_else(wrong)?)?;
        let rest = &bytes[4 + size..];
        let scope = frame(rest)?;
        if scope.len() != rest.len() {
            return Err(wrong());
        }
        self.fields(scope, Kind::Document, depth + 1)?;
        Ok(bytes.len())
    }
}

/// A field with a dollar sign in its name: no value of Extended JSON, nor a path to one, and a regular expression only if
/// it is one.
fn operator(name: &str, type_byte: u8, value: &[u8]) -> Checked<()> {
    match name {
        "$regex" => match type_byte {
            0x02 if !text(value)?.0.contains('\0') => Ok(()),
            0x0b => Ok(()),
            _ => Err(Error::bad_value(format!("$regex has to be a string at '{PATH}'")).into()),
        },
        "$options" if type_byte == 0x02 => regex_options(text(value)?.0),
        // Its values are paths, too.
        "$rename" if type_byte == 0x03 => RawDocument::from_bytes(value).map_or(Ok(()), |renamed| {
            let mut paths = elements(renamed).filter_map(|(_, path)| path.as_str());
            if paths.any(|path| is_of_extended_json(path) || leads_to_regex(path)) {
                Err(of_extended_json())
            } else {
                Ok(())
            }
        }),
        name if is_of_extended_json(name) || (name.contains('.') && leads_to_regex(name)) => Err(of_extended_json()),
        _ => Ok(()),
    }
}

/// Whether a name, or a path, has a part that stands for a type in Extended JSON.
fn is_of_extended_json(name: &str) -> bool {
    name.contains('$') && name.split('.').any(|part| EXTENDED_JSON_NAMES.contains(&part))
}

/// True if a path has a part that stands for a regular expression: by an update of it, any value could get there.
fn leads_to_regex(path: &str) -> bool {
    path.split('.').any(|part| matches!(part, "$regex" | "$options"))
}

fn of_extended_json() -> Box<Fault> {
    let message = format!("the field '{PATH}' has a name that Extended JSON keeps for a type");
    Error::new(ErrorCode::DollarPrefixedFieldName, message).into()
}

fn regex_options(options: &str) -> Checked<()> {
    match options.chars().find(|&flag| !REGEX_OPTIONS.contains(flag)) {
        None => Ok(()),
        Some(flag) => {
            let mut message = String::from("invalid flag in regex options: ");
            let _ = write!(message, "{} at '{PATH}'", flag.escape_debug());
            Err(Error::location(51108, message).into())
        }
    }
}

/// Text up to a NUL byte.
fn cstring(bytes: &[u8]) -> Option<&str> {
    std::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}

fn length(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_le_bytes(*bytes.first_chunk()?);
    usize::try_from(length).ok()
}

/// Text behind its length, and how long both are.
fn text(bytes: &[u8]) -> Checked<(&str, usize)> {
    let wrong = || malformed("text of another length than it says");
    let length = length(bytes).filter(|&length| length > 0).ok_or_else(wrong)?;
    let (last, text) = bytes.get(4..4 + length).and_then(<[u8]>::split_last).ok_or_else(wrong)?;
    if *last != 0 {
        return Err(wrong());
    }
    budget::charge_bytes(text.len())?;
    let text = std::str::from_utf8(text).map_err(|_| malformed("text that is not UTF-8"))?;
    Ok((text, 4 + length))
}

fn binary(bytes: &[u8]) -> Checked<usize> {
    const OLD: u8 = 2;
    let wrong = || malformed("binary data of another length than it says");
    let size = length(bytes).ok_or_else(wrong)?;
    let data = bytes.get(5..5 + size).ok_or_else(wrong)?;
    // The old subtype repeats the length inside.
    if bytes[4] == OLD && length(data) != Some(size.wrapping_sub(4)) {
        return Err(wrong());
    }
    Ok(5 + size)
}

/// The bytes of the document that these begin with.
fn frame(bytes: &[u8]) -> Checked<&[u8]> {
    let wrong = || malformed("a document of another length than it says");
    let document = length(bytes).filter(|&length| length >= 5).and_then(|length| bytes.get(..length));
    document.filter(|document| document.ends_with(&[0])).ok_or_else(wrong)
}

/// The names in a document so far. Few need no memory, and many 10 to 22 bytes each.
struct Names<'a> {
    document: &'a [u8],
    few: [&'a str; FEW_NAMES],
    count: usize,
    many: Option<Table>,
}

impl<'a> Names<'a> {
    fn new(document: &'a [u8]) -> Self {
        Self { document, few: [""; FEW_NAMES], count: 0, many: None }
    }

    /// Adds a name that begins at a place in the document; true if it is there already.
    fn add(&mut self, at: usize, name: &'a str) -> Result<bool> {
        let document = self.document;
        let Some(table) = &mut self.many else {
            if self.few[..self.count].contains(&name) {
                return Ok(true);
            }
            if self.count < FEW_NAMES {
                self.few[self.count] = name;
                self.count += 1;
                return Ok(false);
            }
            let mut table = Table::new();
            // A name's place is its distance from the document's first byte.
            let place = |name: &str| name.as_ptr() as usize - document.as_ptr() as usize;
            for few in self.few {
                table.add(document, place(few), few);
            }
            return Ok(self.many.insert(table).add(document, at, name));
        };
        budget::charge(1)?;
        Ok(table.add(document, at, name))
    }
}

/// An open hash table of names by the places where they begin.
struct Table {
    /// The hash and the place; no name is at place zero, which is a free slot's.
    slots: Vec<(u32, u32)>,
    count: usize,
    /// With a key of its own, so that no document can be made whose names collide.
    hasher: RandomState,
}

impl Table {
    fn new() -> Self {
        Self { slots: vec![(0, 0); FEW_NAMES * 4], count: 0, hasher: RandomState::new() }
    }

    fn add(&mut self, document: &[u8], at: usize, name: &str) -> bool {
        if (self.count + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let hash = self.hasher.hash_one(name.as_bytes()) as u32;
        let is_name =
            |at: u32| document[at as usize..].strip_prefix(name.as_bytes()).is_some_and(|end| end.first() == Some(&0));
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                (_, 0) => break,
                (other, at) if other == hash && is_name(at) => return true,
                _ => slot = (slot + 1) & mask,
            }
        }
        // A document is shorter than 2 GiB.
        self.slots[slot] = (hash, at as u32);
        self.count += 1;
        false
    }

    #[cold]
    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        for (hash, at) in std::mem::replace(&mut self.slots, vec![(0, 0); mask + 1]) {
            if at != 0 {
                let mut slot = hash as usize & mask;
                while self.slots[slot].1 != 0 {
                    slot = (slot + 1) & mask;
                }
                self.slots[slot] = (hash, at);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
