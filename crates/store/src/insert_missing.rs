//! Inserts documents of a dump or another store, except those that exist already. An interrupted
//! import can therefore be repeated.

use std::collections::HashMap;

use bson::{
    Bson, RawBson,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{Filter, encode_key, get};

use crate::{Error, Find, Namespace, Operation, Result, Store, Write};

/// The result of an import.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The number of documents that were written.
    pub written: u64,
    /// The number of documents that existed already, byte for byte the same.
    pub unchanged: u64,
}

/// Inserts the documents that do not exist yet.
///
/// # Errors
/// `DuplicateKey` if a different document with the same `_id` exists.
pub(crate) async fn insert_missing(
    store: &dyn Store,
    namespace: &Namespace,
    batch: Vec<RawDocumentBuf>,
    imported: &mut Imported,
) -> Result<()> {
    let mut ids = RawArrayBuf::new();
    batch.iter().filter_map(|document| get(document, "_id")).for_each(|id| ids.push(id));
    let filter = Filter::parse(&rawdoc! { "_id": { "$in": ids } })?;
    let found = store.find(Find::new(namespace.clone(), filter)).await?;
    let key = |document: &RawDocument| get(document, "_id").map(encode_key);
    let there: HashMap<_, _> = found.iter().map(|document| (key(document), document)).collect();
    let mut missing = Vec::new();
    for document in batch {
        match there.get(&key(&document)) {
            Some(other) if other.as_bytes() == document.as_bytes() => imported.unchanged += 1,
            Some(other) => {
                let id = get(other, "_id").map(|id| Bson::try_from(RawBson::from(id)));
                let id = id.and_then(Result::ok).unwrap_or(Bson::Null);
                return Err(Error::DuplicateKey {
                    namespace: namespace.clone(),
                    index: "_id_".into(),
                    key: format!("{{ _id: {id} }}, but the stored document differs"),
                });
            }
            None => missing.push(document),
        }
    }
    let count = missing.len() as u64;
    if count > 0 {
        let operation = Operation::Insert(missing);
        store.write(vec![Write::new(namespace.clone(), operation)]).await?;
    }
    imported.written += count;
    Ok(())
}
