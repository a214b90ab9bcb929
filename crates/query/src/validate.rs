//! Validation of all documents from outside. Afterwards, every part of Userkeep, the JavaScript
//! decoder and other drivers can read a document, and all of them read the same values.

use std::{
    fmt::Write,
    hash::{BuildHasher, RandomState},
};

use bson::raw::RawDocument;

use crate::{
    Error, ErrorCode, Result, budget,
    document::{MAX_NESTING_DEPTH, elements},
};

/// The options that MongoDB allows in a regular expression.
const REGEX_OPTIONS: &str = "imsux";

/// Documents with up to this many fields compare names pairwise; larger ones use a hash table.
const FEW_NAMES: usize = 16;

/// Maximum length of a path in a message, in bytes.
const MAX_SHOWN_PATH: usize = 200;

/// The type names of Extended JSON, which are rejected as field names
/// (<https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/>).
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

/// Validates a document from outside, or the result of a pipeline, in one pass:
///
/// - It is BSON throughout, with valid UTF-8 and a nesting depth of up to [`MAX_NESTING_DEPTH`].
/// - No document in it, at any depth, has two fields of one name.
/// - Regular expressions have only the options `imsux`, in any order.
/// - No field has a name that Extended JSON reserves for a type (`$oid`), and no path leads to
///   one.
/// - `$regex` and `$options` form a readable regular expression.
///
/// It ignores the names of array items, and allows any length for data of a binary subtype.
///
/// # Errors
/// All with the path of the field in the message: `InvalidBSON` (22); `Overflow` (15) for too deep
/// nesting; `BadValue` (2) for a duplicate name; 51108 for an option; `DollarPrefixedFieldName`
/// (52) for a reserved name. Also fails as [`budget::charge`] does.
///
/// ```
/// use bson::rawdoc;
///
/// assert!(query::validate(&rawdoc! { "a": { "$set": 1 } }).is_ok());
/// let error = query::validate(&rawdoc! { "a": { "$oid": "x" } }).unwrap_err();
/// assert_eq!(error.number(), 52);
/// ```
pub fn validate(document: &RawDocument) -> Result<()> {
    Check { names: true, values: true }.document(document)
}

/// Validates only the form of a stored document: BSON throughout, valid UTF-8, and bounded
/// nesting.
///
/// Documents of an earlier version or another program stay readable even if [`validate`] rejects
/// them today.
///
/// # Errors
/// `InvalidBSON` (22) or `Overflow` (15), as [`validate`] does.
pub fn validate_form(document: &RawDocument) -> Result<()> {
    Check { names: false, values: false }.document(document)
}

/// Validates the form of a document and that no document in it, at any depth, has two fields of
/// one name. It is meant for documents that were computed from validated ones.
///
/// # Errors
/// `BadValue` (2) with the path of a duplicate name. Also fails as [`validate_form`] and
/// [`budget::charge`] do.
pub fn validate_names(document: &RawDocument) -> Result<()> {
    Check { names: true, values: false }.document(document)
}

/// An error with the path to the faulty field, innermost part first.
struct Fault {
    error: Error,
    path: Vec<String>,
}

type Checked<T> = std::result::Result<T, Box<Fault>>;

/// Joins the parts of a path with dots, for a message. A path of more than 200 bytes ends with
/// `…`.
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

/// A placeholder for the path in an error message. The path is only complete when the fault
/// reaches the top. BSON names cannot contain it.
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
    /// True to reject duplicate names.
    names: bool,
    /// True to check the options of regular expressions and the names reserved by Extended JSON.
    values: bool,
}

impl Check {
    fn document(self, document: &RawDocument) -> Result<()> {
        self.fields(document.as_bytes(), Kind::Document, 1).map_err(|fault| fault.into_error())
    }

    /// Checks the elements of a document whose length and terminator were checked.
    fn fields(self, document: &[u8], kind: Kind, depth: usize) -> Checked<()> {
        if depth > MAX_NESTING_DEPTH {
            let message = format!("BSONObj exceeds the maximum nesting depth of {MAX_NESTING_DEPTH}");
            return Err(Error::new(ErrorCode::Overflow, message).into());
        }
        let mut names = (self.names && kind == Kind::Document).then(|| Names::new(document));
        // The frame was checked: a length of at least five, and a NUL byte at the end.
        let end = document.len() - 1;
        let (mut position, mut index) = (4, 0_usize);
        while position < end {
            budget::charge(1)?;
            let type_byte = document[position];
            let name = cstring(&document[position + 1..end])
                .ok_or_else(|| malformed("a field name that is not a valid string"))?;
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

    /// Checks the value at the beginning of the bytes, and returns its size.
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
            _ => return Err(malformed(&format!("unknown type {type_byte:#04x}"))),
        };
        if size > bytes.len() { Err(malformed("a value beyond the end of its document")) } else { Ok(size) }
    }

    fn regex(self, bytes: &[u8]) -> Checked<usize> {
        let not_text = || malformed("a regular expression that is not a valid string");
        let pattern = cstring(bytes).ok_or_else(not_text)?;
        let options = cstring(&bytes[pattern.len() + 1..]).ok_or_else(not_text)?;
        budget::charge_bytes(pattern.len())?;
        if self.values {
            regex_options(options)?;
        }
        Ok(pattern.len() + 1 + options.len() + 1)
    }

    fn code_with_scope(self, bytes: &[u8], depth: usize) -> Checked<usize> {
        let wrong = || malformed("code with scope of the wrong length");
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

/// Checks a field with a dollar sign in its name. It must not be a value of Extended JSON or a
/// path to one. `$regex` and `$options` must form a valid regular expression.
fn operator(name: &str, type_byte: u8, value: &[u8]) -> Checked<()> {
    match name {
        "$regex" => match type_byte {
            0x02 if !text(value)?.0.contains('\0') => Ok(()),
            0x0b => Ok(()),
            _ => Err(Error::bad_value(format!("$regex has to be a string at '{PATH}'")).into()),
        },
        "$options" if type_byte == 0x02 => regex_options(text(value)?.0),
        // The values of `$rename` are paths, too.
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

/// True if a name or a part of a path is a type name of Extended JSON.
fn is_of_extended_json(name: &str) -> bool {
    name.contains('$') && name.split('.').any(|part| EXTENDED_JSON_NAMES.contains(&part))
}

/// True if a path has a part that stands for a regular expression: an update of it could store any
/// value there.
fn leads_to_regex(path: &str) -> bool {
    path.split('.').any(|part| matches!(part, "$regex" | "$options"))
}

fn of_extended_json() -> Box<Fault> {
    let message = format!("the field '{PATH}' has a name that Extended JSON reserves for a type");
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

/// Returns the string before the first NUL byte.
fn cstring(bytes: &[u8]) -> Option<&str> {
    std::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}

fn length(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_le_bytes(*bytes.first_chunk()?);
    usize::try_from(length).ok()
}

/// Returns a length-prefixed string, and its size including the prefix.
fn text(bytes: &[u8]) -> Checked<(&str, usize)> {
    let wrong = || malformed("a string of the wrong length");
    let length = length(bytes).filter(|&length| length > 0).ok_or_else(wrong)?;
    let (last, text) = bytes.get(4..4 + length).and_then(<[u8]>::split_last).ok_or_else(wrong)?;
    if *last != 0 {
        return Err(wrong());
    }
    budget::charge_bytes(text.len())?;
    let text = std::str::from_utf8(text).map_err(|_| malformed("a string that is not UTF-8"))?;
    Ok((text, 4 + length))
}

fn binary(bytes: &[u8]) -> Checked<usize> {
    const OLD: u8 = 2;
    let wrong = || malformed("binary data of the wrong length");
    let size = length(bytes).ok_or_else(wrong)?;
    let data = bytes.get(5..5 + size).ok_or_else(wrong)?;
    // The old subtype repeats the length within the data.
    if bytes[4] == OLD && length(data) != Some(size.wrapping_sub(4)) {
        return Err(wrong());
    }
    Ok(5 + size)
}

/// Returns the bytes of the document at the beginning of the bytes.
fn frame(bytes: &[u8]) -> Checked<&[u8]> {
    let wrong = || malformed("a document of the wrong length");
    let document = length(bytes).filter(|&length| length >= 5).and_then(|length| bytes.get(..length));
    document.filter(|document| document.ends_with(&[0])).ok_or_else(wrong)
}

/// The names of a document so far. A few need no allocation; many need 10 to 22 bytes each.
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

    /// Adds a name at an offset in the document. Returns true if the name is a duplicate.
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
            // The offset of a name is its distance from the document's first byte.
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

/// An open-addressing hash table of names, by the offsets at which they begin.
struct Table {
    /// Pairs of hash and offset. Offset zero marks a free slot; no name begins there.
    slots: Vec<(u32, u32)>,
    count: usize,
    /// A random key, so that a document cannot be crafted to make names collide.
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
