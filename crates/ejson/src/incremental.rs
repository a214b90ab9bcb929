//! Decodes a function call `{ name, service, arguments }` while its JSON arrives. The arguments
//! are converted to BSON immediately. The memory therefore depends on the size of the BSON and not
//! on the size of the JSON, which may be several times as long.
//!
//! A type wrapper, such as `{ $date: … }`, is kept as text until it is complete. The data of a
//! canonical `$binary` is decoded as it arrives.

use std::{collections::HashSet, io::Write};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};

use super::{
    Json,
    convert::{INVALID, MAX_WRAPPER, Reading, Writer, invalid_at, plain_type},
    names,
    read::{MAX_OUTER, refused, unwrap},
    read_stored,
    tokens::{Place, Sink, Tokens},
};
use crate::{Error, Result};

/// Size in bytes of the pieces that are decoded between two checks of the BSON buffer's capacity.
const SLICE: usize = 16 * 1024;

/// The maximum ratio of the size of BSON to the size of its JSON. The two bytes `0,` may become an
/// item whose name has seven digits.
const EXPANSION: usize = 8;

/// The growth factor of buffers. A large factor means few reallocations, which leave unused memory
/// behind. Reserved pages use no memory until they are written.
const GROWTH: usize = 4;

/// Capacity in bytes of the buffer for the text of a large value, enough for a document of the
/// maximum size in base64. Longer text causes another reallocation.
const MAX_TEXT: usize = 40 * 1024 * 1024;

/// The maximum capacity in bytes of a buffer that is kept for the next value.
const KEPT_TEXT: usize = 4 * 1024;

/// The maximum number of bytes of BSON around the arguments.
const AROUND: usize = 64;

/// The name of the arguments in the document that contains them.
const ARGUMENTS: &[u8] = b"arguments";

/// Number of bytes before the array of the arguments: the length of the document, and the type and
/// name of the array.
const HEAD: usize = 4 + 1 + ARGUMENTS.len() + 1;

/// Number of bytes before the first argument: the head, the length of the array, and the type and
/// name of the argument.
const FIRST: usize = HEAD + 4 + 3;

/// The BSON types that this module writes.
mod bson_type {
    pub(super) const TEXT: u8 = 0x02;
    pub(super) const DOCUMENT: u8 = 0x03;
    pub(super) const ARRAY: u8 = 0x04;
    pub(super) const BINARY: u8 = 0x05;
}

/// The reason why a call cannot be decoded.
#[derive(Debug)]
pub enum Undecoded {
    /// The arguments exceed the maximum size as BSON.
    TooLarge,
    /// The call is not valid. The error has the position or the path of the fault.
    Invalid(Error),
}

impl From<Error> for Undecoded {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

/// Decodes a function call from pieces of its JSON.
///
/// The call is an object with the members `name` and `service` (strings) and `arguments` (an
/// array), in any order. Other members are ignored.
///
/// # Examples
/// ```
/// let mut decoder = ejson::CallDecoder::new(1024);
/// for piece in [r#"{"name":"sum","argu"#, r#"ments":[1,2]}"#] {
///     decoder.push(piece.as_bytes())?;
/// }
/// let call = decoder.finish()?;
/// assert_eq!(call.head.get("name").and_then(|name| name.as_str()), Some("sum"));
/// assert_eq!(call.arguments.map(|arguments| arguments.count()), Some(2));
/// # Ok::<(), ejson::Undecoded>(())
/// ```
#[derive(Debug)]
pub struct CallDecoder {
    tokens: Tokens,
    call: Call,
}

/// A decoded function call. Its members have not been checked for completeness.
#[derive(Debug)]
pub struct DecodedCall {
    /// An object with the members `name` and `service` of the call. A member that is not a string
    /// is null, and a missing member is missing here too.
    pub head: Json<'static>,
    /// The arguments, or `None` if the call has no member `arguments`.
    pub arguments: Option<Arguments>,
}

/// The arguments of a call, as BSON.
///
/// An invalid value in them is reported by [`into_all`](Self::into_all) and
/// [`into_only_document`](Self::into_only_document).
#[derive(Debug)]
pub struct Arguments {
    is_array: bool,
    count: usize,
    bson: Vec<u8>,
    fault: Option<Fault>,
}

/// The first invalid value of the arguments, with its path from the outside in.
#[derive(Debug)]
enum Fault {
    NotExtendedJson(Vec<String>),
    NameTwice(Vec<String>),
}

impl CallDecoder {
    /// Creates a decoder for a call whose arguments need at most about `largest` bytes as BSON.
    pub fn new(largest: usize) -> Self {
        Self { tokens: Tokens::new(), call: Call::new(largest) }
    }

    /// Decodes the next piece, which may end anywhere, even inside a UTF-8 sequence.
    ///
    /// The time is linear in the length of the piece, plus the length of a type wrapper that ends
    /// in it.
    ///
    /// # Errors
    /// - [`Undecoded::TooLarge`] if the BSON exceeds the maximum size.
    /// - [`Undecoded::Invalid`] if the text so far cannot be the start of a valid call.
    ///
    /// A value that is not valid Extended JSON is no error here, because the rest of the text may
    /// not even be JSON: the methods of [`Arguments`] report it. The decoder must not be used
    /// after an error.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Undecoded> {
        for slice in piece.chunks(SLICE) {
            self.call.values.reserve(EXPANSION * slice.len());
            self.tokens.push(slice, &mut self.call)?;
            self.call.values.end_piece(slice);
        }
        Ok(())
    }

    /// Returns the number of bytes that the decoder holds between two pieces. Does not count
    /// capacity that has not been written to.
    pub fn held(&self) -> usize {
        self.tokens.held() + self.call.held()
    }

    /// Ends the text and returns the call.
    ///
    /// # Errors
    /// [`Undecoded::Invalid`] if the text is incomplete or not an object.
    pub fn finish(mut self) -> Result<DecodedCall, Undecoded> {
        self.tokens.finish(&mut self.call)?;
        self.call.finish().map_err(Undecoded::Invalid)
    }
}

impl Arguments {
    /// True if the member `arguments` is an array.
    pub fn is_array(&self) -> bool {
        self.is_array
    }

    /// Returns the number of arguments.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the document `{ arguments: [ … ] }`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a value is not valid Extended JSON, if an object has a duplicate
    /// name, or if the arguments are not an array. The path of a fault begins with the index of
    /// the argument.
    pub fn into_all(self) -> Result<RawDocumentBuf> {
        self.check(0)?;
        let mut bson = self.bson;
        bson.push(0);
        set_length(&mut bson, 0);
        let document = RawDocumentBuf::from_bytes(bson).map_err(|_| Error::invalid(INVALID))?;
        let array = RawDocument::from_bytes(&document.as_bytes()[HEAD..document.as_bytes().len() - 1]);
        check_names(array.map_err(|_| Error::invalid(INVALID))?)?;
        Ok(document)
    }

    /// Returns the only argument. Returns `None` if there is not exactly one, or if it is not a
    /// document.
    ///
    /// # Errors
    /// The errors of [`into_all`](Self::into_all). The path of a fault is relative to the
    /// document.
    pub fn into_only_document(self) -> Result<Option<RawDocumentBuf>> {
        self.check(1)?;
        let mut bson = self.bson;
        if self.count != 1 || bson.get(FIRST - 3) != Some(&bson_type::DOCUMENT) {
            return Ok(None);
        }
        // The array's last byte comes after the document.
        bson.pop();
        bson.drain(..FIRST);
        let document = RawDocumentBuf::from_bytes(bson).map_err(|_| Error::invalid(INVALID))?;
        check_names(&document)?;
        Ok(Some(document))
    }

    /// Returns the error of the first invalid value, without the first `skipped` names of its
    /// path.
    fn check(&self, skipped: usize) -> Result<()> {
        match &self.fault {
            None if !self.is_array => Err(refused("the arguments are not an array".to_owned())),
            None => Ok(()),
            Some(Fault::NotExtendedJson(way)) => Err(invalid_at(way.iter().skip(skipped))),
            Some(Fault::NameTwice(way)) => {
                let path = query::shown_path(way.iter().skip(skipped));
                Err(refused(format!("the field '{path}' is there twice")))
            }
        }
    }
}

fn check_names(document: &RawDocument) -> Result<()> {
    query::validate_names(document).map_err(|error| Error::invalid(error.message))
}

/// Sets the length of the complete document that begins at `start`.
fn set_length(bson: &mut [u8], start: usize) {
    set_number(bson, start, bson.len() - start);
}

/// Writes a length at an index. The conversion cannot fail, because the BSON is much smaller than
/// 2 GB.
fn set_number(bson: &mut [u8], at: usize, number: usize) {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    bson[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Reserves space for `more` bytes in a buffer that rarely grows beyond `largest`.
fn reserve(buffer: &mut Vec<u8>, more: usize, largest: usize) {
    let needed = buffer.len() + more;
    if needed <= buffer.capacity() {
        return;
    }
    let wanted = needed.max(GROWTH * buffer.capacity());
    // The system does not get the old memory back immediately after a reallocation. The last
    // reallocation is therefore a large step from a small buffer.
    let capacity = if wanted > largest / GROWTH { largest.max(needed + needed / 8) } else { wanted };
    buffer.reserve_exact(capacity.saturating_sub(buffer.len()));
}

/// A member of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Name,
    Service,
    Arguments,
    Unknown,
}

/// A call that is partly decoded.
#[derive(Debug)]
struct Call {
    /// Number of open objects and arrays.
    depth: usize,
    is_object: bool,
    /// The current member of the call.
    member: Member,
    names: HashSet<String>,
    names_bytes: usize,
    /// The current name or string at the level of the call itself.
    text: Vec<u8>,
    /// True if the current name or string belongs to the call itself, and not to an unknown
    /// member.
    keeps_text: bool,
    name: Option<Json<'static>>,
    service: Option<Json<'static>>,
    has_arguments: bool,
    has_array: bool,
    count: usize,
    values: Values,
}

impl Call {
    fn new(largest: usize) -> Self {
        Self {
            depth: 0,
            is_object: false,
            member: Member::Unknown,
            names: HashSet::new(),
            names_bytes: 0,
            text: Vec::new(),
            keeps_text: false,
            name: None,
            service: None,
            has_arguments: false,
            has_array: false,
            count: 0,
            values: Values::new(largest),
        }
    }

    fn held(&self) -> usize {
        let Values { writer, wrapper, .. } = &self.values;
        self.names_bytes + self.text.len() + writer.out.len() + wrapper.text.len()
    }

    fn finish(self) -> Result<DecodedCall> {
        if !self.is_object {
            return Err(refused("the body must be a JSON object".to_owned()));
        }
        let members = [("name", self.name), ("service", self.service)];
        let head = members.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect();
        let arguments = Arguments {
            is_array: self.has_array,
            count: self.count,
            bson: self.values.writer.out,
            fault: self.values.fault,
        };
        Ok(DecodedCall { head: Json::Object(head), arguments: self.has_arguments.then_some(arguments) })
    }

    /// Records the start of a value. Returns true if it is in the arguments.
    fn begin_value(&mut self) -> bool {
        match self.depth {
            1 => match self.member {
                Member::Name => self.name = Some(Json::Null),
                Member::Service => self.service = Some(Json::Null),
                Member::Arguments => self.has_arguments = true,
                Member::Unknown => {}
            },
            2 if self.is_in_array() => self.count += 1,
            _ => {}
        }
        self.is_in_array()
    }

    fn is_in_array(&self) -> bool {
        self.depth >= 2 && self.member == Member::Arguments && self.has_array
    }

    /// Handles the name of a member of the call.
    fn take_name(&mut self) -> Result<(), Undecoded> {
        let name = self.take_text();
        self.member = match name.as_str() {
            "name" => Member::Name,
            "service" => Member::Service,
            "arguments" => Member::Arguments,
            _ => Member::Unknown,
        };
        self.names_bytes += size_of::<String>() + name.len();
        if self.names.contains(&name) {
            let path = query::shown_path([name]);
            return Err(refused(format!("the field '{path}' is there twice")).into());
        }
        if self.names.len() == MAX_OUTER {
            return Err(refused(format!("the body has more than {MAX_OUTER} members")).into());
        }
        self.names.insert(name);
        Ok(())
    }

    /// Takes the current text. The reader has checked that it is UTF-8.
    fn take_text(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.text)).unwrap_or_default()
    }
}

impl Sink for Call {
    fn open(&mut self, is_object: bool) -> Result<(), Undecoded> {
        let is_in_array = self.begin_value();
        self.depth += 1;
        match self.depth {
            1 => self.is_object = is_object,
            2 if self.member == Member::Arguments && !is_object => {
                self.has_array = true;
                self.values.begin();
            }
            _ if is_in_array => return self.values.open(is_object),
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, place: Place<'_>) -> Result<(), Undecoded> {
        let is_in_array = self.is_in_array();
        self.depth -= 1;
        if is_in_array { self.values.close(place) } else { Ok(()) }
    }

    fn begin_text(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded> {
        let is_in_array = if is_name { self.is_in_array() } else { self.begin_value() };
        let is_wanted = is_name || matches!(self.member, Member::Name | Member::Service);
        self.keeps_text = self.depth == 1 && self.is_object && is_wanted;
        if is_in_array { self.values.begin_text(is_name, place) } else { Ok(()) }
    }

    fn text(&mut self, part: &[u8]) -> Result<(), Undecoded> {
        if self.is_in_array() {
            return self.values.text(part);
        }
        if self.keeps_text {
            if self.text.len() + self.names_bytes + part.len() > self.values.writer.largest {
                return Err(Undecoded::TooLarge);
            }
            reserve(&mut self.text, part.len(), self.values.writer.largest);
            self.text.extend_from_slice(part);
        }
        Ok(())
    }

    fn end_text(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded> {
        if self.is_in_array() {
            return self.values.end_text(is_name, place);
        }
        if !std::mem::take(&mut self.keeps_text) {
            return Ok(());
        }
        if is_name {
            return self.take_name();
        }
        let text = Some(Json::Text(self.take_text().into()));
        match self.member {
            Member::Name => self.name = text,
            _ => self.service = text,
        }
        Ok(())
    }

    fn plain(&mut self, value: Json<'_>) -> Result<(), Undecoded> {
        if self.begin_value() { self.values.plain(&value) } else { Ok(()) }
    }
}

/// An object or array that is not complete.
#[derive(Debug)]
struct Frame {
    is_array: bool,
    /// Index of the length.
    start: usize,
    /// Number of members or items so far.
    count: usize,
    /// Index of the type of the current member or item.
    element: usize,
}

/// The partly written BSON of the arguments.
#[derive(Debug)]
struct Values {
    writer: Writer,
    frames: Vec<Frame>,
    /// The type wrapper that is being read.
    wrapper: Wrapper,
    /// Index of the length of the current text.
    text_start: usize,
    /// The first fault. No value is written after it.
    fault: Option<Fault>,
}

/// A type wrapper, collected as text.
#[derive(Debug, Default)]
struct Wrapper {
    /// Number of open objects and arrays, including the wrapper itself. 0 outside a wrapper.
    level: usize,
    /// Number of members so far.
    members: usize,
    text: Vec<u8>,
    /// Index of the first byte of the current piece that belongs to the text.
    from: usize,
    is_binary: bool,
    /// The current name in the object of `$binary`, unless it is longer than `base64`.
    name: Vec<u8>,
    is_name_read: bool,
    data: Option<Data>,
}

/// The data of a `$binary`, which is decoded directly and is not part of the collected text.
#[derive(Debug)]
struct Data {
    /// Index of the first byte in the BSON.
    start: usize,
    /// True until the base64 ends.
    is_open: bool,
    /// Up to four base64 characters that are not decoded yet, because the last four may contain
    /// padding.
    pending: Vec<u8>,
    is_valid: bool,
}

impl Values {
    fn new(largest: usize) -> Self {
        let largest = largest.saturating_add(AROUND);
        Self {
            writer: Writer::up_to(Reading::Strict, largest),
            frames: Vec::new(),
            wrapper: Wrapper::default(),
            text_start: 0,
            fault: None,
        }
    }

    /// Reserves space for the BSON of a piece.
    fn reserve(&mut self, more: usize) {
        if !self.frames.is_empty() {
            let largest = self.writer.largest.saturating_add(EXPANSION * SLICE);
            reserve(&mut self.writer.out, more, largest);
        }
    }

    /// Begins the array of the arguments.
    fn begin(&mut self) {
        let out = &mut self.writer.out;
        out.push(bson_type::ARRAY);
        out.extend_from_slice(ARGUMENTS);
        out.push(0);
        let start = self.writer.begin();
        self.frames.push(Frame { is_array: true, start, count: 0, element: 0 });
    }

    /// Checks that `bytes` more bytes do not exceed the maximum size.
    fn make_room(&mut self, bytes: usize) -> Result<(), Undecoded> {
        self.writer.make_room(bytes).ok_or(Undecoded::TooLarge)
    }

    /// Begins a value: writes its type, and its name if it is an item. The name of a member has
    /// already been written.
    fn begin_value(&mut self, type_byte: u8) -> Result<(), Undecoded> {
        self.make_room(2)?;
        let (Some(frame), out) = (self.frames.last_mut(), &mut self.writer.out) else { return Ok(()) };
        if frame.is_array {
            frame.element = out.len();
            out.push(type_byte);
            // Writing to memory does not fail.
            let _ = write!(out, "{}", frame.count);
            out.push(0);
            frame.count += 1;
        } else {
            out[frame.element] = type_byte;
        }
        Ok(())
    }

    /// Returns the name of the current member or item of a frame.
    fn name(&self, frame: &Frame) -> String {
        let name = self.writer.out.get(frame.element + 1..).unwrap_or_default();
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..length]).into_owned()
    }

    /// Returns the path of the current value, from the outside in.
    fn way(&self) -> Vec<String> {
        self.frames.iter().map(|frame| self.name(frame)).collect()
    }

    /// Records a fault, and releases the BSON.
    fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.frames = Vec::new();
        self.wrapper = Wrapper::default();
        self.writer.out = Vec::new();
    }

    fn fail_at(&mut self, way: Vec<String>) {
        self.fail(Fault::NotExtendedJson(way));
    }

    fn open(&mut self, is_object: bool) -> Result<(), Undecoded> {
        if self.fault.is_some() {
            return Ok(());
        }
        if self.wrapper.level > 0 {
            self.wrapper.level += 1;
            return Ok(());
        }
        self.begin_value(if is_object { bson_type::DOCUMENT } else { bson_type::ARRAY })?;
        let start = self.writer.begin();
        self.frames.push(Frame { is_array: !is_object, start, count: 0, element: 0 });
        Ok(())
    }

    fn close(&mut self, place: Place<'_>) -> Result<(), Undecoded> {
        if self.wrapper.level > 0 {
            self.wrapper.level -= 1;
            return if self.wrapper.level == 0 { self.end_wrapper(place) } else { Ok(()) };
        }
        if let Some(frame) = self.frames.pop() {
            self.writer.out.push(0);
            set_length(&mut self.writer.out, frame.start);
        }
        Ok(())
    }

    fn plain(&mut self, value: &Json<'_>) -> Result<(), Undecoded> {
        if self.fault.is_none() && self.wrapper.level == 0 {
            self.begin_value(plain_type(value))?;
            self.writer.plain(value);
        }
        Ok(())
    }

    fn begin_text(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded> {
        if self.fault.is_some() {
            return Ok(());
        }
        if self.wrapper.level > 0 {
            return self.begin_text_of_wrapper(is_name, place);
        }
        if is_name {
            self.make_room(2)?;
            if let Some(frame) = self.frames.last_mut() {
                frame.element = self.writer.out.len();
                frame.count += 1;
            }
            self.writer.out.push(0);
        } else {
            self.begin_value(bson_type::TEXT)?;
            self.text_start = self.writer.begin();
        }
        Ok(())
    }

    fn text(&mut self, part: &[u8]) -> Result<(), Undecoded> {
        if self.fault.is_some() {
            return Ok(());
        }
        if self.wrapper.level > 0 {
            return self.text_of_wrapper(part);
        }
        self.make_room(part.len())?;
        self.writer.out.extend_from_slice(part);
        Ok(())
    }

    fn end_text(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded> {
        if self.fault.is_some() {
            return Ok(());
        }
        if self.wrapper.level > 0 {
            self.end_text_of_wrapper(is_name, place);
            return Ok(());
        }
        if is_name {
            self.end_name(place)
        } else {
            let start = self.text_start;
            self.writer.out.push(0);
            let length = self.writer.out.len() - start - 4;
            set_number(&mut self.writer.out, start, length);
            Ok(())
        }
    }

    /// Ends the name of a member. Starts a type wrapper if the first name of an object is one.
    fn end_name(&mut self, place: Place<'_>) -> Result<(), Undecoded> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let name = &self.writer.out[frame.element + 1..];
        if name.contains(&0) {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut way = self.way();
            way.pop();
            way.push(name);
            self.fail_at(way);
            return Ok(());
        }
        let wrapper = (frame.count == 1)
            .then(|| query::EXTENDED_JSON_NAMES.iter().find(|wrapper| wrapper.as_bytes() == name))
            .flatten();
        self.writer.out.push(0);
        if let Some(name) = wrapper {
            self.begin_wrapper(name, place)?;
        }
        Ok(())
    }

    /// Turns the innermost object into a type wrapper.
    fn begin_wrapper(&mut self, name: &str, place: Place<'_>) -> Result<(), Undecoded> {
        // The wrapper becomes a value of the enclosing object or array, and not a document.
        if let Some(frame) = self.frames.pop() {
            self.writer.out.truncate(frame.start);
        }
        let mut text = std::mem::take(&mut self.wrapper.text);
        text.clear();
        // Writing to memory does not fail.
        let _ = write!(text, "{{\"{name}\"");
        let is_binary = name == "$binary";
        let mut name = std::mem::take(&mut self.wrapper.name);
        name.clear();
        self.wrapper = Wrapper { level: 1, members: 1, text, from: place.end, is_binary, name, ..Wrapper::default() };
        Ok(())
    }

    fn begin_text_of_wrapper(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded> {
        let wrapper = &mut self.wrapper;
        if is_name && wrapper.level == 1 {
            wrapper.members += 1;
            if wrapper.members > MAX_WRAPPER {
                let way = self.way();
                self.fail_at(way);
            }
            return Ok(());
        }
        if !wrapper.is_binary || wrapper.level != 2 || wrapper.members > 1 {
            return Ok(());
        }
        if is_name {
            wrapper.name.clear();
            wrapper.is_name_read = true;
        } else if wrapper.name == BASE64 && wrapper.data.is_none() {
            wrapper.take(place.piece, place.end);
            // Space for the length and the subtype, which precede the data.
            self.make_room(5)?;
            self.writer.out.extend_from_slice(&[0; 5]);
            let start = self.writer.out.len();
            self.wrapper.data = Some(Data { start, is_open: true, pending: Vec::with_capacity(4), is_valid: true });
        }
        Ok(())
    }

    fn text_of_wrapper(&mut self, part: &[u8]) -> Result<(), Undecoded> {
        let wrapper = &mut self.wrapper;
        if wrapper.is_name_read && wrapper.name.len() + part.len() <= BASE64.len() {
            wrapper.name.extend_from_slice(part);
        } else if wrapper.is_name_read {
            // The name is longer than `base64`, so it is another one.
            wrapper.name.clear();
            wrapper.is_name_read = false;
        } else if let Some(data) = wrapper.data.as_mut().filter(|data| data.is_open && data.is_valid) {
            self.writer.make_room(part.len() / 4 * 3 + 3).ok_or(Undecoded::TooLarge)?;
            data.decode(part, &mut self.writer.out);
        }
        Ok(())
    }

    fn end_text_of_wrapper(&mut self, is_name: bool, place: Place<'_>) {
        self.wrapper.is_name_read = false;
        if !is_name && let Some(data) = self.wrapper.data.as_mut().filter(|data| data.is_open) {
            data.finish(&mut self.writer.out);
            // The collected text contains both quotes around the data, which is left out.
            self.wrapper.text.push(b'"');
            self.wrapper.from = place.end;
        }
    }

    /// Collects the rest of the piece if a type wrapper is incomplete.
    fn end_piece(&mut self, piece: &[u8]) {
        if self.wrapper.level > 0 {
            self.wrapper.take(piece, piece.len());
            self.wrapper.from = 0;
        }
    }

    /// Writes the value that a type wrapper represents.
    fn end_wrapper(&mut self, place: Place<'_>) -> Result<(), Undecoded> {
        self.wrapper.take(place.piece, place.end);
        let text = std::mem::take(&mut self.wrapper.text);
        let written = self.put_wrapper(&text)?;
        if let Some(fault) = written {
            self.fail(fault);
        } else if text.capacity() <= KEPT_TEXT {
            self.wrapper.text = text;
        }
        Ok(())
    }

    /// Parses and writes a complete type wrapper. Returns the fault if it is not valid.
    fn put_wrapper(&mut self, text: &[u8]) -> Result<Option<Fault>, Undecoded> {
        let json = read_stored(text)?;
        if let Some(names) = names::find(&json) {
            let mut way = self.way();
            way.extend(names.iter().rev().map(|name| name.clone().into_owned()));
            return Ok(Some(Fault::NameTwice(way)));
        }
        let Some(frame) = self.frames.last() else { return Ok(None) };
        let (element, name) = (frame.element, self.name(frame));
        let is_written = match self.wrapper.data.take() {
            Some(data) => self.put_binary(&data, element, &json),
            None => {
                self.writer.out.truncate(element);
                self.reserve(text.len());
                self.writer.value(&name, json)
            }
        };
        if self.writer.is_full {
            return Err(Undecoded::TooLarge);
        }
        if is_written.is_some() {
            return Ok(None);
        }
        let mut way = self.way();
        way.pop();
        way.push(name);
        Ok(Some(Fault::NotExtendedJson(way)))
    }

    /// Sets the type, subtype and length of binary data that has been written.
    fn put_binary(&mut self, data: &Data, element: usize, json: &Json<'_>) -> Option<()> {
        const OLD_SUBTYPE: u8 = 2;
        let Json::Object(members) = json else { return None };
        let Some(RawBson::Binary(binary)) = unwrap(members, Reading::Strict, 0) else { return None };
        if !data.is_valid || !binary.bytes.is_empty() {
            return None;
        }
        let out = &mut self.writer.out;
        out[element] = bson_type::BINARY;
        let subtype = u8::from(binary.subtype);
        out[data.start - 1] = subtype;
        // The data of the old subtype begins with a second length.
        if subtype == OLD_SUBTYPE {
            let length = i32::try_from(out.len() - data.start).ok()?;
            out.splice(data.start..data.start, length.to_le_bytes());
        }
        let length = out.len() - data.start;
        set_number(out, data.start - 5, length);
        Some(())
    }
}

/// The name of the data in the object of `$binary`.
const BASE64: &[u8] = b"base64";

impl Wrapper {
    /// Collects the part of a piece up to `end`, unless it is data of a `$binary`.
    fn take(&mut self, piece: &[u8], end: usize) {
        if self.data.as_ref().is_some_and(|data| data.is_open) {
            return;
        }
        let part = piece.get(self.from..end).unwrap_or_default();
        reserve(&mut self.text, part.len(), MAX_TEXT);
        self.text.extend_from_slice(part);
        self.from = end;
    }
}

impl Data {
    /// Decodes further characters, except the last one to four, which may contain padding.
    fn decode(&mut self, part: &[u8], out: &mut Vec<u8>) {
        let all = self.pending.len() + part.len();
        // One to four characters remain.
        let whole = all.saturating_sub(1) / 4 * 4;
        if whole == 0 {
            self.pending.extend_from_slice(part);
            return;
        }
        let (first, rest) = part.split_at(4 - self.pending.len());
        self.pending.extend_from_slice(first);
        let (middle, last) = rest.split_at(whole - 4);
        for characters in [&self.pending[..], middle] {
            self.is_valid &= STANDARD_NO_PAD.decode_vec(characters, out).is_ok();
        }
        self.pending.clear();
        self.pending.extend_from_slice(last);
    }

    /// Decodes the last characters.
    fn finish(&mut self, out: &mut Vec<u8>) {
        self.is_open = false;
        self.is_valid &= STANDARD.decode_vec(&self.pending, out).is_ok();
    }
}
