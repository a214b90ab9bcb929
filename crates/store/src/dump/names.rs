//! File names for databases and collections. Bytes that have a meaning to a file system or a shell
//! are percent-encoded, as mongodump does.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The maximum length of an escaped name, in bytes. With mongodump's longest extension,
/// `.metadata.json.gz`, it makes 255, the limit of file systems.
const MAX_NAME_BYTES: usize = 238;

/// The number of bytes that a shortened name keeps, before the mark and the 27 characters of its
/// hash.
const KEPT: usize = 208;

/// The mark between the two. No name that is escaped here contains it otherwise.
const MARK: &str = "%24";

/// The length of a hash in a name.
const HASH_BYTES: usize = 27;

/// The names of devices on Windows, also with an extension
/// (<https://learn.microsoft.com/windows/win32/fileio/naming-a-file>).
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Escapes a name so that it is a valid file name on every system, and never leads out of its
/// directory.
pub(super) fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'$' | b'&' | b'+' | b'=' | b'@' => {
                escaped.push(char::from(byte));
            }
            // A leading dot would hide the file, or name a directory.
            b'.' if !escaped.is_empty() => escaped.push('.'),
            byte => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    // Windows ignores a dot at the end.
    if escaped.ends_with('.') {
        escaped.truncate(escaped.len() - 1);
        escaped.push_str("%2E");
    }
    match escaped.bytes().next() {
        Some(first) if is_device(&escaped) => format!("%{first:02X}{}", &escaped[1..]),
        _ => escaped,
    }
}

fn is_device(escaped: &str) -> bool {
    let stem = escaped.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_port = |digit: &str| matches!(digit.as_bytes(), [b'0'..=b'9']);
    DEVICES.contains(&&*stem) || ["com", "lpt"].iter().any(|port| stem.strip_prefix(port).is_some_and(is_port))
}

/// Returns the file name of a collection or the directory name of a database, escaped. A name that
/// is too long is shortened as mongodump does: a hash distinguishes names with the same beginning,
/// and the metadata holds the full name.
pub(super) fn shorten(name: &str) -> String {
    let escaped = escape(name);
    if escaped.len() > MAX_NAME_BYTES { shorten_always(name) } else { escaped }
}

/// Returns a name with a hash, like [`shorten`] for a name that is too long. Names that differ in
/// case only get different ones.
pub(super) fn shorten_always(name: &str) -> String {
    let mut escaped = escape(name);
    escaped.truncate(KEPT);
    escaped.push_str(MARK);
    escaped.push_str(&URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, name.as_bytes())));
    escaped
}

/// True if a file name ends with a hash, so that it does not give the collection's name.
pub(super) fn is_shortened(escaped: &str) -> bool {
    let at = escaped.len().checked_sub(MARK.len() + HASH_BYTES);
    at.and_then(|at| escaped.get(at..)).is_some_and(|rest| rest.starts_with(MARK))
}

/// Returns the original of an escaped name; `None` if it is not valid.
pub(super) fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory_and_unescape_to_the_original() {
        for name in [
            "Con",
            "nul.a",
            "COM1",
            "a.",
            "people",
            "a.b",
            "..",
            ".",
            "../../etc/passwd",
            "a/b\\c",
            "ä%2F",
            "con:",
            "",
            "x\u{0}y",
            "$cmd",
        ] {
            let escaped = escape(name);
            assert!(!escaped.contains(['/', '\\', ':', '\0']) && !escaped.starts_with('.'), "{escaped}");
            assert_eq!(unescape(&escaped).unwrap(), name);
        }
        assert_eq!(escape("app.people-2"), "app.people-2");
        assert_eq!(shorten("people"), "people");
        assert_eq!(
            ["con", "COM1.a", "console", "com", "a."].map(escape),
            ["%63on", "%43OM1.a", "console", "com", "a%2E"]
        );
        assert_eq!((unescape("%"), unescape("%2"), unescape("%zz"), unescape("%ff")), (None, None, None, None));
    }

    /// The lengths are those of mongodump's `outputPath`. The hash is that of `printf %s "$name" |
    /// sha1sum | xxd -r -p | base64`.
    #[test]
    fn long_names_are_shortened_as_mongodump_does() {
        let longest = "a".repeat(238);
        assert_eq!(shorten(&longest), longest);
        assert!(!is_shortened(&longest));
        let longer = "a".repeat(239);
        assert_eq!(shorten(&longer), format!("{}%24_cMIV897lX9H69gojV5ddCb0Q5Q", "a".repeat(208)));
        // 80 characters of three bytes, each of which becomes nine. The cut may be inside one of
        // them.
        let wide = "\u{2603}".repeat(80);
        let shortened = shorten(&wide);
        assert_eq!(shortened, format!("{}%24_Rx45q_rDVyU8uDPwV5F8-vLhmE", &"%E2%98%83".repeat(80)[..208]));
        assert!(is_shortened(&shortened) && shortened.len() == 238);
        assert_ne!(shorten(&"a".repeat(240)), shorten(&"a".repeat(241)));
    }
}
