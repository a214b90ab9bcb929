//! Large change events as text. Streams that send the same event at the same time share one copy, which is made once, on a
//! thread of its own, and released when the last of them has sent it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use backend::{ChangeEvent, ejson::Canonical};
use bson::raw::{RawBsonRef, RawDocument};
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::{answer::Answer, workers::Workers};

/// The large events that are being sent.
#[derive(Debug, Default)]
pub(crate) struct EncodedEvents(Mutex<Vec<Weak<Encoded>>>);

/// An event as text, as long as a stream sends it.
#[derive(Debug)]
pub(crate) struct Encoded {
    event: Arc<ChangeEvent>,
    text: OnceCell<Bytes>,
}

impl EncodedEvents {
    /// The text of an event, made by the first that asks for it.
    ///
    /// # Errors
    /// If writing it panics.
    pub(crate) async fn get(
        &self,
        event: &Arc<ChangeEvent>,
        workers: &Workers,
    ) -> Result<(Arc<Encoded>, Bytes), Answer> {
        let encoded = self.slot(event);
        let write = || async {
            let event = Arc::clone(event);
            let write = move || {
                let mut text = Vec::with_capacity(event.size());
                write_document(&mut text, &event.to_document());
                Bytes::from(text)
            };
            workers.run(write).await
        };
        let text = encoded.text.get_or_try_init(write).await?.clone();
        Ok((encoded, text))
    }

    fn slot(&self, event: &Arc<ChangeEvent>) -> Arc<Encoded> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|encoded| encoded.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade).find(|encoded| Arc::ptr_eq(&encoded.event, event));
        known.unwrap_or_else(|| {
            let encoded = Arc::new(Encoded { event: Arc::clone(event), text: OnceCell::new() });
            all.push(Arc::downgrade(&encoded));
            encoded
        })
    }
}

/// Appends a document as the data of a server-sent event.
pub(crate) fn write_document(text: &mut Vec<u8>, document: &RawDocument) {
    text.extend_from_slice(b"data: ");
    let mut data = Data(text);
    // Only a writer that fails makes this fail.
    let _ = serde_json::to_writer(&mut data, &Canonical(RawBsonRef::Document(document)));
    text.extend_from_slice(b"\n\n");
}

/// Appends JSON as the data of a server-sent event.
pub(crate) fn write_data(text: &mut Vec<u8>, json: &[u8]) {
    text.extend_from_slice(b"data: ");
    Data(text).escape(json);
    text.extend_from_slice(b"\n\n");
}

/// Escapes what it is given, as the clients of App Services read it.
struct Data<'t>(&'t mut Vec<u8>);

impl Data<'_> {
    fn escape(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(index) = rest.iter().position(|byte| matches!(byte, b'%' | b'\n' | b'\r')) {
            self.0.extend_from_slice(&rest[..index]);
            self.0.extend_from_slice(match rest[index] {
                b'%' => b"%25",
                b'\n' => b"%0A",
                _ => b"%0D",
            });
            rest = &rest[index + 1..];
        }
        self.0.extend_from_slice(rest);
    }
}

impl std::io::Write for Data<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.escape(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn escapes_percent_signs_and_line_ends() {
        let mut text = Vec::new();
        write_data(&mut text, b"100%\r\nof {}");
        assert_eq!(text, b"data: 100%25%0D%0Aof {}\n\n");
        text.clear();
        write_document(&mut text, &rawdoc! { "share": "5 %" });
        assert_eq!(text, b"data: {\"share\":\"5 %25\"}\n\n");
    }

    #[tokio::test]
    async fn streams_share_an_event_as_long_as_one_sends_it() {
        let (events, workers) = (EncodedEvents::default(), Workers::new());
        let event = Arc::new(ChangeEvent {
            token: "token".into(),
            kind: backend::ChangeKind::Insert,
            cluster_time: bson::Timestamp { time: 1, increment: 1 },
            namespace: backend::Namespace::new("app", "people"),
            key: rawdoc! { "_id": 1 },
            document: Some(rawdoc! { "_id": 1, "name": "x".repeat(1000) }),
            description: None,
        });
        let (first, text) = events.get(&event, &workers).await.unwrap();
        let (second, same) = events.get(&event, &workers).await.unwrap();
        assert_eq!(text.as_ptr(), same.as_ptr());
        let (_other, other_text) = events.get(&Arc::new((*event).clone()), &workers).await.unwrap();
        assert_ne!(text.as_ptr(), other_text.as_ptr());
        let released = Arc::downgrade(&first);
        drop((first, second));
        assert!(released.upgrade().is_none());
    }
}
