//! PCRE2 itself. Its safe wrapper cannot limit how far a search goes: the match limit of PCRE2 counts anew for each place at
//! which a match can begin, so that one search may take that limit times the length of the text. Here a search is made
//! in windows of such places, between which the caller looks at the budget.
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

/// How deep a match may nest.
const DEPTH_LIMIT: u32 = 5_000;

/// A compiled pattern.
pub(super) struct Code(NonNull<pcre2_code_8>);

// SAFETY: PCRE2 documents that a compiled pattern is not changed by matching and may be shared by threads. It is freed once,
// by the last owner.
unsafe impl Send for Code {}
// SAFETY: As above.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: It came from `pcre2_compile_8` and is not used afterwards.
        unsafe { pcre2_code_free_8(self.0.as_ptr()) };
    }
}

impl Code {
    /// Compiles a pattern with options of which each is a letter: `i`, `m`, `s` or `x`.
    ///
    /// # Errors
    /// PCRE2's message.
    pub(super) fn compile(pattern: &str, options: &str) -> Result<Self, String> {
        let option = |letter, option| if options.contains(letter) { option } else { 0 };
        let options = PCRE2_UTF
            | PCRE2_USE_OFFSET_LIMIT
            // Text stays text throughout a match, which is why it is not checked again.
            | PCRE2_NEVER_BACKSLASH_C
            | option('i', PCRE2_CASELESS)
            | option('m', PCRE2_MULTILINE)
            | option('s', PCRE2_DOTALL)
            | option('x', PCRE2_EXTENDED);
        let (mut code, mut offset): (c_int, usize) = (0, 0);
        // SAFETY: The pattern is as long as it says, the places for the error are ours, and no context is allowed.
        let compiled = unsafe {
            pcre2_compile_8(pattern.as_ptr(), pattern.len(), options, &raw mut code, &raw mut offset, ptr::null_mut())
        };
        NonNull::new(compiled)
            .map(Self)
            .ok_or_else(|| format!("PCRE2: error compiling pattern at offset {offset}: {}", message(code)))
    }
}

/// PCRE2's message for an error.
fn message(code: c_int) -> String {
    let mut text = [0_u8; 256];
    // SAFETY: The buffer is as long as it says.
    let length = unsafe { pcre2_get_error_message_8(code, text.as_mut_ptr(), text.len()) };
    let written = usize::try_from(length).ok().and_then(|length| text.get(..length)).unwrap_or_default();
    String::from_utf8_lossy(written).into_owned()
}

/// Memory for matches.
pub(super) struct Scratch {
    data: NonNull<pcre2_match_data_8>,
    context: NonNull<pcre2_match_context_8>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: Both came from PCRE2's own functions and are not used afterwards.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
        }
    }
}

/// What became of a part of a search.
pub(super) enum Found {
    Match,
    Nothing,
    /// A limit was exceeded.
    TooMuch,
}

impl Scratch {
    /// For any pattern, of which only is asked whether it matches. `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: No general context is allowed.
        Self::with(unsafe { pcre2_match_data_create_8(1, ptr::null_mut()) })
    }

    /// For a pattern, with room for its groups.
    pub(super) fn of(code: &Code) -> Option<Self> {
        // SAFETY: The pattern is compiled, and no general context is allowed.
        Self::with(unsafe { pcre2_match_data_create_from_pattern_8(code.0.as_ptr(), ptr::null_mut()) })
    }

    fn with(data: *mut pcre2_match_data_8) -> Option<Self> {
        let data = NonNull::new(data)?;
        // SAFETY: No general context is allowed.
        let context = NonNull::new(unsafe { pcre2_match_context_create_8(ptr::null_mut()) });
        let Some(context) = context else {
            // SAFETY: It was just made, and is not used afterwards.
            unsafe { pcre2_match_data_free_8(data.as_ptr()) };
            return None;
        };
        // SAFETY: The context was just made.
        unsafe { pcre2_set_depth_limit_8(context.as_ptr(), DEPTH_LIMIT) };
        Some(Self { data, context })
    }

    /// Searches text for a match that begins in a window of it. The rest of the text is seen as what comes before and behind.
    /// A match that begins at one place may be so much work.
    pub(super) fn search(&mut self, code: &Code, text: &str, window: Range<usize>, limit: u32) -> Found {
        if !text.is_char_boundary(window.start) {
            return Found::TooMuch;
        }
        // SAFETY: The text is as long as it says and valid UTF-8, and the search begins at one of its characters; the pattern
        // cannot match a part of one. Nothing else uses the data and the context, which this has mutably.
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
            // Zero says that there was not room for all groups.
            _ => Found::Match,
        }
    }

    /// Where the last match and its groups are, `None` for a group that took no part. Only after a match.
    pub(super) fn places(&self) -> Vec<Option<Range<usize>>> {
        // SAFETY: The data has as many pairs of offsets as it says, and all are written by a match.
        let offsets = unsafe {
            let count = pcre2_get_ovector_count_8(self.data.as_ptr()) as usize;
            std::slice::from_raw_parts(pcre2_get_ovector_pointer_8(self.data.as_ptr()), 2 * count)
        };
        let place = |pair: &[usize]| (pair[0] != usize::MAX).then(|| pair[0]..pair[1]);
        offsets.chunks_exact(2).map(place).collect()
    }
}
