//! The backend of one app: dispatches requests to the modules that handle them.

use std::sync::Arc;

use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};
use store::{Durability, Explanation, Namespace, Retention, Store};

use crate::{
    Admin, DeclaredQuery, Environment, Error, ErrorCode, Result, Secret, Secrets, StoreAddress,
    auth::{self, Origin, PublicKey, provider_not_found},
    context::{Context, database_of, in_time, too_late},
    data::{self, Subscription},
    definition::Definition,
    functions::{self, FunctionOptions, FunctionPool, Invocation},
    limits::OperationLimits,
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
}

/// The context of a request.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The client's network address; `None` for the application in this process, whose requests
    /// are not rate limited.
    pub origin: Option<Origin>,
    /// The HTTP request as a function's `context.request`; `None` in this process.
    pub http: Option<RawDocumentBuf>,
}

impl RequestContext {
    /// Creates the context of a request by the application in this process.
    pub fn in_process() -> Self {
        Self::default()
    }

    /// Creates the context of a request from a network address.
    pub fn from_origin(origin: Origin) -> Self {
        Self { origin: Some(origin), http: None }
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
pub struct Backend(Arc<Context>);

/// The maximum length of a database name on MongoDB, in bytes.
const MONGODB_NAME_BYTES: usize = 63;

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
        Self(Arc::new(Context::new(app_id, definition, Stores::of_one(store), environment, options)))
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
        Ok(Self(Arc::new(Context::new(app_id, definition, stores, environment, options))))
    }

    /// Returns the app's id.
    pub fn app_id(&self) -> &str {
        &self.0.app_id
    }

    /// Returns the definition of the app.
    pub fn definition(&self) -> &Definition {
        &self.0.definition
    }

    /// Returns the store of users and sessions, for its operator.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.0.main_store())
    }

    /// Returns the operator's API.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.0))
    }

    /// Opens the store for writing and creates the indexes and the first signing key. Without this
    /// call, the first request does so.
    ///
    /// # Errors
    /// If the store cannot be opened or written, or an index of the definition cannot be applied.
    pub async fn start(&self) -> Result<()> {
        in_time(self.0.deadline(), self.0.prepare(), too_late).await
    }

    /// Closes all stores.
    pub async fn close(&self) {
        self.0.functions.close();
        self.0.stores.close().await;
    }

    /// Checks that the files of the stores are in their places, that the app's own store can be
    /// read, and that the last preparation succeeded.
    ///
    /// # Errors
    /// [`Unhealthy`], with a reason for the operator.
    pub async fn check_health(&self) -> Result<(), Unhealthy> {
        self.0.stores.check_files()?;
        self.0.keys.check_readable().await?;
        // A failed attempt is repeated here too: a load balancer that asks for the health sends no
        // request that would do so.
        if !self.0.has_failed_to_prepare() {
            return Ok(());
        }
        let prepared = in_time(self.0.deadline(), self.0.prepare(), too_late).await;
        prepared.map_err(|error| Unhealthy::NotReady(error.detail.unwrap_or_else(|| error.message.into_owned())))
    }

    /// Returns the public keys of the app's tokens, for servers that verify tokens offline.
    ///
    /// # Errors
    /// If the store cannot be read, or the first key cannot be created.
    pub async fn public_keys(&self) -> Result<Vec<PublicKey>> {
        let keys = async {
            self.0.prepare().await?;
            self.0.keys.public_keys().await
        };
        in_time(self.0.deadline(), keys, too_late).await
    }

    /// Returns the number of requests over a network that were rejected by the rate limit since
    /// the start.
    pub fn refused(&self) -> u64 {
        self.0.throttle.refused()
    }

    /// Returns the number of access tokens that were issued without the custom data since the
    /// start, because it was too large.
    pub fn custom_data_left_out(&self) -> u64 {
        self.0.custom_data.left_out()
    }

    /// Returns each query that the backend itself runs with its query plan, in MongoDB's terms. A
    /// test checks that each of them uses its index.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn explain_queries(&self) -> Result<Vec<(DeclaredQuery, Explanation)>> {
        let context = &self.0;
        context.prepare().await?;
        let own = [
            context.users.declared(),
            context.sessions.declared()?,
            context.keys.declared()?,
            context.throttle.declared()?,
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
        self.0.sessions.claim_of_access_token(access_token).await.map(|claim| claim.user_id().to_hex())
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
        let context = &self.0;
        let runs_function = auth::may_run_function(&context.definition, &request);
        let until = match &request {
            // A call has a time limit of its own.
            Request::CallFunction(_) => None,
            _ if runs_function => context.deadline().map(|deadline| deadline + context.functions.longest_hooks()),
            _ => context.deadline(),
        };
        let Some(origin) = circumstances.origin else {
            return in_time(until, self.dispatch(request, circumstances), too_late).await;
        };
        let attempt = context.throttle.begin(&request, origin, &context.definition.providers, runs_function);
        match in_time(until, attempt, too_late).await? {
            Some(attempt) => {
                attempt.settle(in_time(until, self.dispatch(request, circumstances), too_late).await).await
            }
            None => in_time(until, self.dispatch(request, circumstances), too_late).await,
        }
    }

    /// Passes a request to the module that handles it.
    async fn dispatch(&self, request: Request, circumstances: &RequestContext) -> Result<Response> {
        let context = &self.0;
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
                functions::call(context, &access_token, &name, arguments, circumstances.http.clone())
                    .await
                    .map(Response::from)
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
        data::call_as_system(&self.0, service, name, argument, None).await
    }

    /// Returns the threads that run the app's functions.
    pub fn functions(&self) -> &FunctionPool {
        &self.0.functions
    }

    /// True if the definition has functions.
    pub fn has_functions(&self) -> bool {
        functions::has_functions(&self.0)
    }

    /// Returns the facts for a thread that runs functions, as a document: `app`, `environment`,
    /// `values`, `services`, `functions` and `directory`. It contains secrets.
    pub fn function_facts(&self) -> RawDocumentBuf {
        functions::facts(&self.0)
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
        functions::call_inside(&self.0, invocation, is_system, service, name, arguments).await
    }

    /// Evaluates the condition (`can_evaluate`) of a function that a running function executes.
    /// `arguments` is `{ arguments: [ … ] }`.
    pub fn may_execute(&self, invocation: &Invocation, name: &str, arguments: &RawDocument) -> bool {
        functions::may_execute(&self.0, invocation, name, arguments)
    }

    /// Opens a change stream of a collection for a user, as long as the session is open: the
    /// function `watch` of a data source.
    ///
    /// # Errors
    /// The errors of a query, and an error if the stream cannot resume at the token `resumeAfter`.
    pub async fn watch(&self, call: CallFunction) -> Result<Subscription> {
        data::watch(&self.0, call).await
    }

    /// Opens a change stream of a collection as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// As for a user, except the errors of rules.
    pub async fn watch_as_system(&self, service: &str, argument: RawDocumentBuf) -> Result<Subscription> {
        data::watch_as_system(&self.0, service, argument).await
    }
}

#[cfg(test)]
mod tests;
