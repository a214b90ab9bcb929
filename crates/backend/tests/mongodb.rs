//! Several nodes of one app on one MongoDB, and their behaviour while the database is unavailable.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../../store/tests/support/mod.rs"]
mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use backend::{
    AdminRequest, Backend, ChangeEvent, ChangeKind, DataSources, Definition, Environment, Error, ErrorCode, Options,
    Origin, Progress, Request, RequestContext, Response, Result, Secret, StoreAddress, Subscription,
    request::{
        Action, Arguments, CallFunction, Credentials, DeleteUser, EndSession, LogIn, ProviderAction, RefreshSession,
    },
    response::{AccessGrant, Session},
};
use bson::{Bson, Document, doc, raw::RawDocumentBuf};
use support::{OwnServer, fresh_database, proxy::Proxy, server, with_options};

/// Maximum time until a session that ended at one node is rejected by all others.
const HEARD_OF: Duration = Duration::from_secs(5);

struct Node(Arc<Backend>);

/// Returns a unique app id. The app's custom data is in a database of that name.
fn fresh_app() -> String {
    fresh_database()
}

/// The development definition with custom data in the app's own database, because all tests share
/// a server.
fn definition_of(app: &str) -> Definition {
    let mut definition = Definition::development().unwrap();
    let custom_data = definition.custom_user_data.as_mut().unwrap();
    custom_data.namespace = store::Namespace::new(app, "custom-user-data");
    let service = definition.services.get_mut("mongodb-atlas").unwrap();
    service.collections =
        service.collections.drain().map(|(_, rules)| (custom_data.namespace.clone(), rules)).collect();
    definition
}

impl Node {
    fn open(app: &str, uri: &str) -> Self {
        Self::open_with(app, uri, &Options::default())
    }

    fn open_with(app: &str, uri: &str, options: &Options) -> Self {
        Self::with(app, uri, definition_of(app), options)
    }

    fn with(app: &str, uri: &str, definition: Definition, options: &Options) -> Self {
        let address = StoreAddress::MongoDb(uri.to_owned().into());
        let opened = Backend::open(app, definition, &address, Environment::system(), options);
        Self(Arc::new(opened.unwrap()))
    }

    fn several(count: usize) -> (String, Vec<Self>) {
        let app = fresh_app();
        let nodes = (0..count).map(|_| Self::open(&app, &server())).collect();
        (app, nodes)
    }

    async fn register(&self, email: &str) -> Result<()> {
        let request =
            ProviderAction::email_password(Action::Register, bson::rawdoc! { "email": email, "password": "passw0rd" });
        self.0.handle_in_process(Request::ProviderAction(request)).await.map(|_| ())
    }

    async fn log_in(&self, email: &str) -> Result<Session> {
        match self.0.handle_in_process(log_in(email, "passw0rd")).await? {
            Response::Session(session) => Ok(session),
            other => panic!("{other:?}"),
        }
    }

    async fn refresh(&self, session: &Session) -> Result<AccessGrant> {
        match self
            .0
            .handle_in_process(Request::RefreshSession(RefreshSession { refresh_token: session.refresh_token.clone() }))
            .await?
        {
            Response::AccessGrant(access) => Ok(access),
            other => panic!("{other:?}"),
        }
    }

    async fn call(&self, token: &Secret, name: &str, arguments: Document) -> Result<Bson> {
        let call = CallFunction {
            access_token: token.clone(),
            name: name.into(),
            arguments: Arguments::Service {
                service: "mongodb-atlas".into(),
                argument: custom_data_of(self.0.app_id(), arguments),
            },
        };
        match self.0.handle_in_process(Request::CallFunction(call)).await? {
            Response::Value(value) => Ok(Bson::try_from(value).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    /// True if a token is accepted.
    async fn accepts(&self, token: &Secret) -> bool {
        match self.call(token, "count", doc! {}).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code, ErrorCode::InvalidSession, "{error}");
                false
            }
        }
    }

    /// Writes the custom data of a session's user.
    async fn save(&self, session: &Session, n: i32) -> Result<Bson> {
        let query = doc! { "userId": &session.user_id };
        let update = doc! { "$set": { "userId": &session.user_id, "n": n } };
        self.call(&session.access.access_token, "updateOne", doc! { "query": query, "update": update, "upsert": true })
            .await
    }
}

fn log_in(email: &str, password: &str) -> Request {
    let credentials = Credentials::email_password(email, password);
    Request::LogIn(LogIn { credentials, device_id: None })
}

/// True if the error is the one for an unavailable database.
fn is_of_the_database(error: &Error) -> bool {
    error.code == ErrorCode::InternalServerError && error.message.starts_with("the database is not available: ")
}

async fn nodes_know_each_others_sessions(count: usize) {
    let (_, nodes) = Node::several(count);
    // All nodes start at once: only one signing key and one user of each name may be created.
    let registered = futures_util::future::join_all(nodes.iter().map(|node| node.register("ada@example.com"))).await;
    assert_eq!(registered.iter().filter(|registered| registered.is_ok()).count(), 1, "{registered:?}");
    let refused = registered.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|error| error.code == ErrorCode::AccountNameInUse));
    let mut keys = HashSet::new();
    for node in &nodes {
        keys.extend(node.0.public_keys().await.unwrap().into_iter().map(|key| key.id));
    }
    assert_eq!(keys.len(), 1);

    let mut sessions = Vec::new();
    for node in &nodes {
        sessions.push(node.log_in("ada@example.com").await.unwrap());
    }
    for node in &nodes {
        for session in &sessions {
            assert!(node.accepts(&session.access.access_token).await);
        }
    }
    // Data that one node writes is read by another, also for the token.
    nodes[0].save(&sessions[0], 7).await.unwrap();
    let access = nodes[1].refresh(&sessions[0]).await.unwrap();
    assert_eq!(access.custom_data.unwrap().get_i32("n").unwrap(), 7);

    // After a key rotation, all sessions stay valid.
    let key = rotate_keys(&nodes[0]).await;
    for node in &nodes {
        assert!(node.0.public_keys().await.unwrap().iter().any(|public| public.id == key));
        let session = node.log_in("ada@example.com").await.unwrap();
        for other in &nodes {
            assert!(other.accepts(&session.access.access_token).await);
            other.refresh(&sessions[0]).await.unwrap();
        }
    }

    // A session that ends at one node is rejected there at once, and soon by all others.
    let ended = sessions.remove(0);
    nodes[1]
        .0
        .handle_in_process(Request::EndSession(EndSession { refresh_token: ended.refresh_token.clone() }))
        .await
        .unwrap();
    let begun = Instant::now();
    assert!(!nodes[1].accepts(&ended.access.access_token).await);
    for node in &nodes {
        assert_eq!(node.refresh(&ended).await.unwrap_err().code, ErrorCode::InvalidSession);
        while node.accepts(&ended.access.access_token).await {
            assert!(begun.elapsed() < HEARD_OF);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Deleting a user ends all of the user's sessions.
    let token = sessions[0].access.access_token.clone();
    nodes[0].0.handle_in_process(Request::DeleteUser(DeleteUser { access_token: token })).await.unwrap();
    let begun = Instant::now();
    for (node, session) in nodes.iter().flat_map(|node| sessions.iter().map(move |session| (node, session))) {
        assert_eq!(node.refresh(session).await.unwrap_err().code, ErrorCode::InvalidSession);
        while node.accepts(&session.access.access_token).await {
            assert!(begun.elapsed() < HEARD_OF);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(nodes[1].log_in("ada@example.com").await.unwrap_err().code, ErrorCode::InvalidPassword);
}

/// Rotates the signing keys; returns the id of the new one.
async fn rotate_keys(node: &Node) -> String {
    let rotated = node.0.admin().run(AdminRequest::RotateKeys {}, &Progress::default()).await.unwrap();
    rotated.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_accept_each_others_sessions() {
    nodes_know_each_others_sessions(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_accept_each_others_sessions() {
    nodes_know_each_others_sessions(4).await;
}

/// An attacker who alternates between nodes gets no more guesses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_counts_of_failures() {
    let (_, nodes) = Node::several(3);
    nodes[0].register("ada@example.com").await.unwrap();
    let home = Origin { address: "192.0.2.1".parse().unwrap(), is_shared: false };
    let attacker = Origin { address: "192.0.2.2".parse().unwrap(), is_shared: false };
    nodes[0].0.handle(log_in("ada@example.com", "passw0rd"), &RequestContext::from_origin(home)).await.unwrap();
    let mut guesses = 0;
    let refused = loop {
        let node = &nodes[guesses % nodes.len()];
        let error = node
            .0
            .handle(log_in("ada@example.com", "wrong"), &RequestContext::from_origin(attacker))
            .await
            .unwrap_err();
        if error.code != ErrorCode::InvalidPassword {
            break error;
        }
        guesses += 1;
        assert!(guesses < 20);
    };
    assert_eq!((guesses, refused.code.status()), (6, 429), "{refused}");
    assert!(refused.retry_after.is_some());
    for node in &nodes {
        let error = node
            .0
            .handle(log_in("ada@example.com", "passw0rd"), &RequestContext::from_origin(attacker))
            .await
            .unwrap_err();
        assert_eq!(error.code.status(), 429, "the right password is rejected too");
        // The network that the user has logged in from before is not limited at any node.
        node.0.handle(log_in("ada@example.com", "passw0rd"), &RequestContext::from_origin(home)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(refused.retry_after.unwrap() + 1)).await;
    nodes[1].0.handle(log_in("ada@example.com", "passw0rd"), &RequestContext::from_origin(attacker)).await.unwrap();
    nodes[2].0.handle(log_in("ada@example.com", "wrong"), &RequestContext::from_origin(attacker)).await.unwrap_err();
    nodes[0].0.handle(log_in("ada@example.com", "passw0rd"), &RequestContext::from_origin(attacker)).await.unwrap();
}

/// The arguments of a call about an app's custom data.
fn custom_data_of(app: &str, more: Document) -> RawDocumentBuf {
    let mut arguments = doc! { "database": app, "collection": "custom-user-data" };
    arguments.extend(more);
    RawDocumentBuf::try_from(arguments).unwrap()
}

impl Node {
    async fn watch(&self, session: &Session, more: Document) -> Result<Subscription> {
        let call = CallFunction {
            access_token: session.access.access_token.clone(),
            name: "watch".into(),
            arguments: Arguments::Service {
                service: "mongodb-atlas".into(),
                argument: custom_data_of(self.0.app_id(), more),
            },
        };
        self.0.watch(call).await
    }
}

async fn next_events(watcher: &mut Subscription) -> Vec<Arc<ChangeEvent>> {
    tokio::time::timeout(Duration::from_secs(20), watcher.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_can_be_resumed_at_another_node_only_by_its_user() {
    let (app, nodes) = Node::several(2);
    let mut sessions = Vec::new();
    for email in ["ada@example.com", "bob@example.com"] {
        nodes[0].register(email).await.unwrap();
        sessions.push(nodes[0].log_in(email).await.unwrap());
    }
    let mut watcher = nodes[0].watch(&sessions[0], doc! {}).await.unwrap();
    for n in 0..2 {
        nodes[1].save(&sessions[0], n).await.unwrap();
    }
    let event = next_events(&mut watcher).await.remove(0);
    let resume = |id: &RawDocumentBuf| doc! { "resumeAfter": Document::try_from(id.clone()).unwrap() };
    let (sealed, raw) = (watcher.id(&event), event.token.to_document());
    let mut resumed = nodes[1].watch(&sessions[0], resume(&sealed)).await.unwrap();
    let next = next_events(&mut resumed).await.remove(0);
    assert_eq!(next.kind, ChangeKind::Update);
    for (session, id) in [(&sessions[0], &raw), (&sessions[1], &sealed), (&sessions[1], &raw)] {
        let error = nodes[1].watch(session, resume(id)).await.unwrap_err();
        assert_eq!(error.server_code, Some(260), "{error}");
    }
    nodes[1].0.watch_as_system("mongodb-atlas", custom_data_of(&app, resume(&raw))).await.unwrap();
    let error = nodes[1].0.watch_as_system("mongodb-atlas", custom_data_of(&app, resume(&sealed))).await.unwrap_err();
    assert_eq!(error.server_code, Some(260), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_gets_update_descriptions_if_the_definition_enables_pre_images() {
    for enabled in [false, true] {
        let app = fresh_app();
        let proxy = Proxy::to(&server()).await;
        let mut definition = definition_of(&app);
        if enabled {
            let service = definition.services.get_mut("mongodb-atlas").unwrap();
            service.pre_images.push(store::Namespace::new(&app, "custom-user-data"));
        }
        let node = Node::with(&app, &proxy.uri(""), definition, &Options::default());
        node.register("ada@example.com").await.unwrap();
        let session = node.log_in("ada@example.com").await.unwrap();
        assert_eq!(proxy.commands("collMod").len(), usize::from(enabled));
        proxy.take_names();
        let mut watcher = node.watch(&session, doc! {}).await.unwrap();
        node.save(&session, 0).await.unwrap();
        node.save(&session, 1).await.unwrap();
        let mut events = Vec::new();
        while events.len() < 2 {
            events.extend(next_events(&mut watcher).await);
        }
        let event = Document::try_from(watcher.document(&events[1])).unwrap();
        let description = event.get_document("updateDescription").unwrap();
        let expected = if enabled {
            doc! { "updatedFields": { "n": 1 }, "removedFields": [] }
        } else {
            doc! {}
        };
        assert_eq!(*description, expected);
        let names = proxy.take_names();
        assert!(!names.iter().any(|name| ["collMod", "create"].contains(&&**name)), "{names:?}");
    }
}

/// Each query of the backend itself uses its index, on both stores.
#[tokio::test]
async fn no_query_of_the_backend_scans_a_collection() {
    let on_mongodb = Node::open(&fresh_app(), &server());
    let definition = Definition::development().unwrap();
    let in_memory =
        Backend::open("app", definition, &StoreAddress::Memory, Environment::system(), &Options::default()).unwrap();
    for (backend, least) in [(&*on_mongodb.0, 10), (&in_memory, 9)] {
        // Servers choose an index only if there are several documents.
        for number in 0..20 {
            let email = format!("user{number}@example.com");
            let register = ProviderAction::email_password(
                Action::Register,
                bson::rawdoc! { "email": email, "password": "passw0rd" },
            );
            backend.handle_in_process(Request::ProviderAction(register)).await.unwrap();
        }
        backend.handle_in_process(log_in("user1@example.com", "passw0rd")).await.unwrap();
        let explained = backend.explain_queries().await.unwrap();
        assert!(explained.len() >= least);
        for (query, explanation) in explained {
            assert!(["IXSCAN", "IDHACK"].contains(&explanation.stage), "{}: {explanation:?}", query.name);
            let index = explanation.index.clone().unwrap_or_else(|| "_id_".to_owned());
            assert_eq!(index, query.index, "{}: {explanation:?}", query.name);
        }
    }
}

/// The commands of a log-in, a refresh, a call and a revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_sends_few_commands() {
    let proxy = Proxy::to(&server()).await;
    let node = Node::open(&fresh_app(), &proxy.uri(""));
    node.register("ada@example.com").await.unwrap();
    let session = node.log_in("ada@example.com").await.unwrap();
    node.save(&session, 1).await.unwrap();
    proxy.take_names();

    let session = node.log_in("ada@example.com").await.unwrap();
    // The user, the session, the record of the log-in, and the custom data.
    assert_eq!(proxy.take_names(), ["find", "insert", "update", "find"]);
    // The session, the user, and the custom data by both forms of the id.
    node.refresh(&session).await.unwrap();
    assert_eq!(proxy.take_names(), ["find", "find", "find", "find"]);
    let token = &session.access.access_token;
    // The session, the user and the documents.
    node.call(token, "findOne", doc! { "query": {} }).await.unwrap();
    assert_eq!(proxy.take_names(), ["find", "find", "find"]);
    for name in ["findOne", "count"] {
        node.call(token, name, doc! { "query": {} }).await.unwrap();
    }
    assert_eq!(proxy.take_names(), ["find", "aggregate"], "the session is cached");
    let change = doc! { "query": { "userId": &session.user_id }, "update": { "$set": { "n": 2 } } };
    node.call(token, "updateOne", change).await.unwrap();
    assert_eq!(proxy.take_names(), ["update"]);
    node.0
        .handle_in_process(Request::EndSession(EndSession { refresh_token: session.refresh_token.clone() }))
        .await
        .unwrap();
    assert_eq!(proxy.take_names(), ["find", "delete"]);
}

/// A request reads the session, the user and the custom data in one round trip.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_and_a_query_take_one_round_trip() {
    const LATENCY: Duration = Duration::from_millis(600);
    let proxy = Proxy::to(&server()).await;
    let node = Node::open(&fresh_app(), &proxy.uri(""));
    node.register("ada@example.com").await.unwrap();
    let session = node.log_in("ada@example.com").await.unwrap();
    // Opens enough connections, with another session.
    let other = node.log_in("ada@example.com").await.unwrap();
    futures_util::future::join_all((0..4).map(|_| node.refresh(&session))).await;
    node.call(&other.access.access_token, "count", doc! {}).await.unwrap();
    proxy.delay(LATENCY);
    let begun = Instant::now();
    node.refresh(&session).await.unwrap();
    let refresh = begun.elapsed();
    let begun = Instant::now();
    node.call(&session.access.access_token, "findOne", doc! { "query": {} }).await.unwrap();
    let query = begun.elapsed();
    for (what, time) in [("refresh", refresh), ("query", query)] {
        assert!((LATENCY..LATENCY * 2).contains(&time), "a {what} took {time:?}");
    }
}

/// Ways to end a session at one node, which other nodes must notice.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    LogOut,
    Disabled,
    Removed,
    Deleted,
}

/// Ends a session at `node`, and returns the time of the response.
async fn end_session(node: &Node, session: &Session, end: End) -> Instant {
    let user = query::Filter::equals("_id", bson::oid::ObjectId::parse_str(&session.user_id).unwrap());
    let change_user = async |change| {
        let users = store::Namespace::new(&format!("userkeep_{}", node.0.app_id()), "users");
        let modify = store::Modify::new(user, false, change);
        let outcome = node.0.store().write(vec![store::Write::new(users, store::Operation::modify(modify))]).await;
        let outcome = outcome.unwrap().remove(0);
        assert_eq!(outcome.modified + outcome.deleted, 1);
    };
    match end {
        End::LogOut => {
            node.0
                .handle_in_process(Request::EndSession(EndSession { refresh_token: session.refresh_token.clone() }))
                .await
                .unwrap();
        }
        End::Deleted => {
            let access_token = session.access.access_token.clone();
            node.0.handle_in_process(Request::DeleteUser(DeleteUser { access_token })).await.unwrap();
        }
        End::Disabled => {
            let update = query::Update::parse(&bson::rawdoc! { "$set": { "disabled": true } }).unwrap();
            change_user(store::Change::Update { update, upsert: false }).await;
        }
        End::Removed => change_user(store::Change::Delete).await,
    }
    Instant::now()
}

/// Ends a session at one node while another node, whose database answers late, has just read it.
/// Checks the results of requests and of a stream at that other node.
async fn assert_heard_of_in_time(late: Duration, end: End) {
    let (what, app) = (format!("{end:?}, {late:?} late"), fresh_app());
    let proxy = Proxy::to(&server()).await;
    let quick = Node::open(&app, &server());
    // Only users and sessions are read late; events arrive in time.
    let direct = StoreAddress::MongoDb(server().into());
    let data_sources = DataSources { named: [("mongodb-atlas".to_owned(), direct)].into(), ..DataSources::default() };
    let options = Options { data_sources, ..Options::default() };
    let slow = Arc::new(Node::open_with(&app, &proxy.uri("socketTimeoutMS=60000"), &options));
    quick.register("ada@example.com").await.unwrap();
    let session = quick.log_in("ada@example.com").await.unwrap();
    quick.save(&session, 0).await.unwrap();
    let token = session.access.access_token.clone();
    let watch = CallFunction {
        access_token: token.clone(),
        name: "watch".into(),
        arguments: Arguments::Service {
            service: "mongodb-atlas".into(),
            argument: bson::rawdoc! { "database": app.as_str(), "collection": "custom-user-data" },
        },
    };
    let mut watcher = slow.0.watch(watch).await.unwrap();
    // Opens the connections and the server's change stream.
    let warm = futures_util::future::join_all((0..5).map(|_| slow.refresh(&session)));
    assert!(warm.await.iter().all(Result::is_ok), "{what}");
    let _ = tokio::time::timeout(Duration::from_millis(500), watcher.next()).await;
    let writing = tokio::spawn({
        let (quick, session) = (Node(Arc::clone(&quick.0)), session.clone());
        async move {
            for n in 1.. {
                let document = bson::rawdoc! { "userId": session.user_id.as_str(), "n": n };
                let arguments = bson::rawdoc! {
                    "database": quick.0.app_id(), "collection": "custom-user-data", "document": document,
                };
                quick.0.call_as_system("mongodb-atlas", "insertOne".to_owned(), arguments).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    // Wait until the cached session has expired. An event is ready to be sent.
    tokio::time::sleep(Duration::from_millis(4100)).await;
    proxy.take_commands();
    proxy.delay(late);
    let following = tokio::spawn(async move {
        let mut last = None;
        loop {
            match watcher.next().await {
                Ok(_) => last = Some(Instant::now()),
                Err(error) => return (last, error),
            }
        }
    });
    let request = || {
        let (slow, token) = (Arc::clone(&slow), token.clone());
        tokio::spawn(async move {
            let made = Instant::now();
            (made, slow.accepts(&token).await)
        })
    };
    let before = request();
    while proxy.commands("find").len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The server has read the session and the user, and its answers are delayed.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ended = end_session(&quick, &session, end).await;
    let mut requests = Vec::new();
    // Continues until after the first answer has arrived.
    let asking = HEARD_OF.max(late) + Duration::from_secs(2);
    while ended.elapsed() < asking {
        requests.push(request());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before.await.unwrap().1, "{what}: the earlier request is answered");
    let mut late_requests = 0;
    for request in requests {
        let (made, is_accepted) = request.await.unwrap();
        let after = made.duration_since(ended);
        if after >= HEARD_OF {
            late_requests += 1;
            assert!(!is_accepted, "{what}: a request made {after:?} afterwards was accepted");
        }
    }
    assert!(late_requests > 3, "{what}");
    let (refreshed, followed) = tokio::join!(slow.refresh(&session), following);
    assert_eq!(refreshed.unwrap_err().code, ErrorCode::InvalidSession, "{what}");
    let (last, error) = followed.unwrap();
    writing.abort();
    assert_eq!(error.code, ErrorCode::InvalidSession, "{what}: {error}");
    let told = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(ended));
    assert!(told < HEARD_OF, "{what}: an event was sent {told:?} afterwards");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_is_rejected_everywhere_within_five_seconds_even_with_a_slow_database() {
    let cases = [0, 3, 8].into_iter().flat_map(|late| {
        [End::LogOut, End::Disabled, End::Removed, End::Deleted].map(|end| (Duration::from_secs(late), end))
    });
    let cases = cases.map(|(late, end)| tokio::spawn(assert_heard_of_in_time(late, end)));
    for case in futures_util::future::join_all(cases).await {
        case.unwrap();
    }
}

/// Users and sessions need no transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_server_is_sufficient_for_users() {
    let server = OwnServer::start(&["--standalone"]);
    let nodes = [Node::open("alone", &server.uri), Node::open("alone", &server.uri)];
    nodes[0].register("ada@example.com").await.unwrap();
    assert_eq!(nodes[1].register("ada@example.com").await.unwrap_err().code, ErrorCode::AccountNameInUse);
    let session = nodes[1].log_in("ada@example.com").await.unwrap();
    nodes[0].save(&session, 3).await.unwrap();
    assert_eq!(nodes[0].refresh(&session).await.unwrap().custom_data.unwrap().get_i32("n").unwrap(), 3);
    rotate_keys(&nodes[0]).await;
    nodes[1].refresh(&session).await.unwrap();
    nodes[0]
        .0
        .handle_in_process(Request::DeleteUser(DeleteUser { access_token: session.access.access_token.clone() }))
        .await
        .unwrap();
    assert_eq!(nodes[1].refresh(&session).await.unwrap_err().code, ErrorCode::InvalidSession);
}

/// The server stops and restarts during log-ins, refreshes and writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_acknowledged_write_is_lost_if_the_server_restarts() {
    let server = OwnServer::start(&["--sync-on-commit"]);
    let uri = with_options(&server.uri, "serverSelectionTimeoutMS=1000&connectTimeoutMS=1000&heartbeatFrequencyMS=500");
    let node = Arc::new(Node::open(&fresh_app(), &uri));
    node.register("ada@example.com").await.unwrap();
    let first = node.log_in("ada@example.com").await.unwrap();
    node.save(&first, 0).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let working: Vec<_> = (0..3)
        .map(|worker| {
            let (node, is_over, first) = (Arc::clone(&node), Arc::clone(&is_over), first.clone());
            tokio::spawn(async move {
                let (mut done, mut failed, mut saved, mut sessions) = (0, 0, 0, Vec::new());
                while !is_over.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    let answer = match worker {
                        0 => node.log_in("ada@example.com").await.map(|session| sessions.push(session)),
                        1 => node.refresh(&first).await.map(|_| ()),
                        _ => node.save(&first, saved + 1).await.map(|_| saved += 1),
                    };
                    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
                    match answer {
                        Ok(()) => done += 1,
                        Err(error) => {
                            assert!(is_of_the_database(&error), "{error:?}");
                            failed += 1;
                            // It may have been saved in spite of the error.
                            saved += i32::from(worker == 2);
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (done, failed, saved, sessions)
            })
        })
        .collect();
    for away in [0, 1500, 0] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.stop();
        tokio::time::sleep(Duration::from_millis(away)).await;
        server.go_on();
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    is_over.store(true, Ordering::SeqCst);
    let mut failures = 0;
    for (worker, working) in working.into_iter().enumerate() {
        let (done, failed, saved, sessions) = working.await.unwrap();
        assert!(done > 5, "worker {worker} was answered {done} times");
        failures += failed;
        for session in &sessions {
            node.refresh(session).await.unwrap();
        }
        if worker == 2 {
            let found = node.call(&first.access.access_token, "find", doc! { "query": {} }).await.unwrap();
            let found = found.as_array().unwrap().clone();
            assert_eq!(found.len(), 1, "no upsert has inserted a second document: {found:?}");
            let n = found[0].as_document().unwrap().get_i32("n").unwrap();
            assert!(n == saved || n == saved - 1 || failed > 0, "{n} was found and {saved} saved");
        }
    }
    assert!(failures > 0, "requests must fail while the server is away for longer than their timeout");
}

/// Returns an address at which no server listens.
async fn closed_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("mongodb://{}/", listener.local_addr().unwrap())
}

/// Asserts that a request ended at its time limit, with some tolerance for a busy machine.
fn assert_ended_at(limit: Duration, begun: Instant) {
    let took = begun.elapsed();
    assert!((limit..limit + Duration::from_secs(4)).contains(&took), "it took {took:?} instead of {limit:?}");
}

const SESSION_TIME: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_fails_within_fifteen_seconds_if_nothing_listens() {
    // Each of its operations would search for a server for longer than that.
    let node = Node::open(&fresh_app(), &with_options(&closed_port().await, "serverSelectionTimeoutMS=40000"));
    let origin = Origin { address: [192, 0, 2, 1].into(), is_shared: false };
    let begun = Instant::now();
    let here = async { node.log_in("ada@example.com").await.map(|_| ()) };
    let over_http = async {
        node.0.handle(log_in("bob@example.com", "passw0rd"), &RequestContext::from_origin(origin)).await.map(|_| ())
    };
    let (here, over_http, registered) = tokio::join!(here, over_http, node.register("ada@example.com"));
    assert_ended_at(SESSION_TIME, begun);
    for error in [here.unwrap_err(), over_http.unwrap_err(), registered.unwrap_err()] {
        assert!(is_of_the_database(&error) && error.message.contains("the write may have been applied"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_ends_a_refresh_and_a_log_in_after_fifteen_seconds_and_a_query_after_its_own_time() {
    const QUERY_TIME: Duration = Duration::from_secs(3);
    let proxy = Proxy::to(&server()).await;
    let limits = backend::OperationLimits { time: QUERY_TIME, ..Default::default() };
    let options = Options { limits, ..Options::default() };
    let node = Node::open_with(&fresh_app(), &proxy.uri("socketTimeoutMS=60000"), &options);
    node.register("ada@example.com").await.unwrap();
    let session = node.log_in("ada@example.com").await.unwrap();
    let token = &session.access.access_token;
    // After this, the session must be read again.
    tokio::time::sleep(HEARD_OF).await;
    proxy.silence(true);
    let begun = Instant::now();
    let ended = |limit| move |_: &_| assert_ended_at(limit, begun);
    let (refreshed, logged_in, found, counted, written) = tokio::join!(
        async { node.refresh(&session).await.inspect_err(ended(SESSION_TIME)) },
        async { node.log_in("ada@example.com").await.inspect_err(ended(SESSION_TIME)) },
        async { node.call(token, "find", doc! { "query": {} }).await.inspect_err(ended(QUERY_TIME)) },
        async { node.call(token, "count", doc! {}).await.inspect_err(ended(QUERY_TIME)) },
        async { node.save(&session, 1).await.inspect_err(ended(QUERY_TIME)) },
    );
    for error in [refreshed.map(|_| ()).unwrap_err(), logged_in.map(|_| ()).unwrap_err()] {
        assert!(is_of_the_database(&error), "{error:?}");
    }
    for error in [found.unwrap_err(), counted.unwrap_err(), written.unwrap_err()] {
        assert_eq!((error.code, error.server_code), (ErrorCode::MongoDBError, Some(50)), "{error:?}");
    }
    proxy.silence(false);
    let answered = async { while node.log_in("ada@example.com").await.is_err() {} };
    tokio::time::timeout(SESSION_TIME, answered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_check_repeats_a_failed_preparation() {
    let proxy = Proxy::to(&server()).await;
    let node = Node::open(&fresh_app(), &proxy.uri("serverSelectionTimeoutMS=300"));
    proxy.close(true);
    assert!(node.0.start().await.is_err());
    assert!(node.0.check_health().await.is_err());
    // An attempt takes 300 ms. Within a second after one, all requests have its error.
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(node.0.public_keys().await.is_err());
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    proxy.close(false);
    let is_well = async { while node.0.check_health().await.is_err() {} };
    tokio::time::timeout(SESSION_TIME, is_well).await.unwrap();
}

#[tokio::test]
async fn nodes_write_to_one_log() {
    let (_, nodes) = Node::several(3);
    nodes[0].register("ada@example.com").await.unwrap();
    for node in &nodes {
        node.log_in("ada@example.com").await.unwrap();
        node.log_in("bob@example.com").await.unwrap_err();
        node.0.flush_log().await;
    }
    let logs = |query: Document| {
        let request = doc! { "operation": "logs", "query": query };
        let request = AdminRequest::read(&RawDocumentBuf::try_from(&request).unwrap()).unwrap();
        let admin = nodes[1].0.admin();
        async move {
            let found = admin.run(request, &Progress::default()).await.unwrap();
            let Bson::Array(entries) = Bson::try_from(found).unwrap() else { panic!("logs are an array") };
            entries.into_iter().filter_map(|entry| entry.as_document().cloned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(logs(doc! {}).await.len(), 6);
    let failed = logs(doc! { "errors": true, "types": ["auth"] }).await;
    assert_eq!(failed.len(), 3);
    assert!(failed.iter().all(|entry| entry.get_str("event").unwrap() == "login" && entry.contains_key("error")));
    let id = failed[2].get_str("requestId").unwrap();
    assert_eq!(logs(doc! { "requestId": id }).await, [failed[2].clone()]);
    assert_eq!(nodes.iter().map(|node| node.0.log_entries_dropped()).sum::<u64>(), 0);
}
