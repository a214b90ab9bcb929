//! Change events, in the form that MongoDB gives them (<https://www.mongodb.com/docs/manual/reference/change-events/>).

use std::{fmt, sync::Arc};

use bson::{
    Timestamp,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::future::BoxFuture;

use crate::{Namespace, Result};

/// Which changes to follow.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The collection.
    pub namespace: Namespace,
    /// After which event; else from now on.
    pub after: Option<ResumeToken>,
    /// The owner of the stream, with whose other operations it takes turns; none if it is the operator's.
    pub owner: Option<Arc<str>>,
}

/// What happened to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was inserted, by an upsert too.
    Insert,
    /// It was updated by operators.
    Update,
    /// Another took its place.
    Replace,
    /// It was deleted, by an index that lets documents expire too.
    Delete,
}

impl ChangeKind {
    /// As in `operationType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}

/// A place in the order of all changes of a store, as text that means nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// What an event's `_id` holds: `{ _data: text }`.
    pub fn read(id: &RawDocument) -> Option<Self> {
        id.get_str("_data").ok().map(Self::from)
    }

    /// As an event's `_id`.
    pub fn to_document(&self) -> RawDocumentBuf {
        rawdoc! { "_data": self.0.as_str() }
    }

    /// The text alone.
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

/// One change.
#[derive(Debug, Clone)]
pub struct ChangeEvent {
    /// Its place, after which a stream can be taken up again.
    pub token: ResumeToken,
    /// What happened.
    pub kind: ChangeKind,
    /// When it was committed; never before an earlier one.
    pub cluster_time: Timestamp,
    /// Where.
    pub namespace: Namespace,
    /// The document's `_id`, in a document, with what else tells it from others where they are spread over shards.
    pub key: RawDocumentBuf,
    /// The version that the event is about: the new one, or of a deletion the last one. On
    /// MongoDB, in a collection without pre-images, that of an update is the one that the server
    /// found later, if there was one, and a deletion has none.
    pub document: Option<RawDocumentBuf>,
    /// True if `document` is exactly the version that the change made, or the one that a deletion
    /// removed.
    pub is_exact: bool,
    /// What an update did: `{ updatedFields, removedFields }`.
    pub description: Option<RawDocumentBuf>,
}

/// The reader of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// The operator, who may see every version of every document.
    Operator,
    /// A user, who may see the version that the event carries and perhaps no other.
    User,
}

impl ChangeEvent {
    /// The document's `_id`.
    pub fn id(&self) -> RawBsonRef<'_> {
        query::get(&self.key, "_id").unwrap_or(RawBsonRef::Null)
    }

    /// What is known of the document: itself, or its key alone.
    pub fn known(&self) -> &RawDocument {
        self.document.as_deref().unwrap_or(&self.key)
    }

    /// The size of what it holds, in bytes of BSON.
    pub fn size(&self) -> usize {
        self.known().as_bytes().len() + self.description.as_ref().map_or(0, |description| description.as_bytes().len())
    }

    /// Returns the event as a document, with a token as its `_id`.
    pub fn to_document(&self, token: &ResumeToken, audience: Audience) -> RawDocumentBuf {
        let mut event = rawdoc! { "_id": token.to_document() };
        self.append_body(&mut event, audience);
        event
    }

    /// Returns the members of the event after `_id`, which are the same for all watchers of one
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
                // As a lookup that found nothing reports it.
                None => query::append(event, "fullDocument", RawBsonRef::Null),
            }
        }
        query::append(event, "ns", &rawdoc! { "db": &**database, "coll": &**collection });
        query::append(event, "documentKey", &self.key);
        if let Some(description) = &self.description {
            // The guard has checked the document alone. If that is another version, the values of
            // the change are unchecked.
            if self.is_exact || audience == Audience::Operator {
                query::append(event, "updateDescription", description);
            } else {
                query::append(event, "updateDescription", &RawDocumentBuf::new());
            }
        }
    }
}

/// The changes of a collection, in the order of their commits: each once, none left out.
pub trait ChangeStream: Send + fmt::Debug {
    /// Waits for the next changes, at least one. What is given up before it is done loses nothing.
    ///
    /// # Errors
    /// `ChangeStreamHistoryLost` where it is so far behind that what comes next is not kept any more;
    /// [`Error::Closed`](crate::Error::Closed) with the store.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<ChangeEvent>>>>;

    /// The collection.
    fn namespace(&self) -> &Namespace;

    /// The place after all that [`next`](Self::next) has answered with or passed over; none before anything was ever written.
    fn position(&self) -> Option<ResumeToken>;
}
