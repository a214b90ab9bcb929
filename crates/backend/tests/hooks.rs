//! Hooks without JavaScript: the life of tokens, what the store has of them, and the bounds of
//! requests that run functions.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use backend::{
    Backend, Definition, Environment, Error, ErrorCode, Options, Origin, Request, RequestContext, Response, Result,
    Secrets,
    functions::{CallId, FunctionHost, HostId, HostStarter, Invocation},
    request::{Action, Credentials, LogIn, ProviderAction},
};
use bson::{DateTime, Document, RawBson, RawDocumentBuf, rawdoc};
use query::{Filter, Update};
use store::{Change, Find, Location, Modify, Namespace, Operation, SqliteStore, Store, TransactionLimits, Write};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const EMAIL: &str = "ada@example.com";
const PROVIDERS: &str = r#"{
    "custom-function": { "config": { "authFunctionName": "logIn" } },
    "local-userpass": { "config": {
        "runConfirmationFunction": true, "confirmationFunctionName": "confirm",
        "runResetFunction": true, "resetFunctionName": "reset"
    } }
}"#;

const CUSTOM_DATA: &str = r#"{
    "enabled": true, "mongo_service_name": "mongodb-atlas", "database_name": "app", "collection_name": "data",
    "user_id_field": "userId", "on_user_creation_function_name": "create"
}"#;

/// A message of the pool: a thread to start, or one that is woken.
enum Message {
    Start(HostId),
    Wake(HostId),
}

struct Threads(UnboundedSender<Message>);

impl HostStarter for Threads {
    fn start(&self, host: HostId) {
        self.0.send(Message::Start(host)).unwrap();
    }

    fn end(&self, _: HostId) {}
}

struct Thread {
    messages: UnboundedSender<Message>,
    host: HostId,
    stopped: Arc<AtomicUsize>,
}

impl FunctionHost for Thread {
    fn wake(&self) {
        let _ = self.messages.send(Message::Wake(self.host));
    }

    fn cancel(&self, _: CallId) {
        self.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A backend whose functions answer `{ status }`. The function `logIn` answers the payload of the
/// log-in, or never without one. The function `create` inserts a document with the id of the new
/// user's identity, and then never answers if that is `hang…`.
struct World {
    backend: Arc<Backend>,
    store: Arc<dyn Store>,
    clock: Arc<AtomicI64>,
    calls: Arc<Calls>,
}

/// The calls that a world has seen.
#[derive(Default)]
struct Calls {
    /// The first argument of each call of a confirmation or reset function.
    arguments: Mutex<VecDeque<Document>>,
    /// The number of calls of `logIn` that never answer.
    hanging: AtomicUsize,
    /// The maximum number of them that ran at the same time.
    most: AtomicUsize,
    /// The number of calls that were stopped.
    stopped: Arc<AtomicUsize>,
    /// The number of calls of `create`.
    creations: AtomicUsize,
    /// Calls of `create` that never answer.
    kept: Mutex<Vec<Arc<Invocation>>>,
    /// The console lines of functions, as the log of the process has them.
    printed: Mutex<Vec<String>>,
}

fn definition(providers: &str, has_creation: bool) -> Definition {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("auth/providers.json", providers);
    if has_creation {
        write("auth/custom_user_data.json", CUSTOM_DATA);
        write("data_sources/mongodb-atlas/config.json", r#"{ "name": "mongodb-atlas", "type": "mongodb-atlas" }"#);
    }
    for name in ["logIn", "confirm", "reset", "create"] {
        write(&format!("functions/{name}.js"), "exports = () => {};");
    }
    Definition::load(directory.path(), &Secrets::default()).unwrap()
}

impl World {
    fn new(status: &'static str) -> Self {
        Self::with(status, definition(PROVIDERS, false))
    }

    fn with(status: &'static str, definition: Definition) -> Self {
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let store = SqliteStore::open(Location::Memory, Arc::new(at(&clock))).unwrap();
        let world = Self::on(Arc::new(store), clock, definition);
        world.run(status);
        world
    }

    /// Creates a world whose functions do not run.
    fn on(store: Arc<dyn Store>, clock: Arc<AtomicI64>, definition: Definition) -> Self {
        let backend = Backend::new("test-app", definition, Arc::clone(&store), at(&clock), &Options::default());
        Self { backend: Arc::new(backend), store, clock, calls: Arc::default() }
    }

    fn run(&self, status: &'static str) {
        let (sender, mut messages) = unbounded_channel();
        let (backend, calls) = (Arc::downgrade(&self.backend), Arc::clone(&self.calls));
        self.backend.functions().add_starter(Arc::new(Threads(sender.clone())), false, false);
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let Some(backend) = backend.upgrade() else { return };
                let pool = backend.functions();
                match message {
                    Message::Start(host) => {
                        let (messages, stopped) = (sender.clone(), Arc::clone(&calls.stopped));
                        pool.attach(host, Arc::new(Thread { messages, host, stopped }));
                    }
                    Message::Wake(host) => {
                        let Some((call, invocation)) = pool.take(host) else { continue };
                        tokio::spawn(answer(backend, Arc::clone(&calls), call, invocation, status));
                    }
                }
            }
        });
    }

    async fn log_in_as(&self, origin: Option<Origin>, id: &str, name: &str) -> Result<Response> {
        let payload = rawdoc! { "id": id, "name": name };
        let credentials = Credentials { provider: "custom-function".to_owned(), payload: payload.into() };
        let request = Request::LogIn(LogIn { credentials, device_id: None });
        let circumstances = origin.map_or_else(RequestContext::in_process, RequestContext::from_origin);
        self.backend.handle(request, &circumstances).await
    }

    async fn act(&self, action: Action, payload: bson::RawDocumentBuf) -> Result<()> {
        let request = Request::ProviderAction(ProviderAction::email_password(action, payload));
        self.backend.handle_in_process(request).await.map(|_| ())
    }

    async fn register(&self) {
        self.act(Action::Register, rawdoc! { "email": EMAIL, "password": "passw0rd" }).await.unwrap();
    }

    /// Returns the token and its id that the last call got.
    fn token(&self) -> (String, String) {
        let last = self.calls.arguments.lock().unwrap().pop_back().unwrap();
        (last.get_str("token").unwrap().to_owned(), last.get_str("tokenId").unwrap().to_owned())
    }

    async fn confirm(&self, (token, id): &(String, String)) -> Result<()> {
        self.act(Action::Confirm, rawdoc! { "token": token.as_str(), "tokenId": id.as_str() }).await
    }

    async fn reset(&self, (token, id): &(String, String), password: &str) -> Result<()> {
        let payload = rawdoc! { "token": token.as_str(), "tokenId": id.as_str(), "password": password };
        self.act(Action::Reset, payload).await
    }

    async fn log_in(&self, password: &str) -> Result<()> {
        let log_in = LogIn { credentials: Credentials::email_password(EMAIL, password), device_id: None };
        self.backend.handle_in_process(Request::LogIn(log_in)).await.map(|_| ())
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// Returns everything that the store has about users, as text.
    async fn stored(&self) -> String {
        let find = Find::new(Namespace::new("userkeep_test-app", "users"), Filter::all());
        let found = self.store.find(find).await.unwrap();
        found.iter().map(|user| Document::try_from(&**user).unwrap().to_string()).collect()
    }
}

fn at(clock: &Arc<AtomicI64>) -> Environment {
    let clock = Arc::clone(clock);
    Environment::with_clock(move || DateTime::from_millis(clock.load(Ordering::SeqCst)))
}

/// Runs a function.
async fn answer(
    backend: Arc<Backend>,
    calls: Arc<Calls>,
    call: CallId,
    invocation: Arc<Invocation>,
    status: &'static str,
) {
    let first = invocation.arguments.into_iter().next().unwrap().unwrap();
    let first = Document::try_from(first.as_document().unwrap()).unwrap();
    assert!(invocation.is_system);
    let result = match invocation.name.as_str() {
        "logIn" if first.is_empty() => {
            let begun = calls.hanging.fetch_add(1, Ordering::SeqCst) + 1;
            calls.most.fetch_max(begun - calls.stopped.load(Ordering::SeqCst), Ordering::SeqCst);
            return;
        }
        "logIn" if first.get_str("id").is_ok_and(|id| id == "throw") => {
            write_argument(&invocation, &first, &calls);
            Err(thrown(format!("{first} {}", "x".repeat(5000))))
        }
        "logIn" => Ok(RawBson::Document(RawDocumentBuf::try_from(first).unwrap())),
        "create" => {
            calls.creations.fetch_add(1, Ordering::SeqCst);
            let identity = first.get_array("identities").unwrap()[0].as_document().unwrap();
            let id = identity.get_str("id").unwrap();
            // Other creations begin in the meantime.
            tokio::time::sleep(Duration::from_millis(if status == "slow" { 300 } else { 20 })).await;
            let insert = rawdoc! { "database": "app", "collection": "members", "document": { "_id": id } };
            let name = "insertOne".to_owned();
            let inserted = backend.call_in_function(&invocation, true, "mongodb-atlas", name, insert).await;
            if id.starts_with("hang") {
                inserted.unwrap();
                calls.kept.lock().unwrap().push(invocation);
                return;
            }
            inserted.map_err(|error| thrown(error.message.into_owned()))
        }
        _ => {
            calls.arguments.lock().unwrap().push_back(first.clone());
            if status == "throw" {
                write_argument(&invocation, &first, &calls);
                Err(thrown(first.to_string()))
            } else {
                Ok(RawBson::Document(rawdoc! { "status": status }))
            }
        }
    };
    backend.functions().finish(call, result);
}

/// Writes the argument of a function to its console and to the stack of its error.
fn write_argument(invocation: &Invocation, argument: &Document, calls: &Calls) {
    let text = argument.to_string();
    let line = rawdoc! { "level": "info", "text": &*text };
    let report = rawdoc! { "messages": [line], "error": { "stack": text } };
    let (lines, _) = invocation.set_console(&report);
    calls.printed.lock().unwrap().extend(lines.into_iter().map(|(_, text)| text));
}

fn thrown(message: String) -> Error {
    Error::new(ErrorCode::FunctionExecutionError, message)
}

fn client() -> Origin {
    Origin { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), is_shared: false }
}

fn user_of(done: Result<Response>) -> String {
    match done.unwrap() {
        Response::Session(session) => session.user_id,
        _ => panic!("a log-in answers a session"),
    }
}

fn code(done: Result<()>) -> ErrorCode {
    done.unwrap_err().code
}

#[tokio::test]
async fn a_confirmation_token_is_valid_for_thirty_minutes_and_its_text_is_not_stored() {
    let world = World::new("pending");
    world.register().await;
    let token = world.token();
    assert!(!world.stored().await.contains(&token.0));
    world.pass(30 * 60);
    assert_eq!(code(world.confirm(&token).await), ErrorCode::UserpassTokenInvalid);
    world.act(Action::CallConfirmation, rawdoc! { "email": EMAIL }).await.unwrap();
    let token = world.token();
    world.pass(30 * 60 - 1);
    assert_eq!(code(world.log_in("passw0rd").await), ErrorCode::AuthError);
    world.confirm(&token).await.unwrap();
    assert_eq!(code(world.confirm(&token).await), ErrorCode::UserpassTokenInvalid);
    world.log_in("passw0rd").await.unwrap();
}

#[tokio::test]
async fn a_reset_token_is_valid_for_thirty_minutes_and_its_text_is_not_stored() {
    let world = World::new("pending");
    world.register().await;
    world.confirm(&world.token()).await.unwrap();
    let call = || rawdoc! { "email": EMAIL, "password": "n3w passw0rd" };
    world.act(Action::CallReset, call()).await.unwrap();
    let token = world.token();
    assert!(!world.stored().await.contains(&token.0));
    world.pass(30 * 60);
    assert_eq!(code(world.reset(&token, "n3w passw0rd").await), ErrorCode::UserpassTokenInvalid);
    world.act(Action::CallReset, call()).await.unwrap();
    let token = world.token();
    world.pass(30 * 60 - 1);
    world.reset(&token, "n3w passw0rd").await.unwrap();
    assert_eq!(code(world.reset(&token, "third passw0rd").await), ErrorCode::UserpassTokenInvalid);
    world.log_in("n3w passw0rd").await.unwrap();
    assert_eq!(code(world.log_in("passw0rd").await), ErrorCode::InvalidPassword);
}

#[tokio::test]
async fn a_network_has_a_limit_of_simultaneous_requests_that_run_functions() {
    let world = World::new("success");
    let from = |place: u8| Origin { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, place)), is_shared: false };
    let start = |place: u8| {
        let backend = Arc::clone(&world.backend);
        let credentials = Credentials { provider: "custom-function".to_owned(), payload: rawdoc! {}.into() };
        let request = Request::LogIn(LogIn { credentials, device_id: None });
        tokio::spawn(async move { backend.handle(request, &RequestContext::from_origin(from(place))).await })
    };
    let hanging = async |count: usize| {
        for _ in 0..100 {
            if world.calls.hanging.load(Ordering::SeqCst) == count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.calls.hanging.load(Ordering::SeqCst), count);
    };
    let first: Vec<_> = (0..40).map(|_| start(1)).collect();
    hanging(16).await;
    let other: Vec<_> = (0..4).map(|_| start(2)).collect();
    hanging(20).await;
    // A log-in with a password needs none of them.
    world.register().await;
    world.log_in("passw0rd").await.unwrap();
    first.into_iter().chain(other).for_each(|request| request.abort());
}

#[tokio::test]
async fn clients_that_disconnect_do_not_evade_the_limit() {
    let world = World::new("success");
    let start = || {
        let backend = Arc::clone(&world.backend);
        let credentials = Credentials { provider: "custom-function".to_owned(), payload: rawdoc! {}.into() };
        let request = Request::LogIn(LogIn { credentials, device_id: None });
        let origin = Origin { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), is_shared: false };
        tokio::spawn(async move { backend.handle(request, &RequestContext::from_origin(origin)).await })
    };
    let begun = async |count: usize| {
        for _ in 0..250 {
            if world.calls.hanging.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} calls began, and not {count}", world.calls.hanging.load(Ordering::SeqCst));
    };
    let mut requests: Vec<_> = (0..16).map(|_| start()).collect();
    for round in 1..3 {
        begun(round * 16).await;
        requests.drain(..).for_each(|request| request.abort());
        requests.extend((0..16).map(|_| start()));
    }
    begun(48).await;
    assert_eq!(world.calls.stopped.load(Ordering::SeqCst), 32);
    assert_eq!(world.calls.most.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn a_password_is_not_changed_without_the_end_of_the_sessions() {
    let world = World::new("success");
    world.register().await;
    world.log_in("passw0rd").await.unwrap();
    let sessions = async || {
        let find = Find::new(Namespace::new("userkeep_test-app", "sessions"), Filter::all());
        world.store.find(find).await.unwrap().len()
    };
    assert_eq!(sessions().await, 1);
    let before = world.stored().await;
    let payload = rawdoc! { "email": EMAIL, "password": "n3w passw0rd" };
    let mut reset = Box::pin(world.act(Action::CallReset, payload));
    // The request ends at the moment at which the password has changed, as if the process did.
    while world.stored().await == before {
        let polled = std::future::poll_fn(|task| Poll::Ready(reset.as_mut().poll(task))).await;
        assert!(polled.is_pending() || world.stored().await != before);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(reset);
    assert_eq!(sessions().await, 0);
}

#[tokio::test]
async fn simultaneous_first_log_ins_with_one_id_create_one_user() {
    let world = World::with("success", definition(PROVIDERS, true));
    let log_ins = (0..8).map(|_| world.log_in_as(None, "ada", "Ada"));
    let users: Vec<String> = futures_util::future::join_all(log_ins).await.into_iter().map(user_of).collect();
    assert!(users.iter().all(|user| *user == users[0]), "{users:?}");
    assert_eq!(world.calls.creations.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_user_whom_another_process_creates_at_the_same_time_can_log_in() {
    let one = World::with("success", definition(PROVIDERS, true));
    let other = World::on(Arc::clone(&one.store), Arc::clone(&one.clock), definition(PROVIDERS, true));
    // Its function inserts a duplicate of what the other one has committed, and throws.
    other.run("slow");
    // Prepared before, so that both create the user at the same time.
    one.log_in_as(None, "first", "First").await.unwrap();
    other.log_in_as(None, "second", "Second").await.unwrap();
    let (first, second) = tokio::join!(one.log_in_as(None, "ada", "Ada"), other.log_in_as(None, "ada", "Ada"));
    assert_eq!(user_of(first), user_of(second));
    assert_eq!(one.calls.creations.load(Ordering::SeqCst), 2);
    assert_eq!(other.calls.creations.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_token_that_is_used_several_times_at_once_runs_the_creation_function_once() {
    let world = World::with("pending", definition(PROVIDERS, true));
    world.register().await;
    let token = world.token();
    let outcomes = futures_util::future::join_all((0..8).map(|_| world.confirm(&token))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter(Result::is_err).all(|done| code(done) == ErrorCode::UserpassTokenInvalid));
    assert_eq!(world.calls.creations.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_creation_whose_client_disconnects_leaves_no_transaction() {
    let world = Arc::new(World::with("success", definition(PROVIDERS, true)));
    let creations: Vec<_> = (0..16)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.log_in_as(None, &format!("hang {number}"), "").await.map(|_| ()) })
        })
        .collect();
    while world.calls.kept.lock().unwrap().len() < 16 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    creations.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.calls.stopped.load(Ordering::SeqCst), 16);
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(world.store.begin(TransactionLimits::default()).await.unwrap());
    }
    let members = Find::new(Namespace::new("app", "members"), Filter::all());
    assert!(world.store.find(members).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_function_that_cannot_run_refuses_nobody() {
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
    let store = SqliteStore::open(Location::Memory, Arc::new(at(&clock))).unwrap();
    let world = World::on(Arc::new(store), clock, definition(PROVIDERS, false));
    for _ in 0..100 {
        let error = world.log_in_as(Some(client()), "ada", "Ada").await.map(|_| ()).unwrap_err();
        assert_eq!(error.code, ErrorCode::FunctionExecutionError);
        assert!(error.message.contains("functions cannot run"), "{error}");
    }
    let registered = world.act(Action::Register, rawdoc! { "email": EMAIL, "password": "passw0rd" }).await;
    assert_eq!(code(registered), ErrorCode::FunctionExecutionError);
}

#[tokio::test]
async fn new_users_of_a_function_are_limited_and_their_log_ins_are_not() {
    let world = World::new("success");
    for _ in 0..210 {
        world.log_in_as(Some(client()), "ada", "Ada").await.unwrap();
    }
    // Ada is one of the 201.
    for number in 1..201 {
        world.log_in_as(Some(client()), &format!("user {number}"), "").await.unwrap();
    }
    let refused = world.log_in_as(Some(client()), "another", "").await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code.status(), 429);
}

#[tokio::test]
async fn a_disabled_user_keeps_the_name() {
    let world = World::new("success");
    world.log_in_as(None, "ada", "Ada").await.unwrap();
    let update = Update::parse(&rawdoc! { "$set": { "disabled": true } }).unwrap();
    let modify = Modify::new(Filter::all(), true, Change::Update { update, upsert: false });
    let users = Namespace::new("userkeep_test-app", "users");
    world.store.write(vec![Write::new(users, Operation::modify(modify))]).await.unwrap();
    let refused = world.log_in_as(None, "ada", "Another").await.map(|_| ());
    assert_eq!(code(refused), ErrorCode::UserDisabled);
    assert!(!world.stored().await.contains("Another"));
}

#[tokio::test]
async fn calls_of_functions_that_are_not_configured_say_so() {
    let providers = r#"{ "local-userpass": { "config": { "runConfirmationFunction": true } } }"#;
    let world = World::with("success", definition(providers, false));
    let of = async |action| world.act(action, rawdoc! { "email": EMAIL, "password": "passw0rd" }).await.unwrap_err();
    assert_eq!(of(Action::Register).await.message, format!("failed to confirm user \"{EMAIL}\""));
    let confirmation = of(Action::CallConfirmation).await;
    assert_eq!(confirmation.message, "cannot run confirmation: the confirmation function is missing");
    let reset = of(Action::CallReset).await;
    assert_eq!((reset.code, &*reset.message), (ErrorCode::BadRequest, "please use reset password via email"));
}

#[tokio::test]
async fn the_arguments_of_a_hook_that_writes_and_throws_them_are_not_in_the_log() {
    let world = World::new("throw");
    let refused = world.act(Action::Register, rawdoc! { "email": EMAIL, "password": "passw0rd" }).await;
    assert_eq!(code(refused), ErrorCode::BadRequest);
    let (token, id) = world.token();
    let message = world.log_in_as(None, "throw", "pa55phrase").await.map(|_| ()).unwrap_err().message;
    // The client has sent them itself.
    assert!(message.contains("pa55phrase"));
    assert_eq!(message.chars().count(), 1001);
    world.backend.flush_log().await;
    let logs = Find::new(Namespace::new("userkeep_test-app", "logs"), Filter::all());
    let found = world.store.find(logs).await.unwrap();
    let logs: String = found.iter().map(|entry| Document::try_from(&**entry).unwrap().to_string()).collect();
    let printed = world.calls.printed.lock().unwrap().join(" ");
    assert_eq!(found.iter().filter(|entry| entry.get("messages").unwrap().is_some()).count(), 2);
    for shown in [&logs, &printed] {
        assert!(shown.contains("***") && shown.contains(EMAIL), "{shown}");
        for secret in [&*token, &id, "passw0rd", "pa55phrase"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
