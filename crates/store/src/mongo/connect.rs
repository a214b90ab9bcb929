//! The connections of a store: the connection string, one client per lane, time limits, and the
//! kind of the server.

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
        Acknowledgment, ClientOptions, CollectionOptions, ConnectionString, DriverInfo, HostInfo, ReadConcern,
        ReadPreference, SelectionCriteria, Tls, WriteConcern,
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

/// The default of `socketTimeoutMS`: the time limit of an operation, retries included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The default of `serverSelectionTimeoutMS`: the time limit of the search for a server. It is
/// longer than the interval between two checks of a server by the driver.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The default of `maxPoolSize`, as in MongoDB's driver for Node.
const CONNECTIONS: u32 = 100;

/// Time limit of the shutdown of a client.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The features of a server beyond single documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A member of a replica set or a router of a sharded cluster: transactions and change
    /// streams.
    Replicated {
        /// Time after which the server forgets an idle session; `None` if it has no sessions.
        session_timeout: Option<Duration>,
    },
    /// A standalone server: neither transactions nor change streams.
    Standalone,
}

/// The class of an operation, which selects its connection pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Operations of users, and of the operator on the application's collections.
    Users,
    /// Operations that the backend needs for logins and for every request.
    Backend,
}

/// A client with its own connections, so that the operations of one [`Lane`] do not wait for those
/// of the other.
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

/// The time of a write, with the cluster time at that moment. A client that does not know this
/// cluster time has to send it along; otherwise a member that lags behind rejects the time as one
/// in the future.
#[derive(Clone)]
struct Written {
    at: Timestamp,
    clock: Option<ClusterTime>,
}

/// The state that all handles of a store share.
pub(super) struct Shared {
    /// Contains the password.
    address: ConnectionString,
    pub(super) environment: Arc<dyn Environment + Send + Sync>,
    /// The name prefix of the backend's own databases.
    own: Option<&'static str>,
    /// The time limit of an operation, retries included.
    pub(super) timeout: Duration,
    users: Pool,
    backend: Pool,
    /// The client of change streams. Each stream holds a connection most of the time, so they do
    /// not use those of the lanes.
    streaming: OnceCell<Client>,
    kind: OnceCell<Kind>,
    is_closed: AtomicBool,
    /// The time of the latest write. Reads from members other than the primary must not return
    /// older data.
    written: Mutex<Option<Written>>,
    /// True if reads may go to members other than the primary.
    reads_elsewhere: AtomicBool,
    /// True if a write may be sent a second time (`retryWrites`).
    pub(super) retries_writes: bool,
    pub(super) hubs: Mutex<Hubs>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MongoStore").field("hosts", &self.address.host_info).finish_non_exhaustive()
    }
}

/// Returns the parser's message about a connection string, unless it repeats a part that is, or
/// could be, a credential.
fn told(address: &str, message: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    // Without an `@`, the apparent port may be a password whose host is missing.
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

/// Checks that the files of the TLS options can be read, so that an error appears when the store
/// is opened and not in a user's query.
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
        // Other drivers take 0 as "no limit"; this driver rejects it.
        if parsed.max_pool_size == Some(0) {
            parsed.max_pool_size = Some(u32::MAX);
        }
        // The driver has no time limit for operations, and rejects the option that other drivers
        // have for it.
        #[allow(deprecated, reason = "it is deprecated because the driver does nothing about it")]
        let timeout = parsed.socket_timeout.take().filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
        let elsewhere =
            parsed.read_preference.as_ref().is_some_and(|preference| *preference != ReadPreference::Primary);
        let connections = parsed.max_pool_size.unwrap_or(CONNECTIONS);
        Ok(Self {
            retries_writes: parsed.retry_writes != Some(false),
            users: Pool::new(connections, Some(SHARE_TIMEOUT)),
            // The backend's operations are short, and a user whose operation is rejected is logged
            // out.
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

    /// Returns the client of a lane; the first caller connects it.
    async fn client(&self, lane: Lane) -> Result<&Client> {
        self.check_open()?;
        self.pool(lane).client.get_or_try_init(|| self.connect(None)).await
    }

    /// Returns a collection for a change stream.
    pub(super) async fn to_follow(&self, namespace: &Namespace) -> Result<Collection<RawDocumentBuf>> {
        self.check_open()?;
        // Each stream needs its own connection.
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

    /// Closes the connections and all change streams; operations that are running fail.
    pub(super) async fn close(&self) {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let hubs = std::mem::take(&mut *lock(&self.hubs));
        hubs.end(&Error::Closed);
        [&self.users, &self.backend].iter().for_each(|pool| pool.numbered.clear());
        let clients = [&self.users.client, &self.backend.client, &self.streaming];
        for client in clients.into_iter().filter_map(OnceCell::get) {
            // The driver ends its sessions on the server, which may not answer.
            let _ =
                tokio::time::timeout(SHUTDOWN_TIMEOUT, async { client.clone().shutdown().immediate(true).await }).await;
        }
    }

    /// Waits for an operation up to the time limit of the store. `writes` is true if the operation
    /// may have changed data when it fails.
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

    /// Waits for an operation of several commands, up to twice the time limit of the store.
    pub(super) async fn within_all<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let all = self.timeout * 2;
        tokio::time::timeout(all, operation).await.unwrap_or_else(|_| {
            let reason = format!("it did not answer within {} s", all.as_secs_f32());
            Err(Error::Unavailable { reason, maybe_written: true })
        })
    }

    /// Returns the name prefix of the backend's own databases.
    pub(super) fn own(&self) -> Option<&'static str> {
        self.own
    }

    /// Returns the hosts of the connection string in a fixed order.
    pub(super) fn hosts(&self) -> String {
        match &self.address.host_info {
            HostInfo::HostIdentifiers(hosts) => {
                let mut hosts: Vec<_> = hosts.iter().map(|host| host.to_string().to_ascii_lowercase()).collect();
                hosts.sort();
                hosts.join(",")
            }
            other => format!("{other:?}"),
        }
    }

    /// True if a database belongs to the backend.
    pub(super) fn is_own(&self, database: &str) -> bool {
        self.own.is_some_and(|prefix| database.to_ascii_lowercase().starts_with(prefix))
    }

    /// Notes that later reads may go to members other than the primary.
    pub(super) fn will_read_elsewhere(&self) {
        self.reads_elsewhere.store(true, Ordering::Relaxed);
    }

    /// Remembers the time of the latest write of a session.
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
    /// Returns the client of this handle's lane.
    pub(super) async fn client(&self) -> Result<&Client> {
        self.shared.client(self.lane).await
    }

    /// Returns the kind of the server; asks the server once.
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

    /// Returns a collection for writes, and for reads that a write depends on: always from the
    /// primary.
    pub(super) async fn collection(&self, namespace: &Namespace) -> Result<Collection<RawDocumentBuf>> {
        let mut options = CollectionOptions::builder()
            .selection_criteria(Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)))
            .build();
        if self.shared.is_own(&namespace.database) {
            options.write_concern = Some(majority());
        }
        Ok(self.client().await?.database(&namespace.database).collection_with_options(&namespace.collection, options))
    }

    /// Returns a collection for queries, with the read preference of this handle.
    pub(super) async fn to_read(&self, namespace: &Namespace) -> Result<Collection<RawDocumentBuf>> {
        if self.shared.is_own(&namespace.database) {
            return self.collection(namespace).await;
        }
        let options = CollectionOptions::builder().selection_criteria(self.criteria.clone()).build();
        Ok(self.client().await?.database(&namespace.database).collection_with_options(&namespace.collection, options))
    }

    /// Returns a collection for queries. The queries of a transaction go to the primary.
    pub(super) async fn to_read_in(
        &self,
        transaction: Option<&ClientSession>,
        namespace: &Namespace,
    ) -> Result<Collection<RawDocumentBuf>> {
        if transaction.is_some() { self.collection(namespace).await } else { self.to_read(namespace).await }
    }

    /// Returns a session whose reads see every earlier write of this store. Returns `None` if all
    /// reads go to the primary, which always sees them.
    pub(super) async fn causal_session(&self) -> Result<Option<ClientSession>> {
        if !self.shared.reads_elsewhere.load(Ordering::Relaxed) || self.kind().await? == Kind::Standalone {
            return Ok(None);
        }
        self.session_after_writes().await.map(Some)
    }

    /// Returns a session whose reads see every earlier write of this store.
    pub(super) async fn session_after_writes(&self) -> Result<ClientSession> {
        let mut session = self.session().await?;
        if let Some(Written { at, clock }) = &*lock(&self.shared.written) {
            clock.iter().for_each(|clock| session.advance_cluster_time(clock));
            session.advance_operation_time(*at);
        }
        Ok(session)
    }

    /// Returns the session of a query outside a transaction, as
    /// [`causal_session`](Self::causal_session).
    pub(super) async fn own_session(&self, transaction: Option<&ClientSession>) -> Result<Option<ClientSession>> {
        if transaction.is_some() { Ok(None) } else { self.causal_session().await }
    }

    pub(super) async fn session(&self) -> Result<ClientSession> {
        let start = self.client().await?.start_session().causal_consistency(true);
        self.shared.within(false, async { start.await }).await
    }

    /// Returns the `maxTimeMS` of a command: the time that is left of the budget, or else the time
    /// limit of the store.
    ///
    /// # Errors
    /// If no time is left.
    pub(super) fn max_time(&self, budget: &Budget) -> Result<Duration> {
        budget.check()?;
        // The server takes zero as "no limit".
        Ok(budget.time_left().unwrap_or(self.shared.timeout).max(Duration::from_millis(1)))
    }
}

/// The write concern of writes that survive the loss of any minority of the members.
pub(super) fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).build()
}

/// The read concern of transactions.
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
    fn no_message_about_a_connection_string_repeats_credentials() {
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
