//! The backend of one app: answers the client's requests on top of the app's stores.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bson::{RawBson, oid::ObjectId, raw::RawDocumentBuf};
use futures_util::{
    FutureExt, TryFutureExt,
    future::{self, Either},
};
use query::Variables;
use store::{Durability, Explanation, Namespace, Retention, Store};
use tokio::sync::OnceCell;

use crate::{
    DeclaredQuery, Environment, Error, ErrorCode, Result, Secret, StoreAddress,
    auth::{
        CachedSession, Caller, Claim, KeyRing, Origin, Passwords, PublicKey, Sessions, Throttle, TokenSeal, Tokens,
        Users,
    },
    data::{Authorization, Call, Collections, CustomData, Parsed, Selection, Subscription, Viewer, no_rule},
    definition::{CustomUserData, Definition, Service},
    limits::OperationLimits,
    request::{AccessGrant, CallFunction, Credentials, EmailPasswordRequest, LogIn, Request, Response, Session},
    rules::{RuleGuard, RuleSet, RuleUser},
    stores::{DataSources, StoreSettings, Stores},
};

/// The allowed length of a password, in characters.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 6..=128;

/// The time limit of a log-in, a registration or a refresh on a store in another process. Each of
/// them needs several operations there.
const SESSION_TIME: Duration = Duration::from_secs(15);

/// The maximum length of a user's name, usually an e-mail address, in characters.
const EMAIL_LENGTH: usize = 128;

/// The backend of one app, which answers requests over its stores. It is shared by reference, and
/// holds no state except caches.
///
/// Create it with [`Backend::open`], or with [`Backend::new`] on a store that is open already.
pub struct Backend {
    app_id: String,
    definition: Definition,
    stores: Stores,
    keys: Arc<KeyRing>,
    users: Users,
    sessions: Sessions,
    passwords: Passwords,
    throttle: Throttle,
    custom_data: CustomData,
    collections: Collections,
    environment: Environment,
    prepared: OnceCell<()>,
}

/// Settings of a backend that are not part of the app's definition.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Options {
    /// The durability of acknowledged writes.
    pub durability: Durability,
    /// The limits of one operation of a user.
    pub limits: OperationLimits,
    /// Retention of change events, within which a change stream can resume; one day or 256 MB by
    /// default.
    pub change_retention: Retention,
    /// The addresses of data sources that have a store of their own instead of the app's.
    pub data_sources: DataSources,
    /// True to name the app as the audience (`aud`) of its tokens. Versions of Userkeep that do
    /// not know this option reject such tokens.
    pub token_audience: bool,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Backend")
            .field("app_id", &self.app_id)
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

/// Returns the name of the database for users and sessions of an app.
fn database_of(app_id: &str) -> String {
    format!("userkeep_{app_id}")
}

/// Checks that MongoDB accepts the name of the app's database.
fn check_app_id(app_id: &str) -> Result<(), store::Error> {
    Namespace::new(&database_of(app_id), "users").check().map_err(|_| {
        let most = MONGODB_NAME_BYTES - database_of("").len();
        let reason = format!(
            "the app id '{app_id}' cannot be used with a store on MongoDB: it may have up to {most} bytes there, and no slash, backslash, dot, space, quotation mark, dollar sign or NUL, because a database is named after it"
        );
        store::Error::DataSource { reason }
    })
}

/// The maximum length of a database name on MongoDB, in bytes.
const MONGODB_NAME_BYTES: usize = 63;

impl Backend {
    /// Creates the backend of the app `app_id` with one store for everything.
    ///
    /// The store is not written before [`start`](Self::start) or the first request that writes.
    pub fn new(
        app_id: &str,
        definition: Definition,
        store: Arc<dyn Store>,
        environment: Environment,
        options: &Options,
    ) -> Self {
        Self::on(app_id, definition, Stores::of_one(store), environment, options)
    }

    fn on(app_id: &str, definition: Definition, stores: Stores, environment: Environment, options: &Options) -> Self {
        let store = Arc::clone(stores.main());
        let database = database_of(app_id);
        let keys = Arc::new(KeyRing::new(Arc::clone(&store), &database, environment.clone()));
        Self {
            app_id: app_id.to_owned(),
            users: Users::new(Arc::clone(&store), &database, environment.clone()),
            passwords: Passwords::shared(),
            throttle: Throttle::new(environment.clone(), &store, &database),
            sessions: Sessions::new(
                Arc::clone(&store),
                &database,
                Tokens::new(Arc::clone(&keys), app_id, options.token_audience),
                environment.clone(),
            ),
            custom_data: CustomData::new(&stores, definition.custom_user_data.clone()),
            collections: Collections::new(options.limits),
            definition,
            stores,
            keys,
            environment,
            prepared: OnceCell::new(),
        }
    }

    /// Opens the stores of the app `app_id` and creates its backend.
    ///
    /// `address` is the app's own store. [`Options::data_sources`] contains the addresses of data
    /// sources with a store of their own.
    ///
    /// # Errors
    /// If a store cannot be opened, or if the app's own store is on MongoDB and MongoDB does not
    /// accept a database that is named after the app.
    pub fn open(
        app_id: &str,
        definition: Definition,
        address: &StoreAddress,
        environment: Environment,
        options: &Options,
    ) -> Result<Self, store::Error> {
        Self::open_on(app_id, definition, address, None, environment, options)
    }

    /// Does the same as [`open`](Self::open), but takes the app's own store as `open_store` if
    /// that is open already.
    ///
    /// # Errors
    /// If another store cannot be opened.
    pub fn open_on(
        app_id: &str,
        definition: Definition,
        address: &StoreAddress,
        open_store: Option<Arc<dyn Store>>,
        environment: Environment,
        options: &Options,
    ) -> Result<Self, store::Error> {
        if let StoreAddress::MongoDb(_) = address {
            check_app_id(app_id)?;
        }
        let settings = StoreSettings { durability: options.durability, retention: options.change_retention };
        let stores = Stores::open(address, open_store, &options.data_sources, &definition, &environment, settings)?;
        Ok(Self::on(app_id, definition, stores, environment, options))
    }

    /// Returns the app's id.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// Returns the public keys of the app's tokens, for servers that verify tokens offline.
    ///
    /// # Errors
    /// If the store cannot be read, or the first key cannot be created.
    pub async fn public_keys(&self) -> Result<Vec<PublicKey>> {
        self.prepare().await?;
        self.keys.public_keys().await
    }

    /// Creates a new signing key and returns its id. Older keys still verify tokens until the last
    /// token that they signed has expired.
    ///
    /// # Errors
    /// If the store cannot be read or written, or another rotation is under way.
    pub async fn rotate_keys(&self) -> Result<String> {
        self.prepare().await?;
        self.sessions.rotate_keys().await
    }

    /// Returns the number of requests over a network that were rejected by the rate limit since
    /// the start.
    pub fn refused(&self) -> u64 {
        self.throttle.refused()
    }

    /// Returns the number of access tokens that were issued without the custom data since the
    /// start, because it was too large.
    pub fn custom_data_left_out(&self) -> u64 {
        self.custom_data.left_out()
    }

    /// Opens the store for writing and creates the indexes and the first signing key. Without this
    /// call, the first request does so.
    ///
    /// # Errors
    /// If the store cannot be opened or written, or an index of the definition cannot be applied.
    pub async fn start(&self) -> Result<()> {
        self.prepare().await
    }

    /// Checks that the files of the stores are in their places, and that the app's own store can be
    /// read.
    ///
    /// # Errors
    /// If a file was removed or replaced, or the store cannot be read. The error is for the
    /// operator.
    pub async fn check_health(&self) -> Result<(), store::Error> {
        self.stores.check_files()?;
        self.keys.check_readable().await
    }

    /// Returns the definition of the app.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Returns each query that the backend itself runs with its query plan, in MongoDB's terms. A
    /// test checks that each of them uses its index.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn explain_queries(&self) -> Result<Vec<(DeclaredQuery, Explanation)>> {
        self.prepare().await?;
        let main = self.stores.main();
        let own = [self.users.declared(), self.sessions.declared()?, self.keys.declared()?, self.throttle.declared()?];
        let own = own.into_iter().flatten().map(|query| (query, Arc::clone(main)));
        let mut explained = Vec::new();
        for (query, store) in own.chain(self.custom_data.declared()) {
            let explanation = store.explain(query.find.clone()).await?;
            explained.push((query, explanation));
        }
        Ok(explained)
    }

    /// Returns the store of users and sessions, for its operator.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.stores.main())
    }

    /// Closes all stores.
    pub async fn close(&self) {
        self.stores.close().await;
    }

    /// Checks an access token's signature, kind and time, and returns the user's id. It does not
    /// read the session, so that a server can call it before it reads the body of a request.
    ///
    /// # Errors
    /// If the token is not valid.
    pub async fn check_access_token(&self, access_token: &Secret) -> Result<String> {
        self.sessions.claim_of_access_token(access_token).await.map(|claim| claim.user_id().to_hex())
    }

    /// Answers a request that comes over a network. A client that fails too often is rejected
    /// until its wait is over.
    ///
    /// # Errors
    /// The error for the client, as App Services would return it.
    pub async fn handle_from(&self, request: Request, origin: Origin) -> Result<Response> {
        let until = self.session_deadline(&request);
        match in_time(until, self.throttle.begin(&request, origin), too_late).await? {
            Some(attempt) => attempt.settle(self.handle_until(request, until).await).await,
            None => self.handle_until(request, until).await,
        }
    }

    /// Answers a request of the same process. It is not rate limited, because the application acts
    /// for all its users.
    ///
    /// # Errors
    /// The error for the client, as App Services would return it.
    pub async fn handle(&self, request: Request) -> Result<Response> {
        let until = self.session_deadline(&request);
        self.handle_until(request, until).await
    }

    /// Returns the deadline of a request that opens or refreshes a session; `None` for other
    /// requests and for a store in this process.
    fn session_deadline(&self, request: &Request) -> Option<Instant> {
        let is_of_session =
            matches!(request, Request::LogIn(_) | Request::RefreshSession { .. } | Request::EmailPassword(_));
        (self.stores.has_remote() && is_of_session).then(|| Instant::now() + SESSION_TIME)
    }

    /// Answers a request. `until` is its [`session_deadline`](Self::session_deadline).
    async fn handle_until(&self, request: Request, until: Option<Instant>) -> Result<Response> {
        match request {
            Request::LogIn(log_in) => in_time(until, self.log_in(log_in), too_late).await.map(Response::Session),
            Request::Link { access_token } => {
                self.sessions.by_access_token(&access_token, &self.users).await?;
                Err(Error::bad_request("linking identities is not supported yet"))
            }
            Request::Profile { access_token } => {
                let caller = self.sessions.by_access_token(&access_token, &self.users).await?;
                self.users.profile(caller.user_id).await.map(Response::Profile)
            }
            Request::RefreshSession { refresh_token } => {
                in_time(until, self.refresh(&refresh_token), too_late).await.map(Response::AccessGrant)
            }
            Request::EndSession { refresh_token } => {
                let caller = self.sessions.to_end(&refresh_token).await?;
                self.sessions.close(&caller).await.map(|()| Response::Done)
            }
            Request::DeleteUser { access_token } => {
                let caller = self.sessions.by_access_token(&access_token, &self.users).await?;
                // The custom data stays, because it belongs to the application.
                self.sessions.end_with(&caller, self.users.delete(caller.user_id)).await?;
                Ok(Response::Done)
            }
            Request::EmailPassword(request) => {
                in_time(until, self.email_password(request), too_late).await.map(|()| Response::Done)
            }
            Request::ApiKeys { refresh_token } => {
                let claim = self.sessions.claim_of_refresh_token(&refresh_token).await?;
                self.sessions.by_refresh_token(&refresh_token, &claim, &self.users).await?;
                Err(provider_not_found("api-key"))
            }
            Request::CallFunction(call) => self.call_function(call).await.map(Response::Value),
            Request::Push { access_token, service } => {
                self.sessions.by_access_token(&access_token, &self.users).await?;
                Err(Error::new(ErrorCode::ServiceNotFound, format!("service not found: '{service}'")))
            }
        }
    }

    /// Calls a function of a data source as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// The errors of a user's call, except those of rules.
    pub async fn call_as_system(&self, service: &str, name: String, arguments: RawDocumentBuf) -> Result<RawBson> {
        self.prepare().await?;
        let call = self.collections.read(&self.definition, service, name, arguments)?;
        let budget = self.collections.budget(&Authorization::System, call.bytes(), None);
        let (call, parsed) = self.collections.parse(call, &Authorization::System, &budget).await?;
        self.collections.run(&**self.stores.of(service), call, parsed).await
    }

    /// Creates the indexes and the keys before the first write.
    async fn prepare(&self) -> Result<()> {
        self.prepared
            .get_or_try_init(|| async {
                self.passwords.warm_up();
                self.users.prepare().await?;
                self.sessions.prepare().await?;
                self.throttle.prepare().await?;
                self.prepare_collections().await?;
                self.custom_data.prepare(|configuration| self.lets_users_insert(configuration)).await?;
                self.keys.prepare().await?;
                self.keys.resume_key().await.map(|_| ())
            })
            .await
            .copied()
    }

    /// True if a role may let users insert custom data.
    fn lets_users_insert(&self, configuration: &CustomUserData) -> bool {
        let service = self.definition.services.get(&configuration.service);
        service.and_then(|service| service.rules(&configuration.namespace)).is_some_and(|rules| rules.may_insert())
    }

    /// Creates the indexes of the definition, and enables pre-images if the definition asks for
    /// them.
    async fn prepare_collections(&self) -> Result<()> {
        for (name, service) in &self.definition.services {
            for namespace in &service.pre_images {
                self.stores.of(name).keep_versions(namespace.clone()).await?;
            }
        }
        let of_service = |(name, service): (&'_ String, &'_ Service)| {
            service.indexes.iter().map(|indexes| (name.clone(), indexes.clone())).collect::<Vec<_>>()
        };
        for (service, (namespace, indexes)) in self.definition.services.iter().flat_map(of_service) {
            self.stores.of(&service).ensure_indexes(namespace.clone(), indexes).await.map_err(|error| {
                let error = Error::from(error);
                let message = format!("the indexes.json of {namespace} cannot be applied: {}", error.message);
                Error { message: message.into(), ..error }
            })?;
        }
        Ok(())
    }

    async fn log_in(&self, LogIn { credentials, device_id }: LogIn) -> Result<Session> {
        let providers = &self.definition.providers;
        let user = match credentials {
            Credentials::Anonymous if providers.anonymous => {
                self.prepare().await?;
                self.users.create_anonymous().await?
            }
            Credentials::EmailPassword { email, password } if providers.email_password.is_some() => {
                self.prepare().await?;
                let user = self.users.by_email(&email).await?;
                let hash = user.as_ref().and_then(|user| user.password_hash.clone());
                let is_right = self.passwords.verify(password, hash).await?;
                let user =
                    user.filter(|_| is_right).ok_or_else(|| Error::new(ErrorCode::InvalidPassword, "unauthorized"))?;
                if user.disabled {
                    return Err(Error::new(ErrorCode::UserDisabled, "user disabled"));
                }
                user
            }
            Credentials::Anonymous => return Err(provider_not_found("anon-user")),
            Credentials::EmailPassword { .. } => return Err(provider_not_found("local-userpass")),
            Credentials::Other(provider) => return Err(provider_not_found(&provider)),
        };
        let is_device = |id: &String| ObjectId::parse_str(id).is_ok_and(|id| id.bytes() != [0; 12]);
        let device_id = device_id.filter(is_device).unwrap_or_else(|| ObjectId::new().to_hex());
        let (caller, refresh_token) = self.sessions.open(&user, &self.users, device_id).await?;
        let custom_data = self.custom_data.of(caller.user_id).await?;
        let access = self.access(&caller, custom_data).await?;
        Ok(Session { access, refresh_token, user_id: caller.user_id.to_hex(), device_id: caller.device_id })
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<AccessGrant> {
        let claim = self.sessions.claim_of_refresh_token(refresh_token).await?;
        let caller = self.sessions.by_refresh_token(refresh_token, &claim, &self.users);
        let (caller, custom_data) = if self.stores.main().is_remote() {
            // Reads the session, the user and the custom data in one round trip.
            first_decides(caller, self.custom_data.of_at_once(claim.user_id())).await?
        } else {
            (caller.await?, self.custom_data.of(claim.user_id()).await?)
        };
        if caller.needs_touch {
            let both = vec![self.users.touch(caller.user_id)?, self.sessions.touch(&caller)?];
            self.stores.main().write_in_order(both).await?;
        }
        self.access(&caller, custom_data).await
    }

    /// Signs a new access token with the custom data.
    async fn access(&self, caller: &Caller, custom_data: Option<Arc<RawDocumentBuf>>) -> Result<AccessGrant> {
        let user_data = match &custom_data {
            Some(document) => self.custom_data.claim(caller.user_id, document)?,
            None => None,
        };
        Ok(AccessGrant { access_token: self.sessions.access_token(caller, user_data).await?, custom_data })
    }

    async fn email_password(&self, request: EmailPasswordRequest) -> Result<()> {
        let Some(provider) = self.definition.providers.email_password else {
            return Err(provider_not_found("local-userpass"));
        };
        match request {
            EmailPasswordRequest::Register { email, password } => {
                if !provider.auto_confirm {
                    return Err(Error::bad_request(format!("failed to confirm user \"{email}\"")));
                }
                self.register(&email, password).await
            }
            EmailPasswordRequest::Confirm => Err(Error::new(ErrorCode::UserpassTokenInvalid, "invalid token data")),
            EmailPasswordRequest::ResendConfirmation { email } => {
                self.existing(&email).await?;
                Err(Error::new(ErrorCode::UserAlreadyConfirmed, "already confirmed"))
            }
            EmailPasswordRequest::RetryCustomConfirmation { email } => Err(Error::bad_request(format!(
                "cannot run confirmation for {email}: automatic confirmation is enabled"
            ))),
            EmailPasswordRequest::Reset => Err(Error::new(ErrorCode::UserpassTokenInvalid, "invalid token data")),
            EmailPasswordRequest::SendReset { .. } => Err(Error::bad_request("error processing request")),
            EmailPasswordRequest::CallResetFunction { email } => {
                Err(Error::bad_request(format!("failed to reset password for user \"{email}\"")))
            }
        }
    }

    async fn register(&self, email: &str, password: Secret) -> Result<()> {
        // Without confirmation by e-mail, this is a name that need not be an address.
        let is_name = (1..=EMAIL_LENGTH).contains(&email.chars().count())
            && email.trim() == email
            && !email.chars().any(char::is_control);
        if !is_name {
            return Err(Error::bad_request("email invalid"));
        }
        if !PASSWORD_LENGTH.contains(&password.expose().chars().count()) {
            return Err(Error::bad_request("password must be between 6 and 128 characters"));
        }
        self.prepare().await?;
        // Checked before the expensive hash; the unique index checks it again.
        if self.users.by_email(email).await?.is_some() {
            return Err(Error::new(ErrorCode::AccountNameInUse, "name already in use"));
        }
        let hash = self.passwords.hash(password).await?;
        self.users.create_with_email(email, &hash).await
    }

    async fn existing(&self, email: &str) -> Result<()> {
        match self.users.by_email(email).await? {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorCode::UserNotFound, "user not found")),
        }
    }

    async fn call_function(
        &self,
        CallFunction { access_token, service, name, arguments }: CallFunction,
    ) -> Result<RawBson> {
        // The reads of the session and of the custom data count towards the time limit of the
        // operation.
        let until = self.stores.has_remote().then(|| self.collections.deadline());
        let claim = in_time(until, self.sessions.claim_of_access_token(&access_token), time_is_over).await?;
        let confirm = || in_time(until, self.confirm(&claim), time_is_over);
        let parsed = async {
            let access = self.access_to(&claim, service.as_deref(), name, arguments);
            let (call, access, _, store) = in_time(until, access, time_is_over).await?;
            let budget = self.collections.budget(&access, call.bytes(), until);
            let (call, parsed) = self.collections.parse(call, &access, &budget).await?;
            Ok((call, parsed, store))
        };
        // The caller must have a session before it sees what is wrong with the call.
        let (call, parsed, store) = match parsed.await {
            Ok(parsed) => parsed,
            Err(error) => {
                confirm().await?;
                return Err(error);
            }
        };
        let main = self.stores.main();
        match parsed {
            // The session and the query are sent together and take one round trip. This is only
            // done for a session that is known to be open: the token of one that has ended must
            // not cause work in the database.
            Parsed::Find(find) if main.is_remote() && self.sessions.is_known(&claim) => {
                let documents = store.find(*find).map_err(Error::from);
                let (_, documents) = first_decides(confirm(), documents).await?;
                Ok(Collections::found(&call, documents))
            }
            Parsed::Find(find) if Arc::ptr_eq(store, main) && !main.is_remote() => {
                let at = self.sessions.now();
                let [session, documents] = main.find_both([self.sessions.find(&claim), *find]).await?;
                self.sessions.confirm_read(&claim, session, at, &self.users).await?;
                Ok(Collections::found(&call, documents))
            }
            parsed => {
                confirm().await?;
                self.collections.run(&**store, call, parsed).await
            }
        }
    }

    /// Opens a change stream for a user: the function `watch` of a data source. It ends with the
    /// user's session.
    ///
    /// # Errors
    /// The errors of a query, and an error if the stream cannot resume after `resumeAfter`.
    pub async fn watch(self: &Arc<Self>, call: CallFunction) -> Result<Subscription> {
        let CallFunction { access_token, service, name, arguments } = call;
        let claim = self.sessions.claim_of_access_token(&access_token).await?;
        self.confirm(&claim).await?;
        if name != "watch" {
            return Err(Error::bad_request(format!("'{name}' is not a stream of events")));
        }
        let (call, access, rules, store) = self.access_to(&claim, service.as_deref(), name, arguments).await?;
        let (call, selection) = Selection::read(call, &access, self.variables(), &self.collections).await?;
        let service = service.unwrap_or_default();
        let viewer = Viewer::User { backend: Arc::clone(self), service, claim, rules: Arc::clone(rules) };
        Subscription::begin(&**store, call, selection, viewer, self.collections).await
    }

    /// Opens a change stream as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// The errors of a user's stream, except those of rules.
    pub async fn watch_as_system(&self, service: &str, arguments: RawDocumentBuf) -> Result<Subscription> {
        let call = self.collections.read(&self.definition, service, "watch".to_owned(), arguments)?;
        let (call, selection) =
            Selection::read(call, &Authorization::System, self.variables(), &self.collections).await?;
        Subscription::begin(&**self.stores.of(service), call, selection, Viewer::System, self.collections).await
    }

    /// Returns the encryption of a user's resume tokens. The app accepts a token only with the
    /// context that it was sealed with.
    pub(crate) async fn token_seal(&self, context: &[&str]) -> Result<TokenSeal> {
        let context: Vec<&str> = [&*self.app_id].iter().chain(context).copied().collect();
        Ok(TokenSeal::new(self.keys.resume_key().await?, &context))
    }

    fn variables(&self) -> Variables {
        Variables::at(query::Environment::now(&self.environment))
    }

    /// Confirms that the session that an access token claims is open and that its user is enabled.
    ///
    /// # Errors
    /// `InvalidSession` if the session has ended, or the user is disabled or deleted.
    pub(crate) async fn confirm(&self, claim: &Claim) -> Result<CachedSession> {
        self.sessions.confirm(claim, &self.users).await
    }

    /// Returns the current time in milliseconds since the Unix epoch, as in [`CachedSession::at`].
    pub(crate) fn now(&self) -> i64 {
        self.sessions.now()
    }

    /// Resolves a call: its collection, what the user of the token may do there, the rules, and
    /// the store.
    async fn access_to(
        &self,
        claim: &Claim,
        service: Option<&str>,
        name: String,
        arguments: RawDocumentBuf,
    ) -> Result<(Call, Authorization, &Arc<RuleSet>, &Arc<dyn Store>)> {
        let Some(service) = service else {
            return Err(Error::new(ErrorCode::FunctionNotFound, format!("function not found: '{name}'")));
        };
        let call = self.collections.read(&self.definition, service, name, arguments)?;
        let services = &self.definition.services;
        let rules = services
            .get(service)
            .and_then(|service| service.rules(&call.namespace))
            .ok_or_else(|| no_rule(&call.namespace))?;
        let access = self.guarded(claim, rules, &call.namespace).await?;
        Ok((call, access, rules, self.stores.of(service)))
    }

    /// Returns what a collection's rules allow the user of a token.
    pub(crate) async fn guarded(
        &self,
        claim: &Claim,
        rules: &Arc<RuleSet>,
        namespace: &Namespace,
    ) -> Result<Authorization> {
        // Read for each call, so that a removed privilege takes effect at once.
        let custom_data = if rules.needs_custom_data() { self.custom_data.of(claim.user_id()).await? } else { None };
        let id: Arc<str> = claim.user_id().to_hex().into();
        let user = RuleUser { id: Arc::clone(&id), custom_data };
        let guard = RuleGuard::new(Arc::clone(rules), user, namespace.clone());
        Ok(Authorization::Guarded(Arc::new(guard), id))
    }
}

/// Runs an operation until its deadline, if it has one. Its requests to a remote store are not
/// canceled.
fn in_time<T>(
    until: Option<Instant>,
    operation: impl Future<Output = Result<T>>,
    late: fn() -> Error,
) -> impl Future<Output = Result<T>> {
    match until {
        None => Either::Left(operation),
        Some(until) => Either::Right(
            tokio::time::timeout_at(until.into(), operation).map(move |answer| answer.unwrap_or_else(|_| Err(late()))),
        ),
    }
}

/// The error of a request for a session that exceeds [`SESSION_TIME`].
fn too_late() -> Error {
    let reason = format!("it did not answer within {} s", SESSION_TIME.as_secs());
    store::Error::Unavailable { reason, maybe_written: true }.into()
}

/// The error of a user's operation whose time is over before it has begun.
fn time_is_over() -> Error {
    let server_code = Some(query::ErrorCode::MaxTimeMsExpired.number());
    Error { server_code, ..Error::new(ErrorCode::MongoDBError, "operation exceeded time limit") }
}

/// Runs both futures at once. An error of the first ends both; an error of the second is returned
/// only if the first succeeds.
pub(crate) async fn first_decides<A, B>(
    first: impl Future<Output = Result<A>>,
    second: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    let (first, second) = future::try_join(first, second.map(Ok)).await?;
    Ok((first, second?))
}

fn provider_not_found(provider: &str) -> Error {
    Error::new(ErrorCode::AuthProviderNotFound, format!("authentication via '{provider}' is unsupported"))
}

#[cfg(test)]
mod tests;
