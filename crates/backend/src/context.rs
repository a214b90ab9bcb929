//! The parts of a backend, which all its modules use.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{DateTime, oid::ObjectId};
use futures_util::{
    FutureExt,
    future::{self, BoxFuture, Either, Shared, WeakShared},
};
use query::Variables;
use store::{Namespace, Store};

use crate::{
    Environment, Error, ErrorCode, Options, Result,
    auth::{CachedSession, Claim, Creations, KeyRing, Passwords, Sessions, Throttle, TokenSeal, Tokens, Users},
    data::{Authorization, Collections, CustomData},
    definition::{CustomUserData, Definition, Service},
    functions::{FunctionPool, TransactionShares},
    logs::{Logs, Redaction},
    rules::{RuleGuard, RuleSet, RuleUser},
    stores::Stores,
};

/// Time limit of a request about users or sessions, and of the preparation, on a remote store.
/// Each consists of several operations of the store.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// Time after a failed preparation in which it is not repeated, so that requests and health checks
/// cannot make the store repeat it all the time.
const PREPARATION_PAUSE: Duration = Duration::from_secs(1);

/// The parts of an app's backend. The functions in `auth`, `data` and `admin` take it, and never
/// the [`Backend`](crate::Backend).
pub(crate) struct Context {
    pub(crate) app_id: Arc<str>,
    pub(crate) definition: Arc<Definition>,
    pub(crate) stores: Stores,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) users: Arc<Users>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) creations: Arc<Creations>,
    pub(crate) custom_data: CustomData,
    pub(crate) collections: Collections,
    pub(crate) environment: Environment,
    pub(crate) functions: Arc<FunctionPool>,
    pub(crate) transaction_shares: Arc<TransactionShares>,
    pub(crate) logs: Arc<Logs>,
    /// The secrets of the definition, which the log does not contain.
    pub(crate) redaction: Redaction,
    /// The time at which the definition was loaded.
    pub(crate) loaded_at: DateTime,
    /// The number of definitions that were in force before this one.
    pub(crate) generation: u64,
    /// The context in force, which replaces this one when the definition is reloaded.
    pub(crate) current: Weak<Current>,
    preparation: Preparation,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("app_id", &self.app_id)
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

/// The context in force. Reloading the definition replaces it; requests that have begun keep the
/// context with which they began.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<Context>>);

impl Current {
    /// Creates the place of a context, which refers back to it.
    pub(crate) fn new(make: impl FnOnce(Weak<Self>) -> Context) -> Arc<Self> {
        Arc::new_cyclic(|current| Self(RwLock::new(Arc::new(make(Weak::clone(current))))))
    }

    pub(crate) fn get(&self) -> Arc<Context> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, context: Arc<Context>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = context;
    }
}

/// Returns the name of the database for users and sessions of an app.
pub(crate) fn database_of(app_id: &str) -> String {
    format!("userkeep_{app_id}")
}

/// The state of [`Context::prepare`].
#[derive(Default)]
struct Preparation {
    done: AtomicBool,
    /// The running attempt, which all requests share.
    attempt: Mutex<Option<WeakShared<BoxFuture<'static, Result<()>>>>>,
    /// The end and the error of the last attempt, if it failed.
    failure: Mutex<Option<(Instant, Error)>>,
}

impl Context {
    pub(crate) fn new(
        app_id: &str,
        definition: Definition,
        stores: Stores,
        environment: Environment,
        options: &Options,
        current: Weak<Current>,
    ) -> Self {
        let store = Arc::clone(stores.main());
        let database = database_of(app_id);
        let keys = Arc::new(KeyRing::new(Arc::clone(&store), &database, environment.clone()));
        let logs = Logs::new(&store, &database, environment.clone(), options.log_retention);
        if !options.leaves_log {
            logs.trim_from_now_on();
        }
        Self {
            app_id: app_id.into(),
            users: Arc::new(Users::new(Arc::clone(&store), &database, environment.clone())),
            passwords: Passwords::shared(),
            throttle: Arc::new(Throttle::new(environment.clone(), &store, &database)),
            creations: Arc::new(Creations::default()),
            sessions: Arc::new(Sessions::new(
                Arc::clone(&store),
                &database,
                Tokens::new(Arc::clone(&keys), app_id, options.token_audience),
                environment.clone(),
            )),
            custom_data: CustomData::new(&stores, definition.custom_user_data.clone()),
            collections: Collections::new(options.limits),
            logs: Arc::new(logs),
            redaction: Redaction::of(&definition),
            definition: Arc::new(definition),
            stores,
            keys,
            loaded_at: query::Environment::now(&environment),
            environment,
            functions: Arc::new(FunctionPool::new(options.functions)),
            transaction_shares: Arc::new(TransactionShares::default()),
            generation: 0,
            current,
            preparation: Preparation::default(),
        }
    }

    /// Creates a context with another definition, which shares all state with this one: users,
    /// sessions, open stores, rate limits and the threads of functions.
    ///
    /// # Errors
    /// If a data source of the definition has a store that is not open.
    pub(crate) fn with_definition(&self, definition: Definition) -> Result<Self, store::Error> {
        let stores = self.stores.for_definition(&definition)?;
        Ok(Self {
            app_id: Arc::clone(&self.app_id),
            custom_data: self.custom_data.with_configuration(&stores, definition.custom_user_data.clone()),
            redaction: Redaction::of(&definition),
            definition: Arc::new(definition),
            stores,
            keys: Arc::clone(&self.keys),
            users: Arc::clone(&self.users),
            sessions: Arc::clone(&self.sessions),
            passwords: self.passwords.clone(),
            throttle: Arc::clone(&self.throttle),
            creations: Arc::clone(&self.creations),
            transaction_shares: Arc::clone(&self.transaction_shares),
            collections: self.collections,
            environment: self.environment.clone(),
            functions: Arc::clone(&self.functions),
            logs: Arc::clone(&self.logs),
            loaded_at: query::Environment::now(&self.environment),
            generation: self.generation + 1,
            current: Weak::clone(&self.current),
            preparation: Preparation::default(),
        })
    }

    /// Returns the context in force: this one, unless the definition was reloaded since.
    pub(crate) fn latest(self: &Arc<Self>) -> Arc<Self> {
        self.current.upgrade().map_or_else(|| Arc::clone(self), |current| current.get())
    }

    /// True if the indexes and keys of this context exist.
    pub(crate) fn is_prepared(&self) -> bool {
        self.preparation.done.load(Ordering::Acquire)
    }

    /// Returns the deadline of a request about users or sessions. Embedded stores have none,
    /// because they do not wait for a network.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stores.has_remote().then(|| Instant::now() + REQUEST_TIME)
    }

    /// Creates the required indexes and keys before the first write. Concurrent requests share one
    /// attempt and its error.
    pub(crate) async fn prepare(self: &Arc<Self>) -> Result<()> {
        if self.preparation.done.load(Ordering::Acquire) {
            return Ok(());
        }
        self.attempt()?.await
    }

    /// True if the last preparation failed.
    pub(crate) fn has_failed_to_prepare(&self) -> bool {
        lock(&self.preparation.failure).is_some()
    }

    /// Joins the attempt under way, or begins one. On a store in another process it continues
    /// after its callers' time is over: an index may take longer to build than a request.
    ///
    /// # Errors
    /// The error of the last attempt, if it failed less than [`PREPARATION_PAUSE`] ago.
    fn attempt(self: &Arc<Self>) -> Result<Shared<BoxFuture<'static, Result<()>>>> {
        let mut attempt = lock(&self.preparation.attempt);
        let under_way = attempt.as_ref().and_then(WeakShared::upgrade);
        if let Some(under_way) = under_way.filter(|under_way| under_way.peek().is_none()) {
            return Ok(under_way);
        }
        if let Some((at, error)) = &*lock(&self.preparation.failure)
            && at.elapsed() < PREPARATION_PAUSE
        {
            return Err(error.clone());
        }
        let context = Arc::clone(self);
        let begun = async move {
            let prepared = context.prepare_once().await;
            let failure = prepared.as_ref().err().map(|error| (Instant::now(), error.clone()));
            *lock(&context.preparation.failure) = failure;
            if prepared.is_ok() {
                context.preparation.done.store(true, Ordering::Release);
            }
            prepared
        };
        let begun = begun.boxed().shared();
        if self.stores.has_remote()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(begun.clone());
        }
        *attempt = begun.downgrade();
        Ok(begun)
    }

    async fn prepare_once(&self) -> Result<()> {
        self.passwords.warm_up();
        self.users.prepare().await?;
        self.sessions.prepare().await?;
        self.throttle.prepare().await?;
        self.logs.prepare().await?;
        self.prepare_collections().await?;
        self.custom_data.prepare(|configuration| self.lets_users_insert(configuration)).await?;
        self.keys.prepare().await?;
        self.keys.resume_key().await.map(|_| ())
    }

    /// True if a role may let users insert custom data.
    fn lets_users_insert(&self, configuration: &CustomUserData) -> bool {
        let service = self.definition.services.get(&configuration.service);
        service.and_then(|service| service.rules(&configuration.namespace)).is_some_and(|rules| rules.may_insert())
    }

    /// Creates the indexes of the definition, and enables pre-images for the collections that the
    /// definition names.
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

    /// Returns the encryption of a user's resume tokens. Only this app can decrypt them, and only
    /// in the same context.
    pub(crate) async fn token_seal(&self, context: &[&str]) -> Result<TokenSeal> {
        let context: Vec<&str> = [&*self.app_id].iter().chain(context).copied().collect();
        Ok(TokenSeal::new(self.keys.resume_key().await?, &context))
    }

    /// Returns the variables for the evaluation of an expression at the current time.
    pub(crate) fn variables(&self) -> Variables {
        Variables::at(query::Environment::now(&self.environment))
    }

    /// Confirms that the session that an access token claims is open and its user is enabled.
    ///
    /// # Errors
    /// `InvalidSession` if not.
    pub(crate) async fn confirm(&self, claim: &Claim) -> Result<CachedSession> {
        self.sessions.confirm(claim, &self.users).await
    }

    /// Returns the permissions that a collection's rules give a user.
    pub(crate) async fn authorize(
        &self,
        user_id: ObjectId,
        rules: &Arc<RuleSet>,
        namespace: &Namespace,
    ) -> Result<Authorization> {
        // Reads the current custom data, so that a revoked privilege ends immediately.
        let custom_data = if rules.needs_custom_data() { self.custom_data.of(user_id).await? } else { None };
        let id: Arc<str> = user_id.to_hex().into();
        let user = RuleUser { id: Arc::clone(&id), custom_data };
        let guard = RuleGuard::new(Arc::clone(rules), user, namespace.clone());
        Ok(Authorization::Guarded(Arc::new(guard), id))
    }

    /// The store of users and sessions.
    pub(crate) fn main_store(&self) -> &Arc<dyn Store> {
        self.stores.main()
    }
}

/// Runs an operation until its deadline, if it has one. Writes that a remote store has started
/// still complete.
pub(crate) fn in_time<T>(
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

/// Returns the error of a request about users or sessions that exceeds its time limit.
pub(crate) fn too_late() -> Error {
    let reason = format!("it did not answer within {} s", REQUEST_TIME.as_secs());
    store::Error::Unavailable { reason, maybe_written: true }.into()
}

/// Returns the error of a user's operation that exceeds its time limit before it starts.
pub(crate) fn time_is_over() -> Error {
    let server_code = Some(query::ErrorCode::MaxTimeMsExpired.number());
    Error { server_code, ..Error::new(ErrorCode::MongoDBError, "operation exceeded time limit") }
}

/// Runs two futures concurrently. An error of the first cancels the second. An error of the second
/// is returned only if the first succeeds.
pub(crate) async fn first_decides<A, B>(
    first: impl Future<Output = Result<A>>,
    second: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    let (first, second) = future::try_join(first, second.map(Ok)).await?;
    Ok((first, second?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
