//! The kinds of stores that a conformance test runs on, and its documents and writes.

use std::{cell::RefCell, sync::Arc};

use bson::{
    Document, doc,
    raw::{RawDocument, RawDocumentBuf},
};
use query::{Filter, Update};
use store::{
    Change, Denied, Find, Guard, Location, Modify, MongoStore, Namespace, Operation, Result, SqliteStore, Store,
    SystemEnvironment, Write,
};

/// Opens the stores of a test.
pub(crate) struct World(Box<dyn Fn() -> Arc<dyn Store>>);

impl World {
    /// Opens an empty store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        (self.0)()
    }

    pub(crate) fn in_memory() -> Self {
        Self(Box::new(|| Arc::new(SqliteStore::open(Location::Memory, Arc::new(SystemEnvironment)).unwrap())))
    }

    pub(crate) fn in_files() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        Self(Box::new(move || {
            count.set(count.get() + 1);
            let path = directory.path().join(format!("{}.sqlite", count.get()));
            Arc::new(SqliteStore::open(Location::File(path), Arc::new(SystemEnvironment)).unwrap())
        }))
    }

    /// All tests share a server, so each store has its own database.
    pub(crate) fn on_mongodb() -> Self {
        Self(Box::new(|| {
            DATABASE.set(super::fresh_database());
            Arc::new(MongoStore::open(&super::server(), Arc::new(SystemEnvironment), None).unwrap())
        }))
    }
}

thread_local! {
    /// The database of the test on this thread.
    static DATABASE: RefCell<String> = RefCell::new("app".to_owned());
}

/// Turns each function into a test for each kind of store.
#[allow(unused_macros, reason = "not every test uses it")]
macro_rules! on_every_store {
    ($($test:ident,)*) => {
        mod in_memory {
            $(#[tokio::test] async fn $test() { super::$test(&super::World::in_memory()).await; })*
        }
        mod in_files {
            $(#[tokio::test] async fn $test() { super::$test(&super::World::in_files()).await; })*
        }
        mod on_mongodb {
            $(#[tokio::test] async fn $test() { super::$test(&super::World::on_mongodb()).await; })*
        }
    };
}
#[allow(unused_imports, reason = "not every test uses it")]
pub(crate) use on_every_store;

/// Returns the collection of the test.
pub(crate) fn namespace() -> Namespace {
    collection("people")
}

/// Returns a collection in the database of the test.
pub(crate) fn collection(name: &str) -> Namespace {
    DATABASE.with_borrow(|database| Namespace::new(database, name))
}

pub(crate) fn filter(filter: Document) -> Filter {
    Filter::parse(&RawDocumentBuf::try_from(filter).unwrap()).unwrap()
}

pub(crate) fn insert(documents: Vec<Document>) -> Write {
    let documents = documents.into_iter().map(|document| RawDocumentBuf::try_from(document).unwrap()).collect();
    Write::new(namespace(), Operation::Insert(documents))
}

pub(crate) fn update(find: Document, update: Document, multi: bool, upsert: bool) -> Write {
    let update = Update::parse(&RawDocumentBuf::try_from(update).unwrap()).unwrap();
    let modify = Modify::new(filter(find), multi, Change::Update { update, upsert });
    Write::new(namespace(), Operation::modify(modify))
}

pub(crate) async fn all(store: &dyn Store, find: Document) -> Vec<Document> {
    let found = store.find(Find::new(namespace(), filter(find))).await.unwrap();
    found.into_iter().map(|document| Document::try_from(document).unwrap()).collect()
}

/// Lets an owner see and write only its own documents.
pub(crate) struct Owner(pub &'static str);

impl Guard for Owner {
    fn may_see(&self, document: &RawDocument) -> bool {
        document.get_str("owner").is_ok_and(|owner| owner == self.0)
    }

    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
        let allowed = [before, after].into_iter().flatten().all(|document| self.may_see(document));
        if allowed { Ok(()) } else { Err(Denied("write not permitted".into())) }
    }
}

pub(crate) fn delete(find: Document, multi: bool) -> Write {
    Write::new(namespace(), Operation::modify(Modify::new(filter(find), multi, Change::Delete)))
}

pub(crate) fn set(find: Document, fields: Document) -> Write {
    update(find, doc! { "$set": fields }, false, false)
}

pub(crate) fn documents(found: Vec<RawDocumentBuf>) -> Vec<Document> {
    found.into_iter().map(|document| Document::try_from(document).unwrap()).collect()
}
