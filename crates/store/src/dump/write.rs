use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use bson::{Bson, Document, doc};

use super::{
    DATABASE_NAME, DOCUMENTS, METADATA, USERKEEP, WRITTEN_BY, at,
    names::{is_shortened, shorten, shorten_always},
};
use crate::{Index, Namespace, Progress, Result, Store, names::is_of_the_server};

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
    let (mut count, mut names) = (0, Names::default());
    for namespace in store.collections().await? {
        let (database, collection) = names.of(&namespace);
        let target = Target { directory: directory.join(&database), database, collection };
        count += export_collection(store, &target, &namespace, progress).await?;
    }
    Ok(count)
}

/// The names in a dump so far. Names that differ in case only would be one file on many systems.
#[derive(Default)]
struct Names {
    /// The directories of the databases.
    directories: HashMap<String, String>,
    /// The names that are taken, in lower case: of directories, and of files with their directory.
    taken: HashSet<(String, String)>,
}

impl Names {
    /// Returns the directory and the file name, without extension, of a collection.
    fn of(&mut self, namespace: &Namespace) -> (String, String) {
        let directory = match self.directories.get(&*namespace.database) {
            Some(directory) => directory.clone(),
            None => {
                let directory = self.take("", &namespace.database);
                self.directories.insert(namespace.database.to_string(), directory.clone());
                directory
            }
        };
        let file = self.take(&directory, &namespace.collection);
        (directory, file)
    }

    fn take(&mut self, directory: &str, name: &str) -> String {
        let mut is_free = |file: &str| self.taken.insert((directory.to_owned(), file.to_ascii_lowercase()));
        let usual = shorten(name);
        if is_free(&usual) {
            return usual;
        }
        let other = shorten_always(name);
        is_free(&other);
        other
    }
}

/// The place of a collection in a dump.
struct Target {
    directory: PathBuf,
    /// The name of the directory.
    database: String,
    /// The file name, without extension.
    collection: String,
}

async fn export_collection(
    store: &dyn Store,
    target: &Target,
    namespace: &Namespace,
    progress: &Progress,
) -> Result<u64> {
    let Target { directory, database, collection } = target;
    std::fs::create_dir_all(directory).map_err(|error| at(directory, error))?;
    let file = |suffix: &str| directory.join(format!("{collection}{suffix}"));
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
    if is_of_the_server(&namespace.collection) {
        described.insert(WRITTEN_BY, USERKEEP);
    }
    if is_shortened(database) {
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
    files::create_new_private(path).map_err(|error| at(path, error))
}

fn finish(writer: BufWriter<File>, path: &Path) -> Result<()> {
    let file = writer.into_inner().map_err(|error| at(path, error.error()))?;
    file.sync_all().map_err(|error| at(path, error))
}
