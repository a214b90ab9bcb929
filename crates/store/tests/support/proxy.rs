//! A proxy to a server that simulates bad connections (slow, cut, closed or silent) and records
//! the commands.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bson::Document;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Default)]
struct State {
    commands: Mutex<Vec<Sent>>,
    latency: AtomicU64,
    /// A collection with delayed replies, and their delay.
    slow: Mutex<Option<(String, Duration)>>,
    /// Bytes of the server's replies.
    answered: AtomicU64,
    is_closed: AtomicBool,
    is_silent: AtomicBool,
    /// The name of a command at which connections are cut.
    /// The number of cuts left.
    cut_at: Mutex<Option<(String, Cut)>>,
    cuts: AtomicUsize,
    /// The replica set member as which the server introduces itself.
    member: Mutex<Option<Member>>,
}

impl State {
    /// Waits until the proxy is not silent.
    async fn let_through(&self) {
        while self.is_silent.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A recorded command.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub command: Document,
    /// The size of the message in bytes.
    pub bytes: usize,
    pub at: Instant,
}

impl Sent {
    /// The command's name.
    pub(crate) fn name(&self) -> &str {
        self.command.keys().next().map_or("", String::as_str)
    }

    /// The collection of the command; empty if it has none.
    fn collection(&self) -> &str {
        let first = self.command.values().next().and_then(|value| value.as_str());
        // The first value of a `getMore` is a cursor id.
        first.or_else(|| self.command.get_str("collection").ok()).unwrap_or_default()
    }
}

/// A member of a replica set.
#[derive(Clone)]
pub(crate) struct Member {
    /// The addresses of all members.
    pub hosts: Vec<String>,
    /// True if this member is the primary.
    pub is_primary: bool,
    /// Its tags.
    pub tags: Document,
}

/// The moment at which a connection is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before the server receives the command.
    BeforeCommand,
    /// After the server has executed the command: its reply is lost.
    BeforeAnswer,
}

/// A proxy, which ends when it is dropped.
pub(crate) struct Proxy {
    state: Arc<State>,
    /// The credentials of the connection string, if it has any.
    credentials: String,
    address: SocketAddr,
    cut: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to the server of a connection string.
    pub(crate) async fn to(uri: &str) -> Self {
        let address = uri.trim_start_matches("mongodb://").split(['/', '?']).next().unwrap();
        let (credentials, hosts) = address.rsplit_once('@').map_or(("", address), |(who, hosts)| (who, hosts));
        let credentials = if credentials.is_empty() { String::new() } else { format!("{credentials}@") };
        let server = hosts.split(',').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let cut = watch::Sender::new(0);
        let (shared, cutter) = (Arc::clone(&state), cut.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.is_closed.load(Ordering::SeqCst) {
                    continue;
                }
                let (shared, server, cut) = (Arc::clone(&shared), server.clone(), cutter.clone());
                tokio::spawn(async move {
                    let mut is_cut = cut.subscribe();
                    let Ok(server) = TcpStream::connect(&server).await else { return };
                    tokio::select! {
                        () = pass(client, server, &shared, address.to_string()) => {}
                        _ = is_cut.changed() => {}
                    }
                });
            }
        });
        Self { state, credentials, address, cut, task }
    }

    /// Returns the connection string of the proxy, with options.
    pub(crate) fn uri(&self, options: &str) -> String {
        let uri = format!("mongodb://{}{}/?directConnection=true", self.credentials, self.address);
        super::with_options(&uri, options)
    }

    /// Returns the address of the proxy.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Makes the server introduce itself as a member of a replica set.
    pub(crate) fn introduce(&self, member: Member) {
        *self.state.member.lock().unwrap() = Some(member);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Cuts all connections and rejects new ones, or accepts connections again.
    pub(crate) fn close(&self, is_closed: bool) {
        self.state.is_closed.store(is_closed, Ordering::SeqCst);
        if is_closed {
            self.cut();
        }
    }

    /// Holds back all messages while silent, like a network that loses packets under TCP.
    pub(crate) fn silence(&self, is_silent: bool) {
        self.state.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Delays each reply.
    pub(crate) fn delay(&self, latency: Duration) {
        self.state.latency.store(latency.as_millis() as u64, Ordering::SeqCst);
    }

    /// Delays each reply to a command on the collections of this name.
    pub(crate) fn slow_down(&self, collection: &str, latency: Duration) {
        *self.state.slow.lock().unwrap() = Some((collection.to_owned(), latency));
    }

    /// Cuts the connection at the next `times` commands of a name.
    pub(crate) fn cut_at(&self, command: &str, cut: Cut, times: usize) {
        *self.state.cut_at.lock().unwrap() = Some((command.to_owned(), cut));
        self.state.cuts.store(times, Ordering::SeqCst);
    }

    /// Returns the recorded commands of a name, without the driver's internal ones.
    pub(crate) fn commands(&self, name: &str) -> Vec<Document> {
        let commands = self.state.commands.lock().unwrap();
        commands.iter().filter(|sent| sent.name() == name).map(|sent| sent.command.clone()).collect()
    }

    /// Returns the names of all commands since the last call.
    pub(crate) fn take_names(&self) -> Vec<String> {
        self.take_commands().iter().filter_map(|command| command.keys().next().cloned()).collect()
    }

    /// Returns the bytes of the server's replies since the last call.
    pub(crate) fn take_answered(&self) -> u64 {
        self.state.answered.swap(0, Ordering::SeqCst)
    }

    /// Returns all commands since the last call, without the driver's internal ones.
    pub(crate) fn take_commands(&self) -> Vec<Document> {
        self.take_sent().into_iter().map(|sent| sent.command).collect()
    }

    /// Returns the same commands with their sizes and times.
    pub(crate) fn take_sent(&self) -> Vec<Sent> {
        let mut commands = std::mem::take(&mut *self.state.commands.lock().unwrap());
        let own = ["hello", "isMaster", "ismaster", "endSessions"];
        commands.retain(|sent| !own.contains(&sent.name()));
        commands
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, server: TcpStream, state: &State, address: String) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answer_is_lost = AtomicBool::new(false);
    let lateness = AtomicU64::new(0);
    let there = async {
        while let Some(message) = read_message(&mut from_client).await {
            if let Some(command) = command(&message) {
                let sent = Sent { command, bytes: message.len(), at: Instant::now() };
                let name = sent.name().to_owned();
                let slow = state.slow.lock().unwrap().clone();
                let late = slow.filter(|(collection, _)| *collection == sent.collection());
                lateness.store(late.map_or(0, |(_, latency)| latency.as_millis() as u64), Ordering::SeqCst);
                state.commands.lock().unwrap().push(sent);
                let cut = state.cut_at.lock().unwrap().clone();
                if let Some((_, cut)) = cut.filter(|(at, _)| *at == name)
                    && state.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
                {
                    match cut {
                        Cut::BeforeCommand => return,
                        Cut::BeforeAnswer => answer_is_lost.store(true, Ordering::SeqCst),
                    }
                }
            }
            state.let_through().await;
            if to_server.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        while let Some(mut message) = read_message(&mut from_server).await {
            let member = state.member.lock().unwrap().clone();
            if let Some(member) = member {
                introduced(&mut message, &member, &address);
            }
            if answer_is_lost.load(Ordering::SeqCst) {
                return;
            }
            state.answered.fetch_add(message.len() as u64, Ordering::SeqCst);
            let latency = state.latency.load(Ordering::SeqCst) + lateness.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(latency)).await;
            state.let_through().await;
            if to_client.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

async fn read_message(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.ok()?;
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// Replaces the replica set fields in the reply to a `hello`.
fn introduced(message: &mut Vec<u8>, member: &Member, address: &str) {
    const OP_REPLY: u32 = 1;
    let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
    let at = if number(12) == OP_REPLY { 36 } else { 21 };
    let length = number(at) as usize;
    let Ok(body) = bson::RawDocument::from_bytes(&message[at..at + length]) else { return };
    let mut body = Document::try_from(body).unwrap();
    if !body.contains_key("maxWireVersion") {
        return;
    }
    for (name, value) in [("isWritablePrimary", member.is_primary), ("ismaster", member.is_primary)] {
        body.insert(name, value);
    }
    body.insert("secondary", !member.is_primary);
    body.insert("setName", "tests");
    body.insert("hosts", member.hosts.clone());
    body.insert("me", address);
    body.insert("tags", member.tags.clone());
    for name in ["primary", "topologyVersion", "electionId", "setVersion"] {
        body.remove(name);
    }
    let body = bson::RawDocumentBuf::try_from(body).unwrap();
    let mut answer = message[..at].to_vec();
    answer.extend(body.as_bytes());
    let size = (answer.len() as u32).to_le_bytes();
    answer[..4].copy_from_slice(&size);
    *message = answer;
}

/// Returns the command of an OP_MSG message; `None` for the driver's first `hello`, which has an
/// older format.
fn command(message: &[u8]) -> Option<Document> {
    const OP_MSG: u32 = 2013;
    let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
    if number(12) != OP_MSG || message[20] != 0 {
        return None;
    }
    let length = number(21) as usize;
    bson::RawDocument::from_bytes(&message[21..21 + length]).ok()?.try_into().ok()
}
