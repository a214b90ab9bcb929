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
    Backend, Definition, Environment, ErrorCode, Options, Origin, Request, RequestContext, Result, Secrets,
    functions::{CallId, FunctionHost, HostId, HostStarter},
    request::{Action, Credentials, LogIn, ProviderAction},
};
use bson::{DateTime, Document, RawBson, rawdoc};
use query::Filter;
use store::{Find, Location, Namespace, SqliteStore, Store};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const EMAIL: &str = "ada@example.com";
const PROVIDERS: &str = r#"{
    "custom-function": { "config": { "authFunctionName": "logIn" } },
    "local-userpass": { "config": {
        "runConfirmationFunction": true, "confirmationFunctionName": "confirm",
        "runResetFunction": true, "resetFunctionName": "reset"
    } }
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

/// A backend whose functions answer `{ status }`, and never answer the function `logIn`.
struct World {
    backend: Arc<Backend>,
    store: Arc<dyn Store>,
    clock: Arc<AtomicI64>,
    /// The first argument of each call.
    arguments: Arc<Mutex<VecDeque<Document>>>,
    /// The number of calls of `logIn`.
    hanging: Arc<AtomicUsize>,
    /// The number of calls that were stopped.
    stopped: Arc<AtomicUsize>,
    /// The maximum number of calls of `logIn` that ran at the same time.
    most: Arc<AtomicUsize>,
}

fn definition() -> Definition {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("auth/providers.json", PROVIDERS);
    for name in ["logIn", "confirm", "reset"] {
        write(&format!("functions/{name}.js"), "exports = () => {};");
    }
    Definition::load(directory.path(), &Secrets::default()).unwrap()
}

impl World {
    fn new(status: &'static str) -> Self {
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let hands = Arc::clone(&clock);
        let environment = Environment::with_clock(move || DateTime::from_millis(hands.load(Ordering::SeqCst)));
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(Location::Memory, Arc::new(environment.clone())).unwrap());
        let backend = Backend::new("test-app", definition(), Arc::clone(&store), environment, &Options::default());
        let world = Self {
            backend: Arc::new(backend),
            store,
            clock,
            arguments: Arc::default(),
            hanging: Arc::default(),
            stopped: Arc::default(),
            most: Arc::default(),
        };
        world.run(status);
        world
    }

    fn run(&self, status: &'static str) {
        let (sender, mut messages) = unbounded_channel();
        let (backend, arguments) = (Arc::downgrade(&self.backend), Arc::clone(&self.arguments));
        let (hanging, stopped, most) = (Arc::clone(&self.hanging), Arc::clone(&self.stopped), Arc::clone(&self.most));
        self.backend.functions().add_starter(Arc::new(Threads(sender.clone())), false, false);
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let Some(backend) = backend.upgrade() else { return };
                let pool = backend.functions();
                match message {
                    Message::Start(host) => {
                        let (messages, stopped) = (sender.clone(), Arc::clone(&stopped));
                        pool.attach(host, Arc::new(Thread { messages, host, stopped }));
                    }
                    Message::Wake(host) => {
                        let Some((call, invocation)) = pool.take(host) else { continue };
                        if invocation.name == "logIn" {
                            let begun = hanging.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(begun - stopped.load(Ordering::SeqCst), Ordering::SeqCst);
                            continue;
                        }
                        assert!(invocation.is_system);
                        let first = invocation.arguments.into_iter().next().unwrap().unwrap();
                        let first = Document::try_from(first.as_document().unwrap()).unwrap();
                        arguments.lock().unwrap().push_back(first);
                        pool.finish(call, Ok(RawBson::Document(rawdoc! { "status": status })));
                    }
                }
            }
        });
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
        let last = self.arguments.lock().unwrap().pop_back().unwrap();
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
        format!("{:?}", self.store.find(find).await.unwrap())
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
            if world.hanging.load(Ordering::SeqCst) == count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.hanging.load(Ordering::SeqCst), count);
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
            if world.hanging.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} calls began, and not {count}", world.hanging.load(Ordering::SeqCst));
    };
    let mut requests: Vec<_> = (0..16).map(|_| start()).collect();
    for round in 1..3 {
        begun(round * 16).await;
        requests.drain(..).for_each(|request| request.abort());
        requests.extend((0..16).map(|_| start()));
    }
    begun(48).await;
    assert_eq!(world.stopped.load(Ordering::SeqCst), 32);
    assert_eq!(world.most.load(Ordering::SeqCst), 16);
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
