//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) as App
//! Services sent change events: `%`, line feeds and carriage returns are escaped in the data.

/// The name of an event that contains the position of the stream and no change. Only Userkeep
/// sends it, and clients of App Services ignore it.
pub const POSITION: &str = "position";

/// The name of an event that contains the error that ends a stream.
pub const ERROR: &str = "error";

/// Appends bytes to the data of an event, escaped.
pub fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(index) = rest.iter().position(|byte| matches!(byte, b'%' | b'\n' | b'\r')) {
        out.extend_from_slice(&rest[..index]);
        out.extend_from_slice(match rest[index] {
            b'%' => b"%25",
            b'\n' => b"%0A",
            _ => b"%0D",
        });
        rest = &rest[index + 1..];
    }
    out.extend_from_slice(rest);
}

/// Returns the data of an event without the escapes.
pub fn unescape(data: &str) -> String {
    // `%25` last, so that an unescaped percent sign does not start another escape.
    data.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name; empty for a change event.
    pub name: String,
    /// The data, without escapes.
    pub data: String,
}

/// Parses events from chunks of bytes. Searches each byte only once.
#[derive(Debug, Default)]
pub struct EventParser {
    /// Bytes after the last complete line.
    rest: Vec<u8>,
    /// Number of bytes of `rest` that have been searched and contain no line end.
    searched: usize,
    name: String,
    data: Option<String>,
}

impl EventParser {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// Returns the number of bytes that are buffered for the next events.
    pub fn pending(&self) -> usize {
        self.rest.len() + self.data.as_ref().map_or(0, String::len)
    }

    /// Returns the next complete event.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let Some(end) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.rest.len();
                return None;
            };
            let end = self.searched + end;
            let line = String::from_utf8_lossy(&self.rest[..end]).trim_end_matches('\r').to_owned();
            self.rest.drain(..=end);
            self.searched = 0;
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut self.name), self.data.take());
                match data {
                    Some(data) => return Some(Event { name, data: unescape(&data) }),
                    None => continue,
                }
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.name),
                "data" => match &mut self.data {
                    Some(data) => data.extend(["\n", value]),
                    None => self.data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<Event> {
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk.as_bytes());
            events.extend(std::iter::from_fn(|| parser.next_event()));
        }
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn parses_events_from_chunks_of_any_size() {
        let text = ": hello\nevent: position\ndata: 1\n\ndata:two\r\ndata: lines\r\n\r\nid: 7\n\nevent: x\ndata: %25 %0A%20ä\n\n";
        let expected = [event("position", "1"), event("", "two\nlines"), event("x", "% \n%20ä")];
        assert_eq!(events(&[text]), expected);
        let each: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(events(&each.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_escaped_percent_sign_starts_no_other_escape() {
        assert_eq!(unescape("%250A"), "%0A");
        let mut escaped = Vec::new();
        escape(&mut escaped, b"%0A\r\n?%");
        assert_eq!(unescape(std::str::from_utf8(&escaped).unwrap_or_default()), "%0A\r\n?%");
    }
}
