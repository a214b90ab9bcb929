//! A JSON tokenizer for text that arrives in pieces. It keeps its state between two pieces and
//! reads each byte only once.
//!
//! It accepts the same text as `serde_json`. The crate `actson` reads in pieces too, but it
//! accepts lone surrogates and buffers a string until its end.

use super::{
    Json,
    incremental::Undecoded,
    read::{MAX_DEPTH, not_json, too_deep, tree},
};

/// A consumer of the tokens of JSON text.
pub(super) trait Sink {
    /// Handles the start of an object or an array.
    fn open(&mut self, is_object: bool) -> Result<(), Undecoded>;

    /// Handles the end of the innermost object or array.
    fn close(&mut self, place: Place<'_>) -> Result<(), Undecoded>;

    /// Handles the start of a member's name or of a string.
    fn begin_text(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded>;

    /// Handles further bytes of the name or string, with escapes resolved. A part may end inside a
    /// UTF-8 sequence.
    fn text(&mut self, part: &[u8]) -> Result<(), Undecoded>;

    /// Handles the end of the name or string. Its bytes are valid UTF-8.
    fn end_text(&mut self, is_name: bool, place: Place<'_>) -> Result<(), Undecoded>;

    /// Handles a number, a boolean or a null.
    fn plain(&mut self, value: Json<'_>) -> Result<(), Undecoded>;
}

/// The position of the end of a token.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    /// The piece in which the token ends.
    pub(super) piece: &'p [u8],
    /// Index of the first byte after the token.
    pub(super) end: usize,
}

/// The state of the tokenizer, named after the tokens that it accepts next.
#[derive(Debug, Clone, Copy)]
enum State {
    Value,
    /// After the opening bracket of an array.
    ValueOrEnd,
    Name,
    /// After the opening brace of an object.
    NameOrEnd,
    Colon,
    CommaOrEnd,
    /// After the outermost value.
    End,
    Text,
    Number,
    Literal(Literal),
}

/// A literal (`true`, `false` or `null`) that is partly read.
#[derive(Debug, Clone, Copy)]
struct Literal {
    text: &'static [u8],
    read: usize,
}

/// The state inside an escape sequence. `high` is the first half of a surrogate pair.
#[derive(Debug, Clone, Copy)]
enum Escape {
    None,
    Backslash,
    /// After `\u`. `code` is `None` if a digit was not hexadecimal.
    Hex {
        digits: u8,
        code: Option<u16>,
        high: Option<u16>,
    },
    /// Expects the backslash of the second half.
    LowBackslash(u16),
    /// Expects the `u` of the second half.
    LowLetter(u16),
}

/// A name or string that is partly read.
#[derive(Debug)]
struct Text {
    is_name: bool,
    escape: Escape,
    /// The bytes of an incomplete UTF-8 sequence.
    partial: [u8; 4],
    partial_len: usize,
    /// Number of bytes so far, with escapes resolved.
    length: usize,
    /// Number of bytes before the first invalid UTF-8 sequence, if there is one.
    valid: Option<usize>,
}

impl Text {
    fn new(is_name: bool) -> Self {
        Self { is_name, escape: Escape::None, partial: [0; 4], partial_len: 0, length: 0, valid: None }
    }

    /// Checks that further bytes are valid UTF-8.
    fn check(&mut self, mut part: &[u8]) {
        while self.partial_len > 0 {
            let Some((&first, rest)) = part.split_first() else { return };
            self.partial[self.partial_len] = first;
            match std::str::from_utf8(&self.partial[..=self.partial_len]) {
                Ok(_) => self.partial_len = 0,
                Err(error) if error.error_len().is_none() => self.partial_len += 1,
                Err(_) => {
                    // The byte may start another sequence, which is irrelevant after the first
                    // error.
                    self.complete();
                }
            }
            self.length += 1;
            part = rest;
        }
        if let Err(error) = std::str::from_utf8(part) {
            let rest = &part[error.valid_up_to()..];
            if error.error_len().is_none() {
                self.partial[..rest.len()].copy_from_slice(rest);
                self.partial_len = rest.len();
            } else {
                self.valid.get_or_insert(self.length + error.valid_up_to());
            }
        }
        self.length += part.len();
    }

    /// Records an incomplete sequence as an error.
    fn complete(&mut self) {
        if self.partial_len > 0 {
            self.valid.get_or_insert(self.length - self.partial_len);
            self.partial_len = 0;
        }
    }
}

/// A tokenizer of JSON in pieces.
#[derive(Debug)]
pub(super) struct Tokens {
    state: State,
    /// The open objects (true) and arrays (false).
    open: Vec<bool>,
    text: Text,
    /// The first part of a number that continues in the next piece.
    number: Vec<u8>,
    /// Offset of the first byte of the current number.
    number_start: usize,
    /// Number of bytes before the current piece.
    offset: usize,
    line: usize,
    /// Offset of the first byte of the current line.
    line_start: usize,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value,
            open: Vec::new(),
            text: Text::new(false),
            number: Vec::new(),
            number_start: 0,
            offset: 0,
            line: 1,
            line_start: 0,
        }
    }

    /// Returns the number of bytes that the tokenizer holds.
    pub(super) fn held(&self) -> usize {
        self.number.capacity()
    }

    /// Reads a piece and passes its tokens to the sink.
    ///
    /// # Errors
    /// If the text is not JSON or nested too deep, and the errors of the sink. The tokenizer must
    /// not be used after an error.
    pub(super) fn push(&mut self, piece: &[u8], sink: &mut impl Sink) -> Result<(), Undecoded> {
        let mut at = 0;
        while at < piece.len() {
            at = match self.state {
                State::Text => self.read_text(piece, at, sink)?,
                State::Number => self.read_number(piece, at, sink)?,
                State::Literal(literal) => self.read_literal(literal, piece, at, sink)?,
                state => self.read_structure(state, piece, at, sink)?,
            };
        }
        self.offset += piece.len();
        Ok(())
    }

    /// Ends the text.
    ///
    /// # Errors
    /// If the text is incomplete.
    pub(super) fn finish(&mut self, sink: &mut impl Sink) -> Result<(), Undecoded> {
        if matches!(self.state, State::Number) {
            let number = std::mem::take(&mut self.number);
            self.put_number(&number, &[], 0, sink)?;
        }
        match self.state {
            State::End => Ok(()),
            _ => Err(not_json(self.line, self.offset - self.line_start).into()),
        }
    }

    /// Returns the error of an unexpected byte of a piece.
    fn wrong(&self, piece: &[u8], at: usize) -> Undecoded {
        match piece.get(at) {
            Some(b'\n') => not_json(self.line + 1, 0).into(),
            _ => not_json(self.line, self.offset + at + 1 - self.line_start).into(),
        }
    }

    fn end_value(&mut self) {
        self.state = if self.open.is_empty() { State::End } else { State::CommaOrEnd };
    }

    /// Reads a byte outside of names, strings, numbers and literals.
    fn read_structure(
        &mut self,
        state: State,
        piece: &[u8],
        at: usize,
        sink: &mut impl Sink,
    ) -> Result<usize, Undecoded> {
        let end = at + 1;
        match (state, piece[at]) {
            (_, b' ' | b'\t' | b'\r') => {}
            (_, b'\n') => {
                self.line += 1;
                self.line_start = self.offset + end;
            }
            (State::Value | State::ValueOrEnd, b'"') => self.begin_text(false, Place { piece, end }, sink)?,
            (State::Name | State::NameOrEnd, b'"') => self.begin_text(true, Place { piece, end }, sink)?,
            (State::Value | State::ValueOrEnd, bracket @ (b'{' | b'[')) => {
                if self.open.len() == MAX_DEPTH {
                    return Err(too_deep().into());
                }
                let is_object = bracket == b'{';
                self.open.push(is_object);
                self.state = if is_object { State::NameOrEnd } else { State::ValueOrEnd };
                sink.open(is_object)?;
            }
            (State::Value | State::ValueOrEnd, b'-' | b'0'..=b'9') => {
                self.state = State::Number;
                self.number_start = self.offset + at;
                return Ok(at);
            }
            (State::Value | State::ValueOrEnd, first @ (b't' | b'f' | b'n')) => {
                let text: &[u8] = match first {
                    b't' => b"true",
                    b'f' => b"false",
                    _ => b"null",
                };
                self.state = State::Literal(Literal { text, read: 1 });
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::CommaOrEnd, b',') => {
                self.state = if self.open.last() == Some(&true) { State::Name } else { State::Value };
            }
            (State::NameOrEnd, b'}') | (State::ValueOrEnd, b']') => self.close(Place { piece, end }, sink)?,
            (State::CommaOrEnd, b'}') if self.open.last() == Some(&true) => self.close(Place { piece, end }, sink)?,
            (State::CommaOrEnd, b']') if self.open.last() == Some(&false) => self.close(Place { piece, end }, sink)?,
            _ => return Err(self.wrong(piece, at)),
        }
        Ok(end)
    }

    fn close(&mut self, place: Place<'_>, sink: &mut impl Sink) -> Result<(), Undecoded> {
        self.open.pop();
        self.end_value();
        sink.close(place)
    }

    fn begin_text(&mut self, is_name: bool, place: Place<'_>, sink: &mut impl Sink) -> Result<(), Undecoded> {
        self.text = Text::new(is_name);
        self.state = State::Text;
        sink.begin_text(is_name, place)
    }

    /// Reads bytes of a name or string up to an escape, its end, or the end of the piece.
    fn read_text(&mut self, piece: &[u8], from: usize, sink: &mut impl Sink) -> Result<usize, Undecoded> {
        if !matches!(self.text.escape, Escape::None) {
            self.read_escape(piece, from, sink)?;
            return Ok(from + 1);
        }
        let rest = &piece[from..];
        let length = rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
        if length > 0 {
            self.text.check(&rest[..length]);
            sink.text(&rest[..length])?;
        }
        let at = from + length;
        match piece.get(at) {
            None => return Ok(at),
            Some(b'\\') => {
                self.text.complete();
                self.text.escape = Escape::Backslash;
            }
            Some(b'"') => {
                self.text.complete();
                if let Some(valid) = self.text.valid {
                    // The same column as `serde_json` reports. It is approximate if there are
                    // escapes.
                    let column = self.offset + at + 1 - self.line_start;
                    return Err(not_json(self.line, column.saturating_sub(self.text.length - valid)).into());
                }
                match self.text.is_name {
                    true => self.state = State::Colon,
                    false => self.end_value(),
                }
                sink.end_text(self.text.is_name, Place { piece, end: at + 1 })?;
            }
            Some(_) => return Err(self.wrong(piece, at)),
        }
        Ok(at + 1)
    }

    /// Reads a byte of an escape sequence.
    fn read_escape(&mut self, piece: &[u8], at: usize, sink: &mut impl Sink) -> Result<(), Undecoded> {
        let byte = piece[at];
        let hex = |high| Escape::Hex { digits: 0, code: Some(0), high };
        self.text.escape = match (self.text.escape, byte) {
            (Escape::Backslash, b'u') => hex(None),
            (Escape::Backslash, byte) => {
                let unescaped = match byte {
                    b'"' | b'\\' | b'/' => byte,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => return Err(self.wrong(piece, at)),
                };
                self.text.length += 1;
                sink.text(&[unescaped])?;
                Escape::None
            }
            (Escape::LowBackslash(high), b'\\') => Escape::LowLetter(high),
            (Escape::LowLetter(high), b'u') => hex(Some(high)),
            (Escape::Hex { digits, code, high }, byte) => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
                let code = code.zip(digit).map(|(code, digit)| (code << 4) | digit);
                if digits < 3 {
                    if byte == b'\n' {
                        // This is an error, which is reported after the fourth digit.
                        self.line += 1;
                        self.line_start = self.offset + at + 1;
                    }
                    Escape::Hex { digits: digits + 1, code, high }
                } else {
                    let code = code.ok_or_else(|| self.wrong(piece, at))?;
                    match (high, code) {
                        (None, 0xd800..0xdc00) => Escape::LowBackslash(code),
                        _ => {
                            let units = high.into_iter().chain([code]);
                            // The iterator yields exactly one result: with a high half, the second
                            // unit is consumed or is an error.
                            let Some(Ok(character)) = char::decode_utf16(units).next() else {
                                return Err(self.wrong(piece, at));
                            };
                            self.text.length += character.len_utf8();
                            sink.text(character.encode_utf8(&mut [0; 4]).as_bytes())?;
                            Escape::None
                        }
                    }
                }
            }
            _ => return Err(self.wrong(piece, at)),
        };
        Ok(())
    }

    fn read_number(&mut self, piece: &[u8], at: usize, sink: &mut impl Sink) -> Result<usize, Undecoded> {
        let rest = &piece[at..];
        let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        match rest.iter().position(|byte| !is_of_number(byte)) {
            None => {
                self.number.extend_from_slice(rest);
                Ok(piece.len())
            }
            Some(length) if self.number.is_empty() => {
                self.put_number(&rest[..length], piece, at + length, sink)?;
                Ok(at + length)
            }
            Some(length) => {
                let mut number = std::mem::take(&mut self.number);
                number.extend_from_slice(&rest[..length]);
                self.put_number(&number, piece, at + length, sink)?;
                Ok(at + length)
            }
        }
    }

    /// Parses a complete number and passes it to the sink. `next` is the index of the byte after
    /// it in the piece.
    fn put_number(&mut self, text: &[u8], piece: &[u8], next: usize, sink: &mut impl Sink) -> Result<(), Undecoded> {
        let number = tree(text).map_err(|error| {
            // If a digit is missing, the error is at the byte after the number.
            if error.is_eof() && next < piece.len() {
                return self.wrong(piece, next);
            }
            not_json(self.line, self.number_start - self.line_start + error.column()).into()
        })?;
        self.end_value();
        sink.plain(number)
    }

    fn read_literal(
        &mut self,
        Literal { text, read }: Literal,
        piece: &[u8],
        at: usize,
        sink: &mut impl Sink,
    ) -> Result<usize, Undecoded> {
        if text[read] != piece[at] {
            return Err(self.wrong(piece, at));
        }
        if read + 1 < text.len() {
            self.state = State::Literal(Literal { text, read: read + 1 });
        } else {
            self.end_value();
            sink.plain(match text[0] {
                b't' => Json::Boolean(true),
                b'f' => Json::Boolean(false),
                _ => Json::Null,
            })?;
        }
        Ok(at + 1)
    }
}
