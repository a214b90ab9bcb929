use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use bson::{Bson, Document, doc};

use super::{
    DATABASE_NAME, DOCUMENTS, METADATA, at,
    names::{is_shortened, shorten},
};
use crate::{Index, Namespace, Progress, Result, Store};

/// Exports all collections into a directory, which must be empty or is created. Returns the number
/// of documents. Only the owner of the files may read them.
///
/// Each collection is read page by page, so documents that are written meanwhile may be included
/// or not. A backup, in contrast, is a snapshot.
///
/// # Errors
/// If the directory is not empty or cannot be written, or if the store cannot be read.
pub async fn export(store: &dyn Store, directory: &Path, progress: &Progress) -> Result<u64> {
    files::create_directory(directory).map_err(|error| at(directory, error))?;
    let others = std::fs::read_dir(directory).map_err(|error| at(directory, error))?;
    if others.flatten().any(|entry| entry.file_name() != ".gitignore") {
        return Err(at(directory, "the directory is not empty; nothing was written"));
    }
    let mut count = 0;
    for namespace in store.collections().await? {
        count += export_collection(store, directory, &namespace, progress).await?;
    }
    Ok(count)
}

async fn export_collection(
    store: &dyn Store,
    directory: &Path,
    namespace: &Namespace,
    progress: &Progress,
) -> Result<u64> {
    let database = shorten(&namespace.database);
    let directory = directory.join(&database);
    std::fs::create_dir_all(&directory).map_err(|error| at(&directory, error))?;
    let file = |suffix: &str| directory.join(format!("{}{suffix}", shorten(&namespace.collection)));
    progress.begin(namespace.to_string(), 0);

    let path = file(DOCUMENTS);
    let mut documents = BufWriter::new(create(&path)?);
    let (mut count, mut after) = (0, None);
    loop {
        let page = store.page(namespace.clone(), after).await?;
        for document in &page.documents {
            documents.write_all(document.as_bytes()).map_err(|error| at(&path, error))?;
        }
        count += page.documents.len() as u64;
        let (reached, total) = page.reached;
        progress.begin(namespace.to_string(), total);
        progress.reach(reached);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    finish(documents, &path)?;

    let path = file(METADATA);
    let indexes = store.indexes(namespace.clone()).await?.unwrap_or_default();
    let mut metadata = BufWriter::new(create(&path)?);
    let mut described = metadata_of(namespace, &indexes);
    if is_shortened(&database) {
        described.insert(DATABASE_NAME, &*namespace.database);
    }
    let json = serde_json::to_vec(&Bson::Document(described).into_canonical_extjson());
    metadata.write_all(&json.map_err(|error| at(&path, error))?).map_err(|error| at(&path, error))?;
    finish(metadata, &path)?;
    Ok(count)
}

fn metadata_of(namespace: &Namespace, indexes: &[Index]) -> Document {
    let id = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
    let others = indexes.iter().filter_map(|index| Document::try_from(index.to_document()).ok());
    let indexes: Vec<Bson> = std::iter::once(id).chain(others).map(Bson::Document).collect();
    doc! {
        "indexes": indexes,
        "collectionName": &*namespace.collection,
        "type": "collection",
        "options": {},
    }
}

fn create(path: &Path) -> Result<File> {
    files::open_private(path).map_err(|error| at(path, error))
}

fn finish(writer: BufWriter<File>, path: &Path) -> Result<()> {
    let file = writer.into_inner().map_err(|error| at(path, error.error()))?;
    file.sync_all().map_err(|error| at(path, error))
}
