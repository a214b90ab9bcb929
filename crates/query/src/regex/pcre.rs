//! Bindings to PCRE2.
//!
//! The safe wrapper cannot bound a whole search: PCRE2's match limit starts again at each start
//! position, so that one search may take that limit times the length of the text. This module
//! searches windows of start positions, between which the caller checks the budget.
#![allow(unsafe_code, reason = "PCRE2 is a C library, and its wrapper has no offset limit")]

use std::{
    ffi::c_int,
    ops::Range,
    ptr::{self, NonNull},
};

use pcre2_sys::{
    PCRE2_CASELESS, PCRE2_DOTALL, PCRE2_ERROR_NOMATCH, PCRE2_EXTENDED, PCRE2_MULTILINE, PCRE2_NEVER_BACKSLASH_C,
    PCRE2_NO_UTF_CHECK, PCRE2_USE_OFFSET_LIMIT, PCRE2_UTF, pcre2_code_8, pcre2_code_free_8, pcre2_compile_8,
    pcre2_get_error_message_8, pcre2_get_ovector_count_8, pcre2_get_ovector_pointer_8, pcre2_match_8,
    pcre2_match_context_8, pcre2_match_context_create_8, pcre2_match_context_free_8, pcre2_match_data_8,
    pcre2_match_data_create_8, pcre2_match_data_create_from_pattern_8, pcre2_match_data_free_8,
    pcre2_set_depth_limit_8, pcre2_set_match_limit_8, pcre2_set_offset_limit_8,
};

/// Maximum nesting depth of a match.
const DEPTH_LIMIT: u32 = 5_000;

/// A compiled pattern.
pub(super) struct Code(NonNull<pcre2_code_8>);

// SAFETY: PCRE2 documents that matching does not change a compiled pattern, and that threads may
// share it. It is freed once, by the last owner.
unsafe impl Send for Code {}
// SAFETY: As for `Send`.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: The pointer came from `pcre2_compile_8` and is not used afterwards.
        unsafe { pcre2_code_free_8(self.0.as_ptr()) };
    }
}

impl Code {
    /// Compiles a pattern with options, one letter each: `i`, `m`, `s` or `x`.
    ///
    /// # Errors
    /// PCRE2's message.
    pub(super) fn compile(pattern: &str, options: &str) -> Result<Self, String> {
        let option = |letter, option| if options.contains(letter) { option } else { 0 };
        let options = PCRE2_UTF
            | PCRE2_USE_OFFSET_LIMIT
            // Without `\C`, a match ends at character boundaries, so the text needs no second
            // check.
            | PCRE2_NEVER_BACKSLASH_C
            | option('i', PCRE2_CASELESS)
            | option('m', PCRE2_MULTILINE)
            | option('s', PCRE2_DOTALL)
            | option('x', PCRE2_EXTENDED);
        let (mut code, mut offset): (c_int, usize) = (0, 0);
        // SAFETY: Pointer and length of the pattern match, the error locations are ours, and the
        // compile context may be null.
        let compiled = unsafe {
            pcre2_compile_8(pattern.as_ptr(), pattern.len(), options, &raw mut code, &raw mut offset, ptr::null_mut())
        };
        NonNull::new(compiled)
            .map(Self)
            .ok_or_else(|| format!("PCRE2: error compiling pattern at offset {offset}: {}", message(code)))
    }
}

/// Returns PCRE2's message for an error code.
fn message(code: c_int) -> String {
    let mut text = [0_u8; 256];
    // SAFETY: Pointer and length of the buffer match.
    let length = unsafe { pcre2_get_error_message_8(code, text.as_mut_ptr(), text.len()) };
    let written = usize::try_from(length).ok().and_then(|length| text.get(..length)).unwrap_or_default();
    String::from_utf8_lossy(written).into_owned()
}

/// Match data and match context.
pub(super) struct Scratch {
    data: NonNull<pcre2_match_data_8>,
    context: NonNull<pcre2_match_context_8>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: Both pointers came from PCRE2's own functions and are not used afterwards.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
        }
    }
}

/// The result of searching one window.
pub(super) enum Found {
    Match,
    Nothing,
    /// The search exceeded a limit.
    TooMuch,
}

impl Scratch {
    /// Creates memory for any pattern, without groups. `None` if PCRE2 cannot allocate it.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: The general context may be null.
        Self::with(unsafe { pcre2_match_data_create_8(1, ptr::null_mut()) })
    }

    /// Creates memory for a pattern and its groups.
    pub(super) fn of(code: &Code) -> Option<Self> {
        // SAFETY: The pattern is compiled, and the general context may be null.
        Self::with(unsafe { pcre2_match_data_create_from_pattern_8(code.0.as_ptr(), ptr::null_mut()) })
    }

    fn with(data: *mut pcre2_match_data_8) -> Option<Self> {
        let data = NonNull::new(data)?;
        // SAFETY: The general context may be null.
        let context = NonNull::new(unsafe { pcre2_match_context_create_8(ptr::null_mut()) });
        let Some(context) = context else {
            // SAFETY: The data was just created and is not used afterwards.
            unsafe { pcre2_match_data_free_8(data.as_ptr()) };
            return None;
        };
        // SAFETY: The context was just created.
        unsafe { pcre2_set_depth_limit_8(context.as_ptr(), DEPTH_LIMIT) };
        Some(Self { data, context })
    }

    /// Searches for a match that begins in a window of the text. Assertions see the text before
    /// and after the window. `limit` is PCRE2's match limit for each start position.
    pub(super) fn search(&mut self, code: &Code, text: &str, window: Range<usize>, limit: u32) -> Found {
        if !text.is_char_boundary(window.start) {
            return Found::TooMuch;
        }
        // SAFETY: Pointer and length match a valid UTF-8 text, and the search begins at a
        // character boundary; the pattern cannot match a part of a character. This method has
        // exclusive access to the data and the context.
        let code = unsafe {
            pcre2_set_match_limit_8(self.context.as_ptr(), limit);
            pcre2_set_offset_limit_8(self.context.as_ptr(), window.end);
            pcre2_match_8(
                code.0.as_ptr(),
                text.as_ptr(),
                text.len(),
                window.start,
                PCRE2_NO_UTF_CHECK,
                self.data.as_ptr(),
                self.context.as_ptr(),
            )
        };
        match code {
            PCRE2_ERROR_NOMATCH => Found::Nothing,
            code if code < 0 => Found::TooMuch,
            // Zero means that the match data had no room for all groups.
            _ => Found::Match,
        }
    }

    /// Returns the byte ranges of the last match and its groups, `None` for a group that took no
    /// part. Call it only after a match.
    pub(super) fn places(&self) -> Vec<Option<Range<usize>>> {
        // SAFETY: The ovector has `count` pairs of offsets, and a match writes all of them.
        let offsets = unsafe {
            let count = pcre2_get_ovector_count_8(self.data.as_ptr()) as usize;
            std::slice::from_raw_parts(pcre2_get_ovector_pointer_8(self.data.as_ptr()), 2 * count)
        };
        let place = |pair: &[usize]| (pair[0] != usize::MAX).then(|| pair[0]..pair[1]);
        offsets.chunks_exact(2).map(place).collect()
    }
}
