//! The way to the server: its address, a client for users' operations and one for the backend's own, how long to wait for
//! the server, and what kind it is.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bson::{Document, Timestamp, doc, raw::RawDocumentBuf};
use mongodb::{
    Client, ClientSession, ClusterTime, Collection,
    options::{
        Acknowledgment, ClientOptions, CollectionOptions, ConnectionString, DriverInfo, ReadConcern, ReadPreference,
        SelectionCriteria, Tls, WriteConcern,
    },
};
use query::{Budget, Environment};
use tokio::sync::OnceCell;

use super::{
    MongoStore,
    admission::{Admission, SHARE_TIMEOUT},
    errors,
    read::number,
    sessions::NumberedSessions,
    watch::Hubs,
};
use crate::{Error, Namespace, Result};

/// How long an operation may take, its retries included, unless the connection string says another `socketTimeoutMS`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long to look for a server that can be asked, unless the connection string says another `serverSelectionTimeoutMS`: longer than
/// the driver waits between two looks at a server.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How many connections there may be, unless the connection string says another `maxPoolSize`: as many as Node's driver has.
const CONNECTIONS: u32 = 100;

/// How long to wait for the driver to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// What servers can do beyond single documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Members of a replica set and routers of a cluster have transactions and change streams.
    Replicated {
        /// Time after which the server forgets an idle session; none if it has no sessions.
        session_timeout: Option<Duration>,
    },
    /// A server alone has neither.
    Standalone,
}

/// Whose operations they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those of users, and of the operator on the application's collections.
    Users,
    /// Those that the backend needs for a log-in and for every request.
    Backend,
}

/// A client with connections of its own, so that the operations of one [`Lane`] do not wait for those of the other.
pub(super) struct Pool {
    client: OnceCell<Client>,
    pub(super) numbered: NumberedSessions,
    pub(super) admission: Admission,
}

impl Pool {
    fn new(connections: u32, share_timeout: Option<Duration>) -> Self {
        let admission = Admission::new(usize::try_from(connections).unwrap_or(usize::MAX), share_timeout);
        Self { client: OnceCell::new(), numbered: NumberedSessions::new(), admission }
    }
}

/// The time of a write, and the clock of the cluster then: a client that has not heard of it must send it along, or a member
/// that is behind takes the time for one of the future.
#[derive(Clone)]
struct Written {
    at: Timestamp,
    clock: Option<ClusterTime>,
}

/// What all handles of a store share.
pub(super) struct Shared {
    /// Has the password in it.
    address: ConnectionString,
    pub(super) environment: Arc<dyn Environment + Send + Sync>,
    own: Option<&'static str>,
    pub(super) timeout: Duration,
    users: Pool,
    backend: Pool,
    /// For change streams, each of which has a connection for itself most of the time: not one of those that others wait for.
    streaming: OnceCell<Client>,
    kind: OnceCell<Kind>,
    is_closed: AtomicBool,
    /// The time of the latest write, which reads from other members than the primary must not be before.
    written: Mutex<Option<Written>>,
    reads_elsewhere: AtomicBool,
    /// True if a write may be sent for the second time (`retryWrites`).
    pub(super) retries_writes: bool,
    pub(super) hubs: Mutex<Hubs>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MongoStore").field("hosts", &self.address.host_info).finish_non_exhaustive()
    }
}

/// The message of the parser about an address, unless it repeats a part of the address that is, or could be, what somebody logs in with.
fn told(address: &str, message: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    // Without an `@`, what stands for a port may be a password whose host was forgotten.
    let credentials = match rest.rsplit_once('@') {
        Some((credentials, _)) => credentials,
        None => rest.split(['/', '?']).next().unwrap_or_default().split_once(':').map_or("", |(_, port)| port),
    };
    let parts = credentials.split([':', '/', '@', ',', '?']).filter(|part| !part.is_empty());
    let secrets = rest.split(['?', '&']).skip(1).filter_map(|option| option.split_once('=')).filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        ["password", "secret", "token", "authmechanismproperties"].iter().any(|secret| name.contains(secret))
    });
    let is_told = parts.chain(secrets.map(|(_, value)| value)).any(|part| !part.is_empty() && message.contains(part));
    if is_told { "it cannot be read".to_owned() } else { message.to_owned() }
}

/// Checks that the files of the TLS options can be read: while the operator opens the store, and not with a user's query.
///
/// # Errors
/// [`Error::Address`] with the option and the path.
fn check_files(address: &ConnectionString) -> Result<()> {
    let Some(Tls::Enabled(tls)) = &address.tls else { return Ok(()) };
    for (option, path) in [("tlsCAFile", &tls.ca_file_path), ("tlsCertificateKeyFile", &tls.cert_key_file_path)] {
        if let Some(path) = path {
            std::fs::read(path).map_err(|error| Error::Address {
                reason: format!("the file {} of its option `{option}` cannot be read: {error}", path.display()),
            })?;
        }
    }
    Ok(())
}

impl Shared {
    pub(super) fn new(
        address: &str,
        environment: Arc<dyn Environment + Send + Sync>,
        own: Option<&'static str>,
    ) -> Result<Self> {
        let mut parsed = ConnectionString::parse(address).map_err(|error| match errors::invalid(&error) {
            Some(message) => Error::Address { reason: told(address, message) },
            None => Error::Address { reason: "it cannot be read".to_owned() },
        })?;
        check_files(&parsed)?;
        // To other drivers it is no limit; this one refuses it.
        if parsed.max_pool_size == Some(0) {
            parsed.max_pool_size = Some(u32::MAX);
        }
        // The driver has no time limit for an operation, and refuses the one that others have.
        #[allow(deprecated, reason = "it is deprecated because the driver does nothing about it")]
        let timeout = parsed.socket_timeout.take().filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
        let elsewhere =
            parsed.read_preference.as_ref().is_some_and(|preference| *preference != ReadPreference::Primary);
        let connections = parsed.max_pool_size.unwrap_or(CONNECTIONS);
        Ok(Self {
            retries_writes: parsed.retry_writes != Some(false),
            users: Pool::new(connections, Some(SHARE_TIMEOUT)),
            // Those are short, and a user without them is logged out.
            backend: Pool::new(connections, None),
            address: parsed,
            environment,
            own,
            timeout,
            streaming: OnceCell::new(),
            kind: OnceCell::new(),
            is_closed: AtomicBool::new(false),
            written: Mutex::new(None),
            reads_elsewhere: AtomicBool::new(elsewhere),
            hubs: Mutex::default(),
        })
    }

    pub(super) fn pool(&self, lane: Lane) -> &Pool {
        match lane {
            Lane::Users => &self.users,
            Lane::Backend => &self.backend,
        }
    }

    /// The client of a lane, made by whoever needs it first.
    async fn client(&self, lane: Lane) -> Result<&Client> {
        self.check_open()?;
        self.pool(lane).client.get_or_try_init(|| self.connect(None)).await
    }

    /// A collection to follow.
    pub(super) async fn to_follow(&self, namespace: &Namespace) -> Result<Collection<RawDocumentBuf>> {
        self.check_open()?;
        // As many connections as there are streams.
        let client = self.streaming.get_or_try_init(|| self.connect(Some(u32::MAX))).await?;
        Ok(client.database(&namespace.database).collection(&namespace.collection))
    }

    async fn connect(&self, connections: Option<u32>) -> Result<Client> {
        let connect = async {
            let mut options = ClientOptions::parse(self.address.clone()).await?;
            options.app_name.get_or_insert_with(|| "userkeep".to_owned());
            options.driver_info.get_or_insert_with(|| DriverInfo::builder().name("Userkeep").build());
            options.max_pool_size = connections.or(options.max_pool_size).or(Some(CONNECTIONS));
            options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT.min(self.timeout));
            options.connect_timeout.get_or_insert(SELECTION_TIMEOUT.min(self.timeout));
            Client::with_options(options)
        };
        match tokio::time::timeout(self.timeout, connect).await {
            Ok(Err(error)) => Err(match errors::invalid(&error) {
                Some(message) => Error::Address { reason: message.to_owned() },
                None => errors::read(error, false),
            }),
            Ok(Ok(client)) => Ok(client),
            Err(_) => {
                Err(Error::Unavailable { reason: "its name cannot be resolved".to_owned(), maybe_written: false })
            }
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Lets go of the connections; what is under way fails.
    pub(super) async fn close(&self) {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let hubs = std::mem::take(&mut *lock(&self.hubs));
        hubs.end(&Error::Closed);
        [&self.users, &self.backend].iter().for_each(|pool| pool.numbered.clear());
        let clients = [&self.users.client, &self.backend.client, &self.streaming];
        for client in clients.into_iter().filter_map(OnceCell::get) {
            // The driver takes leave of the server, which may not be listening.
            let _ =
                tokio::time::timeout(SHUTDOWN_TIMEOUT, async { client.clone().shutdown().immediate(true).await }).await;
        }
    }

    /// Waits for the server, but not for ever. `writes` says whether it may have done something that cannot be taken back.
    pub(super) async fn within<T>(
        &self,
        writes: bool,
        operation: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, operation).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(errors::read(error, writes)),
            Err(_) => Err(Error::Unavailable {
                reason: format!("it did not answer within {} s", self.timeout.as_secs_f32()),
                maybe_written: writes,
            }),
        }
    }

    /// The same for something whole, which does not end with one command.
    pub(super) async fn within_all<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let all = self.timeout * 2;
        tokio::time::timeout(all, operation).await.unwrap_or_else(|_| {
            let reason = format!("it did not answer within {} s", all.as_secs_f32());
            Err(Error::Unavailable { reason, maybe_written: true })
        })
    }

    /// Whether a database is the backend's own.
    pub(super) fn is_own(&self, database: &str) -> bool {
        self.own.is_some_and(|prefix| database.to_ascii_lowercase().starts_with(prefix))
    }

    /// From now on there may be reads from other members than the primary.
    pub(super) fn will_read_elsewhere(&self) {
        self.reads_elsewhere.store(true, Ordering::Relaxed);
    }

    /// Notes when a session has written.
    pub(super) fn note_written(&self, session: Option<&ClientSession>) {
        if let Some((session, at)) = session.and_then(|session| Some((session, session.operation_time()?))) {
            let mut written = lock(&self.written);
            let order = |time: &Timestamp| (time.time, time.increment);
            if written.as_ref().is_none_or(|before| order(&before.at) < order(&at)) {
                *written = Some(Written { at, clock: session.cluster_time().cloned() });
            }
        }
    }
}

impl MongoStore {
    /// The client that carries out this operation.
    pub(super) async fn client(&self) -> Result<&Client> {
        self.shared.client(self.lane).await
    }

    /// What the server is.
    pub(super) async fn kind(&self) -> Result<Kind> {
        let ask = || async {
            let database = self.client().await?.database("admin");
            let hello = database.run_command(doc! { "hello": 1 });
            let hello: Document = self.shared.within(false, async { hello.await }).await?;
            let is_router = hello.get_str("msg").is_ok_and(|message| message == "isdbgrid");
            if !is_router && !hello.contains_key("setName") {
                return Ok(Kind::Standalone);
            }
            let minutes = hello.get("logicalSessionTimeoutMinutes").and_then(number);
            Ok(Kind::Replicated { session_timeout: minutes.map(|minutes| Duration::from_secs(minutes * 60)) })
        };
        self.shared.kind.get_or_try_init(ask).await.copied()
    }

    /// A collection to write to, or to read what a write depends on.
    pub(super) async fn collection(&self, namespace: &Namespace) -> Result<Collection<RawDocumentBuf>> {
        let mut options = CollectionOptions::builder()
            .selection_criteria(Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)))
            .build();
        if self.shared.is_own(&namespace.database) {
            options.write_concern = Some(majority());
        }
        Ok(self.client().await?.database(&namespace.database).collection_with_options(&namespace.collection, options))
    }

    /// A collection for somebody's queries.
    pub(super) async fn to_read(&self, namespace: &Namespace) -> Result<Collection<RawDocumentBuf>> {
        if self.shared.is_own(&namespace.database) {
            return self.collection(namespace).await;
        }
        let options = CollectionOptions::builder().selection_criteria(self.criteria.clone()).build();
        Ok(self.client().await?.database(&namespace.database).collection_with_options(&namespace.collection, options))
    }

    /// A session that reads nothing older than what was written here; none where all is read from the primary, where nothing is
    /// older.
    pub(super) async fn causal_session(&self) -> Result<Option<ClientSession>> {
        if !self.shared.reads_elsewhere.load(Ordering::Relaxed) || self.kind().await? == Kind::Standalone {
            return Ok(None);
        }
        let mut session = self.session().await?;
        if let Some(Written { at, clock }) = &*lock(&self.shared.written) {
            clock.iter().for_each(|clock| session.advance_cluster_time(clock));
            session.advance_operation_time(*at);
        }
        Ok(Some(session))
    }

    pub(super) async fn session(&self) -> Result<ClientSession> {
        let start = self.client().await?.start_session().causal_consistency(true);
        self.shared.within(false, async { start.await }).await
    }

    /// The time that the server has for a command: what is left of the budget, or the store's own limit.
    ///
    /// # Errors
    /// If there is none left.
    pub(super) fn max_time(&self, budget: &Budget) -> Result<Duration> {
        budget.check()?;
        // Zero would be no limit.
        Ok(budget.time_left().unwrap_or(self.shared.timeout).max(Duration::from_millis(1)))
    }
}

/// What survives the loss of any minority of the members.
pub(super) fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).build()
}

/// What a transaction reads.
pub(super) fn snapshot() -> ReadConcern {
    ReadConcern::snapshot()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_about_an_address_repeats_what_somebody_logs_in_with() {
        for (address, message) in [
            ("mongodb://user:hunter2@host:x", "invalid userinfo hunter2"),
            ("mongodb://user:hun/ter2@host", "illegal port ter2"),
            ("mongodb://user:hunter2", "illegal port value: hunter2"),
            ("mongodb://user:hunter2/db", "illegal port value: hunter2"),
            ("mongodb:/user:hunter2@host", "cannot read user:hunter2@host"),
            ("mongodb://host/?tlsCertificateKeyFilePassword=hunter2&x=1", "unknown option hunter2"),
        ] {
            assert_eq!(told(address, message), "it cannot be read", "{address}");
        }
        assert_eq!(told("mongodb://user:hunter2@host/?w=x", "invalid w: x"), "invalid w: x");
        assert_eq!(told("mongodb://host/?maxPoolSize=x", "invalid maxPoolSize: x"), "invalid maxPoolSize: x");
    }
}
