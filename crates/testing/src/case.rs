//! A case of a comparison: documents, a command, and the outcomes on two servers.

use bson::{Bson, Document, doc, oid::ObjectId};
use mongodb::{Client, error::ErrorKind};

use crate::commands::Database;

/// The name of the collection on both servers.
pub const COLLECTION: &str = "c";

/// Documents, and a command on the collection that holds them.
#[derive(Debug, Clone)]
pub struct Case {
    pub documents: Vec<Document>,
    pub command: Document,
}

impl std::fmt::Display for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let documents = self.documents.clone();
        formatter.write_str(&text(&doc! { "documents": documents, "command": self.command.clone() }))
    }
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The error code of the command, or that of its first failed write.
    pub failure: Option<i32>,
    /// The reply, without the parts that depend on the server.
    pub reply: Document,
    /// The documents in the collection afterwards.
    pub left: Vec<Document>,
}

impl Case {
    /// Parses the form that [`Display`](std::fmt::Display) writes.
    pub fn of(line: &Document) -> Self {
        Self { documents: documents_at(line, "documents"), command: line.get_document("command").unwrap().clone() }
    }
}

fn documents_at(document: &Document, key: &str) -> Vec<Document> {
    let items = document.get_array(key).into_iter().flatten();
    items.filter_map(Bson::as_document).cloned().collect()
}

impl Outcome {
    /// Parses the form that [`Display`](std::fmt::Display) writes.
    pub fn of(line: &Document) -> Self {
        Self {
            failure: line.get_i32("code").ok(),
            reply: line.get_document("reply").cloned().unwrap_or_default(),
            left: documents_at(line, "left"),
        }
    }

    /// True if the outcomes have the same error code, or equal replies, and leave equal documents.
    /// Values are compared to the last bit and fields in their order; all NaNs are equal.
    pub fn agrees(&self, other: &Self) -> bool {
        self.failure == other.failure
            && (self.failure.is_some() || text(&self.reply) == text(&other.reply))
            && self.leaves_as(other)
    }

    /// True if both left the same documents.
    pub fn leaves_as(&self, other: &Self) -> bool {
        self.left.len() == other.left.len()
            && self.left.iter().zip(&other.left).all(|(one, other)| text(one) == text(other))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut outcome = match self.failure {
            Some(code) => doc! { "code": code },
            None => doc! { "reply": self.reply.clone() },
        };
        if !self.left.is_empty() {
            outcome.insert("left", self.left.clone());
        }
        formatter.write_str(&text(&outcome))
    }
}

/// Returns a document as text with all its types.
pub fn text(document: &Document) -> String {
    Bson::Document(document.clone()).into_canonical_extjson().to_string()
}

/// One of the two servers.
pub enum Server {
    Ours(Database),
    Theirs(mongodb::Database),
}

impl Server {
    pub fn ours() -> Self {
        Self::Ours(Database::new())
    }

    pub fn theirs(client: &Client, database: &str) -> Self {
        Self::Theirs(client.database(database))
    }

    /// Returns the reply of a command, or its error code.
    pub async fn run(&self, command: &Document) -> Result<Document, i32> {
        match self {
            Self::Ours(database) => database.run(command).await.map_err(|error| error.code),
            Self::Theirs(database) => database.run_command(command.clone()).await.map_err(|error| match &*error.kind {
                ErrorKind::Command(error) => error.code,
                _ => panic!("the server is not available: {error}"),
            }),
        }
    }

    /// Replaces the content of the collection.
    pub async fn fill(&mut self, documents: &[Document]) {
        if let Self::Ours(database) = self {
            *database = Database::new();
        } else {
            self.run(&doc! { "delete": COLLECTION, "deletes": [{ "q": {}, "limit": 0 }] }).await.expect("a delete");
        }
        if !documents.is_empty() {
            let documents = documents.to_vec();
            let reply = self.run(&doc! { "insert": COLLECTION, "documents": documents }).await.expect("an insert");
            assert!(!reply.contains_key("writeErrors"), "{reply}");
        }
    }

    /// Returns the documents in the collection.
    pub async fn left(&self) -> Vec<Document> {
        let find = doc! { "find": COLLECTION, "filter": {}, "sort": { "_id": 1 }, "batchSize": 10_000 };
        let reply = self.run(&find).await.expect("a find");
        documents(&reply)
    }

    pub async fn outcome(&mut self, case: &Case) -> Outcome {
        self.fill(&case.documents).await;
        let answer = self.run(&case.command).await;
        let left = if is_read(&case.command) { Vec::new() } else { self.left().await };
        outcome(answer, left)
    }
}

pub fn is_read(command: &Document) -> bool {
    ["find", "count", "distinct", "aggregate"].iter().any(|name| command.contains_key(name))
}

pub fn outcome(answer: Result<Document, i32>, left: Vec<Document>) -> Outcome {
    let mut left = left;
    left.iter_mut().for_each(|document| document.iter_mut().for_each(|(_, value)| without_new_ids(value)));
    left.sort_by_key(text);
    match answer {
        Err(code) => Outcome { failure: Some(code), reply: Document::new(), left },
        Ok(mut reply) => {
            let failure = write_errors(&reply).first().map(|(_, code)| *code);
            let batch = documents(&reply);
            const COMPARED: [&str; 6] = ["lastErrorObject", "n", "nModified", "upserted", "value", "values"];
            let mut said: Document =
                COMPARED.iter().filter_map(|key| Some(((*key).to_owned(), reply.remove(key)?))).collect();
            if !batch.is_empty() {
                said.insert("documents", batch);
            }
            said.iter_mut().for_each(|(_, value)| without_new_ids(value));
            Outcome { failure, reply: said, left }
        }
    }
}

/// Returns the indexes and codes of the writes that failed.
pub fn write_errors(reply: &Document) -> Vec<(usize, i32)> {
    let Ok(errors) = reply.get_array("writeErrors") else { return Vec::new() };
    errors
        .iter()
        .filter_map(Bson::as_document)
        .map(|error| (error.get_i32("index").unwrap_or(0) as usize, error.get_i32("code").unwrap_or(0)))
        .collect()
}

fn documents(reply: &Document) -> Vec<Document> {
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    batch.map(|batch| batch.iter().filter_map(Bson::as_document).cloned().collect()).unwrap_or_default()
}

/// Replaces the ids that a server has generated by one and the same id.
fn without_new_ids(value: &mut Bson) {
    match value {
        Bson::ObjectId(id) if id.bytes().iter().any(|byte| *byte != id.bytes()[0]) => {
            *id = ObjectId::from_bytes([0; 12]);
        }
        Bson::Array(items) => items.iter_mut().for_each(without_new_ids),
        Bson::Document(fields) => fields.iter_mut().for_each(|(_, value)| without_new_ids(value)),
        _ => {}
    }
}
