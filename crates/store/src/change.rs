//! Change events, in the format of MongoDB
//! (<https://www.mongodb.com/docs/manual/reference/change-events/>).

use std::{fmt, sync::Arc};

use bson::{
    Timestamp,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::future::BoxFuture;

use crate::{Namespace, Result};

/// The parameters of a change stream.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The collection to watch.
    pub namespace: Namespace,
    /// The event after which the stream starts; `None` for changes from now on.
    pub after: Option<ResumeToken>,
    /// The owner of the stream, whose operations share one turn in the queues; `None` for the
    /// operator.
    pub owner: Option<Arc<str>>,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The document was inserted, possibly by an upsert.
    Insert,
    /// The document was updated by update operators.
    Update,
    /// The document was replaced.
    Replace,
    /// The document was deleted, possibly by a TTL index.
    Delete,
}

impl ChangeKind {
    /// Returns the value of `operationType` in the event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}

/// A position in the order of all changes of a store, as opaque text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// Reads the token from the `_id` of an event, `{ _data: text }`. Returns `None` if the
    /// document has another shape.
    pub fn read(id: &RawDocument) -> Option<Self> {
        id.get_str("_data").ok().map(Self::from)
    }

    /// Returns the token as the `_id` of an event, `{ _data: text }`.
    pub fn to_document(&self) -> RawDocumentBuf {
        rawdoc! { "_data": self.0.as_str() }
    }

    /// Returns the text of the token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ResumeToken {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A change event: one change of one document.
#[derive(Debug, Clone)]
pub struct ChangeEvent {
    /// The resume token, after which a stream can be resumed.
    pub token: ResumeToken,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The time of the commit, which is never before that of an earlier event.
    pub cluster_time: Timestamp,
    /// The collection.
    pub namespace: Namespace,
    /// The document key: the `_id` and, in a sharded collection, the shard key fields.
    pub key: RawDocumentBuf,
    /// The version that the event is about: the new version or, for a deletion, the last one.
    ///
    /// On MongoDB, in a collection without pre-images, an update carries the version that the
    /// server looked up later, if there was one, and a deletion carries none.
    pub document: Option<RawDocumentBuf>,
    /// True if `document` is exactly the version that the change made, or the one that a deletion
    /// removed.
    pub is_exact: bool,
    /// The changes of an update: `{ updatedFields, removedFields }`.
    pub description: Option<RawDocumentBuf>,
}

/// The recipient of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// The operator, who may see every version of every document.
    Operator,
    /// A user, who may see the version in the event, and perhaps no other.
    User,
}

impl ChangeEvent {
    /// Returns the `_id` of the document.
    pub fn id(&self) -> RawBsonRef<'_> {
        query::get(&self.key, "_id").unwrap_or(RawBsonRef::Null)
    }

    /// Returns the document or, if the event has none, the document key.
    pub fn known(&self) -> &RawDocument {
        self.document.as_deref().unwrap_or(&self.key)
    }

    /// Returns the size of the document and the description, in bytes of BSON.
    pub fn size(&self) -> usize {
        self.known().as_bytes().len() + self.description.as_ref().map_or(0, |description| description.as_bytes().len())
    }

    /// Returns the event as a document, with `token` as its `_id`.
    pub fn to_document(&self, token: &ResumeToken, audience: Audience) -> RawDocumentBuf {
        let mut event = rawdoc! { "_id": token.to_document() };
        self.append_body(&mut event, audience);
        event
    }

    /// Returns the fields of the event after `_id`, which are the same for all watchers of one
    /// audience.
    pub fn body(&self, audience: Audience) -> RawDocumentBuf {
        let mut body = RawDocumentBuf::new();
        self.append_body(&mut body, audience);
        body
    }

    fn append_body(&self, event: &mut RawDocumentBuf, audience: Audience) {
        let Namespace { database, collection } = &self.namespace;
        query::append(event, "operationType", self.kind.name());
        query::append(event, "clusterTime", self.cluster_time);
        if self.kind != ChangeKind::Delete {
            match &self.document {
                Some(document) => query::append(event, "fullDocument", document),
                // A lookup that finds no document reports null.
                None => query::append(event, "fullDocument", RawBsonRef::Null),
            }
        }
        query::append(event, "ns", &rawdoc! { "db": &**database, "coll": &**collection });
        query::append(event, "documentKey", &self.key);
        if let Some(description) = &self.description {
            // The guard has checked `document` alone. If that is another version, the changed
            // values are unchecked.
            if self.is_exact || audience == Audience::Operator {
                query::append(event, "updateDescription", description);
            } else {
                query::append(event, "updateDescription", &RawDocumentBuf::new());
            }
        }
    }
}

/// A change stream: the changes of a collection in the order of their commits, each exactly once.
pub trait ChangeStream: Send + fmt::Debug {
    /// Waits for the next changes and returns at least one.
    ///
    /// Cancel safe: dropping the future loses no event.
    ///
    /// # Errors
    /// `ChangeStreamHistoryLost` if the next changes are no longer kept because the stream was
    /// read too slowly. [`Error::Closed`](crate::Error::Closed) if the store is closed.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<ChangeEvent>>>>;

    /// Returns the watched collection.
    fn namespace(&self) -> &Namespace;

    /// Returns the token after everything that [`next`](Self::next) has returned or skipped;
    /// `None` before the first write to the store.
    fn position(&self) -> Option<ResumeToken>;
}
