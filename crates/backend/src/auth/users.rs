//! The users in the backend's own database.

use std::sync::Arc;

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{Filter, Path, Update};
use store::{Change, Find, Index, Store, Write};

use super::{
    OwnCollection,
    email_tokens::{EmailToken, PresentedToken, Purpose},
    own_collection::by_id,
    providers::NewUser,
    sessions::anonymous_end,
};
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
    /// False if the user has registered, and the registration is not confirmed yet.
    pub(crate) is_confirmed: bool,
    /// The data of the profile.
    pub(crate) data: RawDocumentBuf,
    pub(crate) identity: Identity,
}

impl Users {
    pub(crate) fn new(store: Arc<dyn Store>, database: &str, environment: Environment) -> Self {
        Self { collection: OwnCollection::new(store, database, "users"), environment }
    }

    pub(crate) async fn prepare(&self) -> Result<()> {
        let expired = Index::on(Path::new("expires_at")).expiring(0);
        let tokens = [Purpose::Confirm, Purpose::Reset].map(token_index);
        let indexes = [login_index(), expired].into_iter().chain(tokens).collect();
        Ok(self.collection.ensure_indexes(indexes).await?)
    }

    /// Returns the queries for users, for the index test.
    pub(crate) fn declared(&self) -> Vec<DeclaredQuery> {
        let by_key = self.find_by_key(&login_key(provider::EMAIL_PASSWORD, "placeholder@example.com"));
        vec![
            DeclaredQuery::new("a user by login key", by_key, login_index().name),
            DeclaredQuery::new("a user by id", self.find_by_id(self.environment.new_id()), "_id_"),
            self.declared_token(Purpose::Confirm),
            self.declared_token(Purpose::Reset),
        ]
    }

    fn declared_token(&self, purpose: Purpose) -> DeclaredQuery {
        let filter = Filter::equals(&purpose.id_path(), RawBson::ObjectId(self.environment.new_id()));
        DeclaredQuery::new("a user by token", self.collection.query_one(filter), token_index(purpose).name)
    }

    fn find_by_key(&self, key: &str) -> Find {
        self.collection.query_one(Filter::equals(LOGIN_KEY, RawBson::String(key.to_owned())))
    }

    /// Returns the query for a user by id.
    pub(super) fn find_by_id(&self, id: ObjectId) -> Find {
        Find { budget: self.collection.budget_of(id), ..self.collection.query(by_id(id)) }
    }

    /// Returns the user with a name or an e-mail address, confirmed or not.
    pub(crate) async fn by_email(&self, email: &str) -> Result<Option<User>> {
        self.by_name(provider::EMAIL_PASSWORD, email).await
    }

    /// Returns the user whom a provider knows by a name.
    pub(crate) async fn by_name(&self, provider: &str, name: &str) -> Result<Option<User>> {
        let found = self.collection.find_one(self.find_by_key(&login_key(provider, name))).await?;
        found.map(|document| User::read(&document, provider).map_err(Error::internal)).transpose()
    }

    /// Registers a user who is confirmed by a token.
    ///
    /// # Errors
    /// `AccountNameInUse` if the provider already has a user with this name.
    pub(super) async fn create_unconfirmed(&self, new_user: &NewUser, token: &EmailToken) -> Result<()> {
        let mut document = self.document(new_user);
        document.append(Purpose::Confirm.field(), token.stored());
        match self.collection.write(self.insertion(document)).await {
            // The unique index rejects one of two concurrent registrations.
            Err(store::Error::DuplicateKey { .. }) => {
                Err(Error::new(ErrorCode::AccountNameInUse, "name already in use"))
            }
            other => Ok(other.map(|_| ())?),
        }
    }

    /// Returns the write that inserts a user.
    pub(super) fn insertion(&self, document: RawDocumentBuf) -> Write {
        self.collection.insertion(document)
    }

    /// Returns the document of a new user.
    pub(super) fn document(&self, new_user: &NewUser) -> RawDocumentBuf {
        let NewUser { provider, name, identity_id, data, password_hash, expires } = new_user;
        let key = login_key(provider, name);
        let id = self.environment.new_id();
        let identity_id = identity_id.clone().unwrap_or_else(|| self.environment.new_id().to_hex());
        let mut document = rawdoc! {
            "_id": id,
            "type": "normal",
            "identities": [{ "id": identity_id, "provider_type": *provider, "key": key }],
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
    /// disabled, or has another password than the one that was verified.
    pub(crate) fn note_log_in(&self, user: &User) -> Result<Write> {
        let id = user.id;
        let mut conditions = vec![by_id(id), Filter::equals("disabled", RawBson::Boolean(false))];
        if let Some(hash) = &user.password_hash {
            conditions.push(Filter::equals("password_hash", RawBson::String(hash.clone())));
        }
        let filter = Filter::And(conditions);
        let update = Update::parse(
            &rawdoc! { "$set": { "last_authenticated_at": query::Environment::now(&self.environment) } },
        )?;
        Ok(self.modify(id, filter, Change::Update { update, upsert: false }))
    }

    /// Returns the document of the user for whom a token is valid.
    pub(super) async fn by_token(&self, purpose: Purpose, token: &PresentedToken) -> Result<Option<RawDocumentBuf>> {
        let filter = token.filter(purpose, self.now())?;
        Ok(self.collection.find_one(self.collection.query_one(filter)).await?)
    }

    /// Returns the document of a user who is not confirmed.
    pub(super) async fn unconfirmed(&self, id: ObjectId) -> Result<Option<RawDocumentBuf>> {
        let found = self.collection.find_one(self.find_by_id(id)).await?;
        Ok(found.filter(|document| !is_confirmed(document)))
    }

    /// True if a user exists and is confirmed.
    pub(super) async fn is_confirmed(&self, id: ObjectId) -> Result<bool> {
        let found = self.collection.find_one(self.find_by_id(id)).await?;
        Ok(found.is_some_and(|document| is_confirmed(&document)))
    }

    /// Stores a token of a user, in place of an earlier one.
    pub(super) async fn set_token(&self, id: ObjectId, purpose: Purpose, token: &EmailToken) -> Result<()> {
        let mut conditions = vec![by_id(id)];
        if purpose == Purpose::Confirm {
            // The user may have been confirmed in the meantime.
            conditions.push(Filter::parse(&rawdoc! { purpose.field(): { "$exists": true } })?);
        }
        let set = rawdoc! { "$set": { purpose.field(): token.stored() } };
        Ok(self.collection.write(self.update(id, Filter::And(conditions), &set)?).await.map(|_| ())?)
    }

    /// Returns the write that confirms the user of a token.
    pub(super) fn confirmation_by(&self, token: &PresentedToken) -> Result<Write> {
        let filter = token.filter(Purpose::Confirm, self.now())?;
        let update = Update::parse(&rawdoc! { "$unset": { Purpose::Confirm.field(): "" } })?;
        Ok(self.collection.change(filter, Change::Update { update, upsert: false }))
    }

    /// Returns the write that confirms a user. It matches nothing if the user is confirmed
    /// already.
    pub(super) fn confirmation_of(&self, id: ObjectId) -> Result<Write> {
        let filter = Filter::parse(&rawdoc! { "_id": id, Purpose::Confirm.field(): { "$exists": true } })?;
        self.update(id, filter, &rawdoc! { "$unset": { Purpose::Confirm.field(): "" } })
    }

    /// Returns the write that sets a password.
    pub(super) fn new_password(&self, id: ObjectId, hash: &str) -> Result<Write> {
        self.update(id, by_id(id), &set_password(hash))
    }

    /// Returns the write that sets a password, and uses a token up.
    pub(super) fn new_password_by(&self, token: &PresentedToken, id: ObjectId, hash: &str) -> Result<Write> {
        let filter = Filter::And(vec![by_id(id), token.filter(Purpose::Reset, self.now())?]);
        self.update(id, filter, &set_password(hash))
    }

    /// Sets the name in a user's data.
    pub(crate) async fn set_name(&self, id: ObjectId, name: &str) -> Result<()> {
        let write = self.update(id, by_id(id), &rawdoc! { "$set": { "data.name": name } })?;
        Ok(self.collection.write(write).await.map(|_| ())?)
    }

    fn now(&self) -> bson::DateTime {
        query::Environment::now(&self.environment)
    }

    fn update(&self, id: ObjectId, filter: Filter, update: &RawDocument) -> Result<Write> {
        let update = Update::parse(update)?;
        Ok(self.modify(id, filter, Change::Update { update, upsert: false }))
    }

    /// Returns the write that extends the expiry of an anonymous user.
    pub(crate) fn touch(&self, id: ObjectId) -> Result<Write> {
        // A user with another identity has no expiry.
        let filter = Filter::parse(&rawdoc! { "_id": id, "expires_at": { "$exists": true } })?;
        let end = anonymous_end(self.environment.unix_seconds());
        let update = Update::parse(&rawdoc! { "$set": { "expires_at": end } })?;
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
    /// Reads the identities of a user.
    pub(super) fn identities(document: &RawDocument) -> Result<Vec<Identity>, bson::error::Error> {
        read_identities(document)
    }

    /// Reads a user with the identity of a provider.
    pub(super) fn read(document: &RawDocument, provider: &str) -> Result<Self, bson::error::Error> {
        let identities = read_identities(document)?;
        let identity = identities.into_iter().find(|identity| identity.provider_type == provider);
        Ok(Self {
            id: document.get_object_id("_id")?,
            disabled: document.get_bool("disabled")?,
            password_hash: document.get_str("password_hash").ok().map(str::to_owned),
            is_confirmed: is_confirmed(document),
            data: document.get_document("data")?.to_owned(),
            identity: identity.unwrap_or_else(|| Identity { id: String::new(), provider_type: provider.to_owned() }),
        })
    }
}

/// True unless a user's registration must still be confirmed.
fn is_confirmed(document: &RawDocument) -> bool {
    matches!(document.get(Purpose::Confirm.field()), Ok(None))
}

/// Returns the update that sets a password. It also removes the token of an earlier reset.
fn set_password(hash: &str) -> RawDocumentBuf {
    rawdoc! { "$set": { "password_hash": hash }, "$unset": { Purpose::Reset.field(): "" } }
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

fn token_index(purpose: Purpose) -> Index {
    Index { sparse: true, ..Index::on(Path::new(&purpose.id_path())) }
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
