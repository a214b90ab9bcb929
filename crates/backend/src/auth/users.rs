//! The users in the backend's own database.

use std::sync::Arc;

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{Filter, Path};
use store::{Change, Find, Index, Store, Write};

use super::{OwnCollection, own_collection::by_id, providers::NewUser, sessions::anonymous_end};
use crate::{
    DeclaredQuery, Environment, Error, ErrorCode, Result, provider,
    response::{Identity, Profile},
};

/// The unique login key of a user: the provider's type and the provider's name for the user.
const LOGIN_KEY: &str = "identities.key";

pub(crate) struct Users {
    collection: OwnCollection,
    environment: Environment,
}

/// The part of a user that a log-in needs.
pub(crate) struct User {
    pub(crate) id: ObjectId,
    pub(crate) disabled: bool,
    pub(crate) password_hash: Option<String>,
    pub(crate) identity: Identity,
}

impl Users {
    pub(crate) fn new(store: Arc<dyn Store>, database: &str, environment: Environment) -> Self {
        Self { collection: OwnCollection::new(store, database, "users"), environment }
    }

    pub(crate) async fn prepare(&self) -> Result<()> {
        let expired = Index::on(Path::new("expires_at")).expiring(0);
        Ok(self.collection.ensure_indexes(vec![login_index(), expired]).await?)
    }

    /// Returns the queries for users, for the index test.
    pub(crate) fn declared(&self) -> Vec<DeclaredQuery> {
        let by_key = self.find_by_key(&login_key(provider::EMAIL_PASSWORD, "placeholder@example.com"));
        vec![
            DeclaredQuery::new("a user by login key", by_key, login_index().name),
            DeclaredQuery::new("a user by id", self.find_by_id(self.environment.new_id()), "_id_"),
        ]
    }

    fn find_by_key(&self, key: &str) -> Find {
        self.collection.query_one(Filter::equals(LOGIN_KEY, RawBson::String(key.to_owned())))
    }

    /// Returns the query for a user by id.
    pub(super) fn find_by_id(&self, id: ObjectId) -> Find {
        Find { budget: self.collection.budget_of(id), ..self.collection.query(by_id(id)) }
    }

    pub(crate) async fn by_email(&self, email: &str) -> Result<Option<User>> {
        let found = self.collection.find_one(self.find_by_key(&login_key(provider::EMAIL_PASSWORD, email))).await?;
        found.map(|document| User::read(&document, provider::EMAIL_PASSWORD).map_err(Error::internal)).transpose()
    }

    /// Creates a user.
    ///
    /// # Errors
    /// `AccountNameInUse` if the provider already has a user with this name.
    pub(crate) async fn create(&self, new_user: &NewUser) -> Result<User> {
        let document = self.document(new_user);
        let user = User::read(&document, new_user.provider).map_err(Error::internal)?;
        match self.collection.write(self.collection.insertion(document)).await {
            // The unique index rejects one of two concurrent registrations.
            Err(store::Error::DuplicateKey { .. }) => {
                Err(Error::new(ErrorCode::AccountNameInUse, "name already in use"))
            }
            other => Ok(other.map(|_| user)?),
        }
    }

    fn document(&self, new_user: &NewUser) -> RawDocumentBuf {
        let NewUser { provider, name, data, password_hash, expires } = new_user;
        let key = login_key(provider, name);
        let mut document = rawdoc! {
            "_id": self.environment.new_id(),
            "type": "normal",
            "identities": [{ "id": self.environment.new_id().to_hex(), "provider_type": *provider, "key": key }],
            "data": data.clone(),
            "disabled": false,
            "created_at": query::Environment::now(&self.environment),
        };
        if let Some(hash) = password_hash {
            query::append(&mut document, "password_hash", hash.as_str());
        }
        if *expires {
            query::append(&mut document, "expires_at", anonymous_end(self.environment.unix_seconds()));
        }
        document
    }

    pub(crate) async fn profile(&self, id: ObjectId) -> Result<Profile> {
        let found = self.collection.find_one(self.find_by_id(id)).await?;
        let document = found.ok_or_else(|| not_found(id))?;
        read_profile(&document).map_err(Error::internal)
    }

    /// Returns the write that records a log-in. It matches nothing if the user is deleted or
    /// disabled.
    pub(crate) fn note_log_in(&self, id: ObjectId) -> Result<Write> {
        let filter = Filter::And(vec![by_id(id), Filter::equals("disabled", RawBson::Boolean(false))]);
        let update = query::Update::parse(
            &rawdoc! { "$set": { "last_authenticated_at": query::Environment::now(&self.environment) } },
        )?;
        Ok(self.modify(id, filter, Change::Update { update, upsert: false }))
    }

    /// Returns the write that extends the expiry of an anonymous user.
    pub(crate) fn touch(&self, id: ObjectId) -> Result<Write> {
        // A user with another identity has no expiry.
        let filter = Filter::parse(&rawdoc! { "_id": id, "expires_at": { "$exists": true } })?;
        let end = anonymous_end(self.environment.unix_seconds());
        let update = query::Update::parse(&rawdoc! { "$set": { "expires_at": end } })?;
        Ok(self.modify(id, filter, Change::Update { update, upsert: false }))
    }

    /// Returns the write that deletes a user.
    pub(crate) fn delete(&self, id: ObjectId) -> Write {
        self.modify(id, by_id(id), Change::Delete)
    }

    fn modify(&self, user_id: ObjectId, filter: Filter, change: Change) -> Write {
        Write { budget: self.collection.budget_of(user_id), ..self.collection.change(filter, change) }
    }
}

impl User {
    fn read(document: &RawDocument, provider: &str) -> Result<Self, bson::error::Error> {
        let identities = read_identities(document)?;
        let identity = identities.into_iter().find(|identity| identity.provider_type == provider);
        Ok(Self {
            id: document.get_object_id("_id")?,
            disabled: document.get_bool("disabled")?,
            password_hash: document.get_str("password_hash").ok().map(str::to_owned),
            identity: identity.unwrap_or_else(|| Identity { id: String::new(), provider_type: provider.to_owned() }),
        })
    }
}

/// Checks that a user who was looked up by id exists and is enabled.
///
/// # Errors
/// `InvalidSession` if the user is disabled or deleted.
pub(super) fn check_enabled(found: &[RawDocumentBuf], id: ObjectId) -> Result<()> {
    let Some(user) = found.first() else { return Err(not_found(id)) };
    match user.get_bool("disabled") {
        Ok(false) => Ok(()),
        _ => Err(Error::invalid_session("user disabled")),
    }
}

/// Returns the error of a request whose user has been deleted.
pub(super) fn not_found(id: ObjectId) -> Error {
    Error::invalid_session(&format!("No user found for session for user id {id}"))
}

fn login_index() -> Index {
    Index::on(Path::new(LOGIN_KEY)).unique()
}

fn login_key(provider: &str, name: &str) -> String {
    format!("{provider}:{name}")
}

fn read_identities(document: &RawDocument) -> Result<Vec<Identity>, bson::error::Error> {
    let mut identities = Vec::new();
    for item in document.get_array("identities")? {
        if let Some(identity) = item?.as_document() {
            identities.push(Identity {
                id: identity.get_str("id")?.to_owned(),
                provider_type: identity.get_str("provider_type")?.to_owned(),
            });
        }
    }
    Ok(identities)
}

fn read_profile(document: &RawDocument) -> Result<Profile, bson::error::Error> {
    Ok(Profile {
        user_id: document.get_object_id("_id")?.to_hex(),
        kind: document.get_str("type")?.to_owned(),
        identities: read_identities(document)?,
        data: document.get_document("data")?.to_owned(),
    })
}
