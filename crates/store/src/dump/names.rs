//! Names of databases and collections as names of files: bytes that a file system, or a shell, could take for something else
//! are written as in URLs, which is how mongodump writes them.

use std::fmt::Write;

/// A name that is a file's on every system, and never leads out of its directory.
pub(super) fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'$' | b'&' | b'+' | b'=' | b'@' => {
                escaped.push(char::from(byte));
            }
            // One at the beginning would hide the file, or stand for a directory.
            b'.' if !escaped.is_empty() => escaped.push('.'),
            byte => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

/// The name that was escaped; none where it is not one.
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
    fn no_name_leads_out_of_its_directory_and_each_comes_back() {
        for name in ["people", "a.b", "..", ".", "../../etc/passwd", "a/b\\c", "ä%2F", "con:", "", "x\u{0}y", "$cmd"] {
            let escaped = escape(name);
            assert!(!escaped.contains(['/', '\\', ':', '\0']) && !escaped.starts_with('.'), "{escaped}");
            assert_eq!(unescape(&escaped).unwrap(), name);
        }
        assert_eq!(escape("app.people-2"), "app.people-2");
        assert_eq!((unescape("%"), unescape("%2"), unescape("%zz"), unescape("%ff")), (None, None, None, None));
    }
}
