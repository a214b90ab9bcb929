//! Regular expressions as in the server: PCRE2 on UTF-8, with limits on the cost of a search.

mod pcre;

use std::{cell::RefCell, ops::Range, sync::Arc, time::Instant};

use bson::raw::{RawBsonRef, cstr};

use crate::{Error, Result, budget};
use pcre::{Code, Found, Scratch};

/// PCRE2's match limit for one start position: a pattern that exceeds it does not match. PCRE2
/// takes about 10 ms for it, and all start positions of one window together may take that much.
const MATCH_LIMIT: u32 = 400_000;

/// Start positions in the first window. Most strings have no more, and most matches begin there.
const FIRST_WINDOW: usize = 128;

/// Match limit per start position in the first window, whose time is not measured.
const FIRST_LIMIT: u32 = 64;

/// Steps charged for the first window.
const FIRST: u64 = 16;

/// Maximum number of start positions in a window. PCRE2 may scan the whole text for each window.
const WIDEST_WINDOW: usize = 64 * 1024;

/// Minimum match limit per start position in a window of any width.
const LEAST_LIMIT: u32 = 64;

/// Factor by which windows become wider, or narrower if a start position exceeds its share.
const GROWTH: usize = 16;

/// Nanoseconds of a search that are charged as one step.
const NANOSECONDS_A_STEP: u128 = 10;

/// Steps charged for compiling a pattern, in addition to one step per byte.
const COMPILE: u64 = 256;

/// Maximum length of a pattern in bytes, as in the server.
const MAX_PATTERN: usize = 32_764;

/// A compiled regular expression with its source. Clones share the compiled code; two expressions
/// are equal if pattern and options are.
#[derive(Clone)]
pub struct Regex {
    pattern: String,
    options: String,
    compiled: Arc<Code>,
    /// True if a match may take longer than a scan of the text.
    may_backtrack: bool,
}

thread_local! {
    /// Memory for searches that only test if there is a match.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "/{}/{}", self.pattern, self.options)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.options) == (&other.pattern, &other.options)
    }
}

impl Regex {
    /// Compiles a pattern with the options `i`, `m`, `s`, `x` and `u`. The option `u` has no
    /// effect: all patterns are UTF-8.
    ///
    /// # Errors
    /// Fails for an unknown option (51108) or an invalid pattern (51091).
    pub(crate) fn new(pattern: &str, options: &str) -> Result<Self> {
        if pattern.contains('\0') {
            return Err(Error::bad_value("Regular expression cannot contain an embedded null byte"));
        }
        if let Some(flag) = options.chars().find(|flag| !"imsxu".contains(*flag)) {
            return Err(Error::location(51108, format!("invalid flag in regex options: {flag}")));
        }
        if pattern.len() > MAX_PATTERN {
            return Err(Error::location(51091, "Regular expression is invalid: pattern string is longer than allowed"));
        }
        budget::charge(COMPILE + pattern.len() as u64)?;
        let compiled = Code::compile(pattern, options)
            .map_err(|error| Error::location(51091, format!("Regular expression is invalid: {error}")))?;
        let may_backtrack = pattern.contains(['*', '+', '?', '{', '|']);
        Ok(Self {
            pattern: pattern.to_owned(),
            options: options.to_owned(),
            compiled: Arc::new(compiled),
            may_backtrack,
        })
    }

    /// Compiles a BSON regular expression.
    pub(crate) fn of(value: bson::raw::RawRegexRef<'_>) -> Result<Self> {
        Self::new(value.pattern.as_str(), value.options.as_str())
    }

    /// Returns the regular expression as a BSON value.
    pub(crate) fn to_bson(&self) -> bson::Regex {
        // Neither can contain a NUL byte, which is the only possible error.
        let text = |text: &str| text.try_into().unwrap_or_else(|_| cstr!("").into());
        bson::Regex { pattern: text(&self.pattern), options: text(&self.options) }
    }

    /// True if the text matches. A match that would exceed the limits counts as none.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_none() {
                *scratch = Scratch::new();
            }
            scratch.as_mut().is_some_and(|scratch| self.search(scratch, text, 0))
        })
    }

    /// Iterates over the matches in a text. Each item has the byte ranges of the match and of its
    /// groups.
    pub(crate) fn matches_in<'r>(&'r self, text: &'r str) -> Matches<'r> {
        Matches { regex: self, text, scratch: Scratch::of(&self.compiled), from: Some(0), last: None }
    }

    /// Searches text from a byte offset, and charges the time. Ends without a match if the budget
    /// is exhausted.
    fn search(&self, scratch: &mut Scratch, text: &str, from: usize) -> bool {
        if !budget::spend(FIRST) || !budget::spend_bytes(text.len() - from) {
            return false;
        }
        let code = &self.compiled;
        if !self.may_backtrack {
            return matches!(scratch.search(code, text, from..text.len(), MATCH_LIMIT), Found::Match);
        }
        let end = boundary(text, from.saturating_add(FIRST_WINDOW));
        match scratch.search(code, text, from..end, FIRST_LIMIT) {
            Found::Match => true,
            Found::Nothing => end < text.len() && self.search_on(scratch, text, boundary(text, end + 1)),
            Found::TooMuch => self.search_on(scratch, text, from),
        }
    }

    /// Searches in windows that grow as long as no start position exceeds its share of the match
    /// limit.
    fn search_on(&self, scratch: &mut Scratch, text: &str, from: usize) -> bool {
        let (mut start, mut width, mut widest) = (from, FIRST_WINDOW, WIDEST_WINDOW);
        loop {
            let end = boundary(text, start.saturating_add(width - 1));
            let share = u32::try_from(width).map_or(LEAST_LIMIT, |width| (MATCH_LIMIT / width).max(LEAST_LIMIT));
            let begun = Instant::now();
            let found = scratch.search(&self.compiled, text, start..end, share);
            let may_go_on = budget::spend((begun.elapsed().as_nanos() / NANOSECONDS_A_STEP) as u64);
            match found {
                Found::Match => return true,
                Found::Nothing if may_go_on && end < text.len() => {
                    start = boundary(text, end + 1);
                    width = width.saturating_mul(GROWTH).min(widest);
                }
                Found::TooMuch if may_go_on && width > 1 => {
                    width = (width / GROWTH).max(1);
                    // Wider windows would fail again.
                    widest = width;
                }
                Found::Nothing | Found::TooMuch => return false,
            }
        }
    }

    /// True if a value is a string that matches, or the same regular expression.
    pub(crate) fn matches(&self, value: Option<RawBsonRef<'_>>) -> bool {
        match value {
            Some(RawBsonRef::String(text) | RawBsonRef::Symbol(text)) => self.is_match(text),
            Some(RawBsonRef::RegularExpression(other)) => {
                (other.pattern.as_str(), other.options.as_str()) == (&self.pattern, &self.options)
            }
            _ => false,
        }
    }
}

/// Returns the first character boundary at or after a byte offset.
fn boundary(text: &str, place: usize) -> usize {
    (place..text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len())
}

/// An iterator over the non-overlapping matches in a text.
pub(crate) struct Matches<'r> {
    regex: &'r Regex,
    text: &'r str,
    scratch: Option<Scratch>,
    /// Byte offset at which the next search begins.
    from: Option<usize>,
    /// The end of the last match.
    last: Option<usize>,
}

impl Iterator for Matches<'_> {
    type Item = Vec<Option<Range<usize>>>;

    fn next(&mut self) -> Option<Self::Item> {
        let scratch = self.scratch.as_mut()?;
        loop {
            let from = self.from?;
            if !self.regex.search(scratch, self.text, from) {
                self.from = None;
                return None;
            }
            let places = scratch.places();
            let Range { start, end } = places.first()?.clone()?;
            let is_empty = start >= end;
            self.from = match is_empty || end <= from {
                // The next search begins after the next character.
                true => (end.max(from) < self.text.len()).then(|| boundary(self.text, end.max(from) + 1)),
                false => Some(boundary(self.text, end)),
            };
            // An empty match directly after another match does not count.
            if !(is_empty && self.last == Some(end)) {
                self.last = Some(end);
                return Some(places);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Budget, Limits};

    fn all(pattern: &str, text: &str) -> Vec<Range<usize>> {
        let regex = Regex::new(pattern, "").unwrap();
        regex.matches_in(text).map(|places| places[0].clone().unwrap()).collect()
    }

    #[test]
    fn finds_all_matches_in_every_window() {
        assert_eq!(all("a+", "aa b aaa"), [0..2, 5..8]);
        assert_eq!(all("a*", "éab"), [0..0, 2..3, 4..4]);
        assert_eq!(all("", "é"), [0..0, 2..2]);
        assert_eq!(all("(?<=é)x|^y", "éx éx"), [2..3, 6..7]);
        for place in (0..2_000).chain([20_000, 70_000]) {
            let text = format!("{}xyyz{}", "é".repeat(place), "é".repeat(10));
            assert_eq!(all("x(y|w)+z", &text).first(), Some(&(2 * place..2 * place + 4)));
            assert!(Regex::new("x(y|w)+z", "").unwrap().is_match(&text));
            assert!(!Regex::new("x(y|w)+z$", "").unwrap().is_match(&text));
            assert!(Regex::new("^(.|x)*?z", "").unwrap().is_match(&text) || place > 4_000);
        }
    }

    /// PCRE2's own limit applies to each start position separately.
    #[test]
    fn stops_a_search_that_is_slow_at_every_position() {
        let regex = Regex::new("(?:a|a){17}[bc]", "").unwrap();
        let budget = Budget::new(Limits { time: Some(Duration::from_millis(50)), ..Limits::default() });
        let begun = Instant::now();
        assert!(!budget.enter(|| regex.is_match(&"a".repeat(100_000))));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(budget.is_exhausted());
    }
}
