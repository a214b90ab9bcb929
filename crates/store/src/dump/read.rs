use std::{
    fs::File,
    io::{BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use bson::{Bson, raw::RawDocumentBuf};
use query::{MAX_DOCUMENT_SIZE, validate_form};

use super::{
    DATABASE_NAME, DOCUMENTS, METADATA, USERKEEP, WRITTEN_BY, at,
    names::{is_shortened, unescape},
};
use crate::{
    Index, Namespace, Progress, Result, Store,
    insert_missing::{Imported, insert_missing},
    names,
};

/// Limits of one commit, in documents and in bytes.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The maximum size of a metadata file, in bytes.
const METADATA_BYTES: u64 = 16 * 1024 * 1024;

/// A dump that has been checked and can be imported.
#[derive(Debug)]
pub struct Import {
    directory: PathBuf,
    collections: Vec<Collection>,
    /// The parts of the dump that are not imported, each with the reason.
    pub reported: Vec<String>,
}

#[derive(Debug)]
struct Collection {
    namespace: Namespace,
    path: PathBuf,
    indexes: Vec<Index>,
}

impl Import {
    /// Checks the dump in a directory, except its documents. With `ignore_indexes`, indexes of
    /// unsupported kinds are reported; without it, they are errors.
    ///
    /// # Errors
    /// All reasons that prevent the import, each with its file. Nothing is written.
    pub fn open(directory: &Path, ignore_indexes: bool) -> Result<Self> {
        let mut import = Self { directory: directory.to_owned(), collections: Vec::new(), reported: Vec::new() };
        let mut wrong = Vec::new();
        for database in sorted(directory)?.into_iter().filter(|path| path.is_dir()) {
            let escaped = file_name(&database).unwrap_or_default();
            // The metadata of a collection holds the database name of a shortened directory.
            let name = if is_shortened(escaped) { None } else { unescape(escaped) };
            if name.is_none() && !is_shortened(escaped) {
                wrong.push(at(&database, "the name of the directory is not a database name").to_string());
                continue;
            }
            for path in sorted(&database)? {
                match file_name(&path) {
                    Some(file) if file.ends_with(".bson.gz") => {
                        wrong.push(at(&path, "it is compressed: unpack it first, or dump without --gzip").to_string());
                    }
                    Some(file) if file.ends_with(DOCUMENTS) => {
                        match import.collection(name.as_deref(), &path, ignore_indexes) {
                            Ok(collection) => import.collections.extend(collection),
                            Err(error) => wrong.push(error.to_string()),
                        }
                    }
                    _ => {}
                }
            }
        }
        if !wrong.is_empty() {
            let reason = format!("the dump cannot be imported, and nothing was written:\n  {}", wrong.join("\n  "));
            return Err(at(directory, reason));
        }
        if import.collections.is_empty() && import.reported.is_empty() {
            return Err(at(directory, "the directory has no dump: no file DATABASE/COLLECTION.bson"));
        }
        Ok(import)
    }

    fn collection(&mut self, database: Option<&str>, path: &Path, ignore_indexes: bool) -> Result<Option<Collection>> {
        files::open_regular(path).map_err(|error| at(path, error))?;
        let stem = file_name(path).and_then(|name| name.strip_suffix(DOCUMENTS)).unwrap_or_default();
        let described = path.with_file_name(format!("{stem}{METADATA}"));
        let metadata = read_metadata(&described)?;
        // Only the metadata holds a name that is too long for a file.
        let described_as = |key| metadata.as_ref().and_then(|metadata| metadata.get_str(key).ok());
        let shortened = || at(path, format!("its name was shortened, and {} does not contain it", described.display()));
        let named = described_as("collectionName").map(str::to_owned);
        let name = match named {
            None if is_shortened(stem) => return Err(shortened()),
            named => named.or_else(|| unescape(stem)),
        };
        let name = name.ok_or_else(|| at(path, "the name of the file is not a collection name"))?;
        let database = database.or_else(|| described_as(DATABASE_NAME)).ok_or_else(shortened)?;
        if names::is_of_the_server(&name) && described_as(WRITTEN_BY) != Some(USERKEEP) {
            let reason = "it is a collection of the MongoDB server's own and is not imported";
            self.reported.push(at(path, reason).to_string());
            return Ok(None);
        }
        let mut collection =
            Collection { namespace: Namespace::new(database, &name), path: path.to_owned(), indexes: Vec::new() };
        let Some(metadata) = metadata else { return Ok(Some(collection)) };
        if let Ok(options) = metadata.get_document("options") {
            for (option, _) in query::elements(options) {
                self.reported.push(at(&described, format!("the option {option} is not imported")).to_string());
            }
        }
        for index in metadata.get_array("indexes").ok().into_iter().flatten() {
            let index = index.ok().and_then(bson::RawBsonRef::as_document);
            let index = index.ok_or_else(|| at(&described, "an index is not a document"))?;
            match Index::parse(index) {
                Ok(index) => collection.indexes.push(index),
                Err(error) => {
                    let name = index.get_str("name").unwrap_or("without a name");
                    let error = at(&described, format!("the index {name}: {error}"));
                    if !ignore_indexes {
                        return Err(error);
                    }
                    self.reported.push(error.to_string());
                }
            }
        }
        Ok(Some(collection))
    }

    /// Writes the documents, and then creates the indexes. Documents that exist already, byte for
    /// byte the same, are left as they are, so an interrupted import can be repeated.
    ///
    /// # Errors
    /// If a document is not valid or its key belongs to a different document; the error has the
    /// file, and the number and position of the document. The documents written before stay. If
    /// the store does not accept the name of a collection; nothing is written then.
    pub async fn run(&self, store: &dyn Store, progress: &Progress) -> Result<Imported> {
        let namespaces = self.collections.iter().map(|collection| collection.namespace.clone()).collect();
        let refused = store.refused_names(namespaces).await?;
        if !refused.is_empty() {
            let reason =
                format!("the store does not accept all names, and nothing was written:\n  {}", refused.join("\n  "));
            return Err(at(&self.directory, reason));
        }
        let mut imported = Imported::default();
        for collection in &self.collections {
            collection.run(store, progress, &mut imported).await?;
        }
        Ok(imported)
    }
}

impl Collection {
    async fn run(&self, store: &dyn Store, progress: &Progress, imported: &mut Imported) -> Result<()> {
        let file = files::open_regular(&self.path).map_err(|error| at(&self.path, error))?;
        let size = file.metadata().map_err(|error| at(&self.path, error))?.len();
        progress.begin(self.namespace.to_string(), size);
        store.adopt_collections(vec![self.namespace.clone()]).await.map_err(|error| at(&self.path, error))?;
        let mut documents = Documents { path: &self.path, reader: BufReader::new(file), number: 0, offset: 0 };
        loop {
            let (first, begun) = (documents.number, documents.offset);
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Some(document) = documents.next()? else { break };
                bytes += document.as_bytes().len();
                batch.push(document);
            }
            if batch.is_empty() {
                break;
            }
            insert_missing(store, &self.namespace, batch, imported).await.map_err(|error| {
                let last = documents.number;
                at(&self.path, format!("documents {} to {last}, from byte {begun} on: {error}", first + 1))
            })?;
            progress.reach(documents.offset);
        }
        // Also without documents, so that the collection exists.
        progress.begin(format!("{} indexes", self.namespace), 0);
        store.ensure_indexes(self.namespace.clone(), self.indexes.clone()).await.map_err(|error| at(&self.path, error))
    }
}

/// The documents of a file, in their order.
struct Documents<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    number: u64,
    offset: u64,
}

impl Documents<'_> {
    fn next(&mut self) -> Result<Option<RawDocumentBuf>> {
        let (path, number, offset) = (self.path, self.number + 1, self.offset);
        let wrong = |what: &dyn std::fmt::Display| at(path, format!("document {number}, at byte {offset}: {what}"));
        let mut length = [0; 4];
        match self.reader.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(wrong(&error)),
        }
        let cut = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => wrong(&"the file ends within the document"),
            _ => wrong(&error),
        };
        self.reader.read_exact(&mut length[1..]).map_err(cut)?;
        let size = usize::try_from(i32::from_le_bytes(length)).unwrap_or(0);
        if !(5..=MAX_DOCUMENT_SIZE).contains(&size) {
            return Err(wrong(&format_args!("a document cannot have {} bytes", i32::from_le_bytes(length))));
        }
        let mut bytes = vec![0; size];
        bytes[..4].copy_from_slice(&length);
        self.reader.read_exact(&mut bytes[4..]).map_err(cut)?;
        let document = RawDocumentBuf::from_bytes(bytes).map_err(|error| wrong(&error))?;
        // A store may have documents that `query::validate` rejects today, and its dump must
        // remain importable.
        validate_form(&document).map_err(|error| wrong(&error))?;
        (self.number, self.offset) = (number, offset + size as u64);
        Ok(Some(document))
    }
}

/// Reads the metadata of a collection. Returns `None` if the file does not exist.
fn read_metadata(path: &Path) -> Result<Option<RawDocumentBuf>> {
    let bytes = match files::read_regular(path, METADATA_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| at(path, error))?,
    };
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| at(path, error))?;
    match Bson::try_from(json).map_err(|error| at(path, error))? {
        Bson::Document(document) => RawDocumentBuf::try_from(document).map(Some).map_err(|error| at(path, error)),
        _ => Err(at(path, "it is not a JSON object")),
    }
}

fn sorted(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(|error| at(directory, error))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(|error| at(directory, error)))
        .collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
