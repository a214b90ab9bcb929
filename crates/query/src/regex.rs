//! Regular expressions as the server has them: PCRE2 on UTF-8, with limits on what one match may cost.

use std::{sync::Arc, time::Instant};

use bson::raw::{RawBsonRef, cstr};

use crate::{Error, Result, budget};

/// How much work a match that begins at one place may be, and how deep it may nest: a pattern that backtracks without end
/// does not match. PCRE2 takes about 10 ms for so many steps.
const LIMITS: &str = "(*LIMIT_MATCH=400000)(*LIMIT_DEPTH=5000)";

/// Steps that a match is charged, beside the bytes of the text.
const MATCH: u64 = 8;

/// Nanoseconds of a match that are charged as one step.
const NANOSECONDS_A_STEP: u128 = 10;

/// Steps that compiling a pattern is charged, beside its bytes.
const COMPILE: u64 = 256;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 32_764;

/// A compiled regular expression, with what it was made from.
#[derive(Clone)]
pub struct Regex {
    pattern: String,
    options: String,
    compiled: Arc<pcre2::bytes::Regex>,
    /// True if a match may take longer than the length of the text tells, so that its time is charged.
    may_backtrack: bool,
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
    /// Compiles a pattern with the options `i`, `m`, `s`, `x` and `u`, of which the last means nothing: all is UTF-8.
    ///
    /// # Errors
    /// Where an option does not exist or the pattern is not one.
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
        let has = |flag| options.contains(flag);
        // Verbs such as (*UTF) come first in a pattern; ours before them.
        let compiled = pcre2::bytes::RegexBuilder::new()
            .utf(true)
            .caseless(has('i'))
            .multi_line(has('m'))
            .dotall(has('s'))
            .extended(has('x'))
            .build(&format!("{LIMITS}{pattern}"))
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

    /// As a BSON value.
    pub(crate) fn to_bson(&self) -> bson::Regex {
        // Neither can have a null byte, which is all that could be wrong.
        let text = |text: &str| text.try_into().unwrap_or_else(|_| cstr!("").into());
        bson::Regex { pattern: text(&self.pattern), options: text(&self.options) }
    }

    /// Whether text matches. What would cost more than the limits does not.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.charge(text, 0).is_ok() && self.timed(|compiled| compiled.is_match(text.as_bytes())).unwrap_or(false)
    }

    /// Charges a match that begins to look at a byte of text.
    pub(crate) fn charge(&self, text: &str, from: usize) -> Result<()> {
        budget::charge(MATCH)?;
        budget::charge_bytes(text.len().saturating_sub(from))
    }

    /// Whether a value is text that matches, or the same regular expression.
    pub(crate) fn matches(&self, value: Option<RawBsonRef<'_>>) -> bool {
        match value {
            Some(RawBsonRef::String(text) | RawBsonRef::Symbol(text)) => self.is_match(text),
            Some(RawBsonRef::RegularExpression(other)) => {
                (other.pattern.as_str(), other.options.as_str()) == (&self.pattern, &self.options)
            }
            _ => false,
        }
    }

    /// Matches in a way of the caller's, and charges the time that it takes.
    pub(crate) fn timed<'r, T>(&'r self, matching: impl FnOnce(&'r pcre2::bytes::Regex) -> T) -> T {
        if !self.may_backtrack {
            return matching(&self.compiled);
        }
        let begun = Instant::now();
        let answer = matching(&self.compiled);
        budget::spend((begun.elapsed().as_nanos() / NANOSECONDS_A_STEP) as u64);
        answer
    }
}
