//! The backend of one app: dispatches requests to the modules that handle them.

use std::{path::Path, sync::Arc, time::Duration};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
};
use store::{Durability, Explanation, Namespace, Retention, Store};

use crate::{
    Admin, DeclaredQuery, Environment, Error, ErrorCode, Result, Secret, Secrets, StoreAddress,
    auth::{self, AttemptShare, Origin, PublicKey, provider_not_found},
    context::{Context, Current, database_of, in_time, too_late},
    data::{self, Subscription},
    definition::{Definition, DefinitionError},
    functions::{self, FunctionOptions, FunctionPool, Invocation},
    limits::OperationLimits,
    logs::{self, LogRetention, RequestId, RequestRecord},
    reload::Reload,
    request::{ApiKeys, Arguments, CallFunction, Push, Request},
    response::{Done, Response},
    stores::{DataSources, StoreSettings, Stores},
};

/// The options of a backend.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Options {
    /// The durability of acknowledged writes: the kind of failure that they survive.
    pub durability: Durability,
    /// The limits of one operation of a user.
    pub limits: OperationLimits,
    /// Retention of change events for resumed streams; a day or 256 MB by default.
    pub change_retention: Retention,
    /// The stores of data sources that are not in the app's own store.
    pub data_sources: DataSources,
    /// True if tokens name the app as their audience (`aud`). Earlier versions reject such tokens.
    pub token_audience: bool,
    /// The threads and limits of functions.
    pub functions: FunctionOptions,
    /// The secrets of the definition.
    pub secrets: Secrets,
    /// Retention of log entries; 10 days or 64 MB by default. With 0 bytes, there is no log.
    pub log_retention: LogRetention,
    /// True to delete no log entries beyond their maximum size until
    /// [`Backend::trim_log`] is called: an operator may not know the size of the app's log.
    pub leaves_log: bool,
}

/// The context of a request.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The client's network address; `None` for the application in this process, whose requests
    /// are not rate limited.
    pub origin: Option<Origin>,
    /// The HTTP request as a function's `context.request`; `None` in this process.
    pub http: Option<RawDocumentBuf>,
    /// The id of the request; `None` for an id of the backend's own.
    pub request_id: Option<RequestId>,
    /// The part of the rate-limited request that the functions which it runs share with it.
    pub(crate) share: Option<Arc<AttemptShare>>,
}

impl RequestContext {
    /// Creates the context of a request by the application in this process.
    pub fn in_process() -> Self {
        Self::default()
    }

    /// Creates the context of a request from a network address.
    pub fn from_origin(origin: Origin) -> Self {
        Self { origin: Some(origin), ..Self::default() }
    }

    /// Adds the id by which the operator finds the request in the log.
    #[must_use]
    pub fn with_id(self, id: RequestId) -> Self {
        Self { request_id: Some(id), ..self }
    }

    /// Notes for the rate limit that the request has created a user.
    pub(crate) fn note_new_user(&self) {
        if let Some(share) = &self.share {
            share.note_new_user();
        }
    }

    fn with_share(self, share: Arc<AttemptShare>) -> Self {
        Self { share: Some(share), ..self }
    }

    /// Adds the HTTP request, as a function's `context.request`.
    #[must_use]
    pub fn with_http(self, request: RawDocumentBuf) -> Self {
        Self { http: Some(request), ..self }
    }
}

/// The reason why [`Backend::check_health`] fails.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store can be read, but the indexes or keys that the backend needs cannot be created.
    /// The reason is for the operator.
    #[error("{0}")]
    NotReady(String),
}

/// The backend of an app. It is shared by reference. All its state except caches is in the stores.
#[derive(Debug)]
pub struct Backend {
    app_id: Arc<str>,
    current: Arc<Current>,
    reload: Reload,
}

/// Time limit of writing the log entries that still wait when the backend closes.
const LOG_TIME: Duration = Duration::from_secs(5);

/// The maximum length of a database name on MongoDB, in bytes.
const MONGODB_NAME_BYTES: usize = 63;

impl Drop for Backend {
    fn drop(&mut self) {
        // Calls keep the context, and so the pool, alive.
        self.context().functions.close();
    }
}

/// Checks that MongoDB accepts the name of the app's database.
fn check_app_id(app_id: &str) -> Result<(), store::Error> {
    Namespace::new(&database_of(app_id), "users").check().map_err(|_| {
        let most = MONGODB_NAME_BYTES - database_of("").len();
        let reason = format!(
            "the app id '{app_id}' cannot be used with a store on MongoDB: it may have up to {most} bytes there, and no \
             slash, backslash, dot, space, quotation mark, dollar sign or NUL, because a database is named after it"
        );
        store::Error::DataSource { reason }
    })
}

impl Backend {
    /// Creates the backend of the app `app_id` on an open store.
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
        let reload = Reload::new(&definition);
        let make = |current| Context::new(app_id, definition, stores, environment, options, current);
        Self { app_id: app_id.into(), current: Current::new(make), reload }
    }

    /// Returns the context in force.
    fn context(&self) -> Arc<Context> {
        self.current.get()
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

    /// Does the same as [`open`](Self::open), but uses `open_store` as the app's own store if it
    /// is already open.
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

    /// Returns the definition in force.
    pub fn definition(&self) -> Arc<Definition> {
        Arc::clone(&self.context().definition)
    }

    /// Reads the definition again if its files have changed, and have not changed between this
    /// call and the one before, so that all files of a change are written. Returns the new
    /// definition, which [`apply_definition`](Self::apply_definition) puts in force.
    ///
    /// # Errors
    /// All problems that keep the definition from loading. The next call does not repeat them.
    pub fn changed_definition(
        &self,
        directory: &Path,
        secrets: &Secrets,
    ) -> Result<Option<Definition>, DefinitionError> {
        self.reload.poll(directory, secrets)
    }

    /// Puts another definition in force: atomically, for the requests and calls that begin from
    /// now on. Those that have begun keep the definition with which they began. Returns the
    /// changes that need a restart.
    ///
    /// # Errors
    /// If a data source has a store that is not open, or an index cannot be created. Then the
    /// definition in force stays.
    pub async fn apply_definition(&self, definition: Definition) -> Result<Vec<String>> {
        self.reload.apply(&self.current, definition).await
    }

    /// Returns the store of users and sessions, for its operator.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.context().main_store())
    }

    /// Returns the operator's API.
    pub fn admin(&self) -> Admin {
        Admin::new(self.context())
    }

    /// Opens the store for writing and creates the indexes and the first signing key. Without this
    /// call, the first request does so.
    ///
    /// # Errors
    /// If the store cannot be opened or written, or an index of the definition cannot be applied.
    pub async fn start(&self) -> Result<()> {
        let context = self.context();
        context.logs.use_runtime();
        in_time(context.deadline(), context.prepare(), too_late).await
    }

    /// Closes all stores, after the log entries that still wait are written.
    pub async fn close(&self) {
        let context = self.context();
        context.functions.close();
        let _ = tokio::time::timeout(LOG_TIME, context.logs.close()).await;
        context.stores.close().await;
    }

    /// Deletes the oldest log entries beyond the maximum size from now on, also with the option
    /// `leaves_log`.
    pub fn trim_log(&self) {
        self.context().logs.trim_from_now_on();
    }

    /// Writes the log entries that still wait, within a time limit.
    pub async fn flush_log(&self) {
        let _ = tokio::time::timeout(LOG_TIME, self.context().logs.flush()).await;
    }

    /// Returns the number of log entries that were dropped since the start.
    pub fn log_entries_dropped(&self) -> u64 {
        self.context().logs.dropped()
    }

    /// Adds an entry to the log about a request over a network that failed before the backend
    /// handled it. `method` and `path` are those of the request, without the query.
    pub fn log_failure(
        &self,
        circumstances: &RequestContext,
        (method, path): (&str, &str),
        (status, error): (u16, &Error),
        duration: Duration,
    ) {
        if let Some(request_id) = &circumstances.request_id {
            let failure = logs::Received { request_id, duration, method, path, status, error };
            logs::received(&self.context(), &failure, circumstances);
        }
    }

    /// Checks that the files of the stores are in their places, that the app's own store can be
    /// read, and that the last preparation succeeded.
    ///
    /// # Errors
    /// [`Unhealthy`], with a reason for the operator.
    pub async fn check_health(&self) -> Result<(), Unhealthy> {
        let context = self.context();
        context.stores.check_files()?;
        context.keys.check_readable().await?;
        // A failed attempt is repeated here too: a load balancer that asks for the health sends no
        // request that would do so.
        if !context.has_failed_to_prepare() {
            return Ok(());
        }
        let prepared = in_time(context.deadline(), context.prepare(), too_late).await;
        prepared.map_err(|error| Unhealthy::NotReady(error.detail.unwrap_or_else(|| error.message.into_owned())))
    }

    /// Returns the public keys of the app's tokens, for servers that verify tokens offline.
    ///
    /// # Errors
    /// If the store cannot be read, or the first key cannot be created.
    pub async fn public_keys(&self) -> Result<Vec<PublicKey>> {
        let context = self.context();
        let keys = async {
            context.prepare().await?;
            context.keys.public_keys().await
        };
        in_time(context.deadline(), keys, too_late).await
    }

    /// Returns the number of requests over a network that were rejected by the rate limit since
    /// the start.
    pub fn refused(&self) -> u64 {
        self.context().throttle.refused()
    }

    /// Returns the number of access tokens that were issued without the custom data since the
    /// start, because it was too large.
    pub fn custom_data_left_out(&self) -> u64 {
        self.context().custom_data.left_out()
    }

    /// Returns each query that the backend itself runs with its query plan, in MongoDB's terms. A
    /// test checks that each of them uses its index.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn explain_queries(&self) -> Result<Vec<(DeclaredQuery, Explanation)>> {
        let context = &self.context();
        context.prepare().await?;
        let own = [
            context.users.declared(),
            context.sessions.declared()?,
            context.keys.declared()?,
            context.throttle.declared()?,
            context.logs.declared()?,
        ];
        let own = own.into_iter().flatten().map(|query| (query, Arc::clone(context.main_store())));
        let mut explained = Vec::new();
        for (query, store) in own.chain(context.custom_data.declared()) {
            let explanation = store.explain(query.find.clone()).await?;
            explained.push((query, explanation));
        }
        Ok(explained)
    }

    /// Checks an access token's signature, kind and time, and returns the user's id. Does not read
    /// the session, so that a server can call it before it reads the body of a request.
    ///
    /// # Errors
    /// If the token is not valid.
    pub async fn check_access_token(&self, access_token: &Secret) -> Result<String> {
        let context = self.context();
        context.sessions.claim_of_access_token(access_token).await.map(|claim| claim.user_id().to_hex())
    }

    /// Handles a request from the same process.
    ///
    /// # Errors
    /// The errors of [`handle`](Self::handle).
    pub async fn handle_in_process(&self, request: Request) -> Result<Response> {
        self.handle(request, &RequestContext::in_process()).await
    }

    /// Handles a request. Failed attempts over a network are rate limited. The application in this
    /// process is exempt, because it acts for all its users.
    ///
    /// # Errors
    /// The error for the client, as App Services would return it.
    pub async fn handle(&self, request: Request, circumstances: &RequestContext) -> Result<Response> {
        let context = &self.context();
        let record = RequestRecord::begin(context, &request, circumstances);
        let with_id = record.request_id().filter(|_| circumstances.request_id.is_none());
        let with_id = with_id.map(|id| circumstances.clone().with_id(id));
        let circumstances = with_id.as_ref().unwrap_or(circumstances);
        let answer = Self::handle_within_limits(context, request, circumstances).await;
        let user = answer.as_ref().ok().and_then(logs::logged_in);
        let error = answer.as_ref().err().map(Error::for_log);
        record.end(user, error.as_deref());
        answer
    }

    /// Handles a request within its limits of rate and time.
    async fn handle_within_limits(
        context: &Arc<Context>,
        request: Request,
        circumstances: &RequestContext,
    ) -> Result<Response> {
        let runs_function = auth::may_run_function(&context.definition, &request);
        let until = match &request {
            // A call has a time limit of its own.
            Request::CallFunction(_) => None,
            _ if runs_function => context.deadline().map(|deadline| deadline + context.functions.longest_hooks()),
            _ => context.deadline(),
        };
        let Some(origin) = circumstances.origin else {
            return in_time(until, Self::dispatch(context, request, circumstances), too_late).await;
        };
        let attempt = context.throttle.begin(&request, origin, &context.definition.providers, runs_function);
        match in_time(until, attempt, too_late).await? {
            Some(attempt) => {
                let shared = attempt.share().map(|share| circumstances.clone().with_share(share));
                let circumstances = shared.as_ref().unwrap_or(circumstances);
                attempt.settle(in_time(until, Self::dispatch(context, request, circumstances), too_late).await).await
            }
            None => in_time(until, Self::dispatch(context, request, circumstances), too_late).await,
        }
    }

    /// Passes a request to the module that handles it.
    async fn dispatch(context: &Arc<Context>, request: Request, circumstances: &RequestContext) -> Result<Response> {
        match request {
            Request::LogIn(log_in) => auth::log_in(context, log_in, circumstances).await.map(Response::from),
            Request::Link(link) => auth::link(context, link).await.map(Response::from),
            Request::ReadProfile(read) => auth::profile(context, &read.access_token).await.map(Response::from),
            Request::RefreshSession(refresh) => {
                auth::refresh(context, &refresh.refresh_token).await.map(Response::from)
            }
            Request::EndSession(end) => auth::end_session(context, &end.refresh_token).await.map(Response::from),
            Request::DeleteUser(delete) => auth::delete_user(context, &delete.access_token).await.map(Response::from),
            Request::ProviderAction(action) => auth::act(context, action, circumstances).await.map(|()| Done.into()),
            Request::ApiKeys(ApiKeys { refresh_token, .. }) => {
                let claim = context.sessions.claim_of_refresh_token(&refresh_token).await?;
                context.sessions.by_refresh_token(&refresh_token, &claim, &context.users).await?;
                Err(provider_not_found(protocol::provider::API_KEY))
            }
            Request::CallFunction(CallFunction { access_token, name, arguments: Arguments::Function(arguments) }) => {
                functions::call(context, &access_token, &name, arguments, circumstances).await.map(Response::from)
            }
            Request::CallFunction(call) => data::call(context, call).await.map(Response::from),
            Request::Push(Push { access_token, service, .. }) => {
                context.sessions.by_access_token(&access_token, &context.users).await?;
                Err(Error::new(ErrorCode::ServiceNotFound, format!("service not found: '{service}'")))
            }
        }
    }

    /// Calls a function of a data source as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// The errors of a user's call, except the errors of rules.
    pub async fn call_as_system(&self, service: &str, name: String, argument: RawDocumentBuf) -> Result<RawBson> {
        data::call_as_system(&self.context(), service, name, argument, None).await
    }

    /// Calls a function for the operator, as the system user or as the user with an id, without
    /// its condition. Private functions can be called too. Returns `{ value, error: { message,
    /// code, stack }, messages: [{ level, text }], droppedMessages }`, with `value` or `error`.
    ///
    /// # Errors
    /// `FunctionNotFound`, `UserNotFound`, and the errors of the store.
    pub async fn run_function(&self, name: &str, arguments: RawArrayBuf, user: Option<&str>) -> Result<RawDocumentBuf> {
        functions::run_for_operator(&self.context(), name, arguments, user).await
    }

    /// Returns the threads that run the app's functions.
    pub fn functions(&self) -> Arc<FunctionPool> {
        Arc::clone(&self.context().functions)
    }

    /// True if the definition has functions.
    pub fn has_functions(&self) -> bool {
        functions::has_functions(&self.context())
    }

    /// Returns the facts for a thread that runs functions, as a document: `generation`, `app`,
    /// `environment`, `values`, `services`, `functions` and `directory`. It contains secrets.
    pub fn function_facts(&self) -> RawDocumentBuf {
        functions::facts(&self.context())
    }

    /// Calls a function of a data source for a running function: under the rules of its user, or
    /// without rules if `is_system` is true.
    ///
    /// # Errors
    /// The errors of the function.
    pub async fn call_in_function(
        &self,
        invocation: &Invocation,
        is_system: bool,
        service: &str,
        name: String,
        arguments: RawDocumentBuf,
    ) -> Result<RawBson> {
        functions::call_inside(invocation, is_system, service, name, arguments).await
    }

    /// Evaluates the condition (`can_evaluate`) of a function that a running function executes.
    /// `arguments` is `{ arguments: [ … ] }`.
    pub fn may_execute(&self, invocation: &Invocation, name: &str, arguments: &RawDocument) -> bool {
        functions::may_execute(invocation, name, arguments)
    }

    /// Opens a change stream of a collection for a user, as long as the session is open: the
    /// function `watch` of a data source.
    ///
    /// # Errors
    /// The errors of a query, and an error if the stream cannot resume at the token `resumeAfter`.
    pub async fn watch(&self, call: CallFunction) -> Result<Subscription> {
        self.watch_for(call, &RequestContext::in_process()).await
    }

    /// Does the same as [`watch`](Self::watch) for a client over a network.
    ///
    /// # Errors
    /// The errors of [`watch`](Self::watch).
    pub async fn watch_for(&self, call: CallFunction, circumstances: &RequestContext) -> Result<Subscription> {
        let context = &self.context();
        let request = Request::from(call);
        let record = RequestRecord::begin(context, &request, circumstances);
        let Request::CallFunction(call) = request else {
            return Err(Error::bad_request("this request opens no stream"));
        };
        let opened = data::watch(context, call).await;
        record.end(None, opened.as_ref().err());
        opened
    }

    /// Opens a change stream of a collection as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// As for a user, except the errors of rules.
    pub async fn watch_as_system(&self, service: &str, argument: RawDocumentBuf) -> Result<Subscription> {
        data::watch_as_system(&self.context(), service, argument).await
    }
}

#[cfg(test)]
mod tests;
