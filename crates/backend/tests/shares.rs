//! The commands that operations of users and of the backend send to MongoDB, and fairness between
//! users.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../../store/tests/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use backend::{
    Backend, Definition, Environment, Error, ErrorCode, Options, Request, Response, Result, Secret, Secrets,
    StoreAddress,
    request::{
        Action, Arguments, CallFunction, Credentials, DeleteUser, EndSession, LogIn, ProviderAction, ReadProfile,
        RefreshSession,
    },
    response::Session,
};
use bson::{Document, doc, raw::RawDocumentBuf};
use support::{
    fresh_database,
    proxy::{Proxy, Sent},
    server,
};

/// Time limit of an operation of a user in these tests.
const TIME: Duration = Duration::from_secs(5);
/// Time limit of a command of the backend itself.
const OWN_TIME: Duration = Duration::from_secs(20);

/// The delay of each answer by the proxy while commands are recorded.
const LATENCY: Duration = Duration::from_millis(20);

/// The maximum size of a message: 16 MB for a document, and 16 kB for the rest.
const MESSAGE: usize = 16 * 1024 * 1024 + 16 * 1024;

struct App {
    backend: Arc<Backend>,
    database: String,
}

impl App {
    /// Opens an app with three collections: the rules of `open` and `own` can be expressed as
    /// filters, those of `judged` cannot.
    fn open(uri: &str) -> Self {
        let database = fresh_database();
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("root_config.json", r#"{ "app_id": "shares", "name": "shares" }"#.to_owned());
        write(
            "auth/providers.json",
            r#"{ "anon-user": { "name": "anon-user", "type": "anon-user", "disabled": false },
                 "local-userpass": { "name": "local-userpass", "type": "local-userpass", "config": { "autoConfirm": true }, "disabled": false } }"#
                .to_owned(),
        );
        write(
            "auth/custom_user_data.json",
            format!(
                r#"{{ "enabled": true, "mongo_service_name": "mongodb-atlas", "database_name": "{database}",
                      "collection_name": "people", "user_id_field": "userId" }}"#
            ),
        );
        write(
            "data_sources/mongodb-atlas/config.json",
            r#"{ "name": "mongodb-atlas", "type": "mongodb-atlas", "config": {} }"#.to_owned(),
        );
        for (collection, applies) in [
            ("open", "{}"),
            ("slow", "{}"),
            ("own", r#"{ "userId": "%%user.id" }"#),
            ("judged", r#"{ "hidden": null }"#),
        ] {
            write(
                &format!("data_sources/mongodb-atlas/{database}/{collection}/rules.json"),
                format!(
                    r#"{{ "database": "{database}", "collection": "{collection}", "filters": [], "roles": [{{
                        "name": "role", "apply_when": {applies}, "read": true, "write": true, "insert": true,
                        "delete": true, "search": true }}] }}"#
                ),
            );
        }
        let definition = Definition::load(directory.path(), &Secrets::default()).unwrap();
        let mut options = Options::default();
        options.limits.time = TIME;
        let address = StoreAddress::MongoDb(uri.to_owned().into());
        let backend = Backend::open(&database, definition, &address, Environment::system(), &options).unwrap();
        Self { backend: Arc::new(backend), database }
    }

    async fn register(&self, email: &str) {
        let request =
            ProviderAction::email_password(Action::Register, bson::rawdoc! { "email": email, "password": "passw0rd" });
        self.backend.handle_in_process(Request::ProviderAction(request)).await.unwrap();
    }

    async fn log_in(&self, email: &str) -> Result<Session> {
        let credentials = Credentials::email_password(email, "passw0rd");
        self.log_in_with(credentials).await
    }

    async fn log_in_with(&self, credentials: Credentials) -> Result<Session> {
        match self.backend.handle_in_process(Request::LogIn(LogIn { credentials, device_id: None })).await? {
            Response::Session(session) => Ok(session),
            other => panic!("{other:?}"),
        }
    }

    async fn refresh(&self, session: &Session) -> Result<Response> {
        self.backend
            .handle_in_process(Request::RefreshSession(RefreshSession { refresh_token: session.refresh_token.clone() }))
            .await
    }

    fn arguments(&self, collection: &str, arguments: Document) -> RawDocumentBuf {
        let mut all = doc! { "database": &self.database, "collection": collection };
        all.extend(arguments);
        RawDocumentBuf::try_from(all).unwrap()
    }

    async fn call(&self, token: &Secret, collection: &str, name: &str, arguments: Document) -> Result<Response> {
        let call = CallFunction {
            access_token: token.clone(),
            name: name.into(),
            arguments: Arguments::Service {
                service: "mongodb-atlas".into(),
                argument: self.arguments(collection, arguments),
            },
        };
        self.backend.handle_in_process(Request::CallFunction(call)).await
    }
}

/// Returns all operations of users on a collection, with documents that its rules allow.
fn operations(user_id: &str) -> Vec<(&'static str, Document)> {
    let owned = |mut document: Document| {
        document.extend(doc! { "userId": user_id, "hidden": null });
        document
    };
    let set = || doc! { "$set": { "n": 5 } };
    let (text, one) = (|| "x".repeat(6 * 1024 * 1024), || doc! { "_id": 1 });
    vec![
        ("insertOne", doc! { "document": owned(doc! { "_id": 1 }) }),
        ("insertMany", doc! { "documents": [owned(doc! { "_id": 2 }), owned(doc! { "_id": 3 })] }),
        (
            "insertMany",
            doc! { "documents": [
                owned(doc! { "_id": 4, "text": text() }), owned(doc! { "_id": 5, "text": text() }),
                owned(doc! { "_id": 6, "text": text() }),
            ] },
        ),
        ("find", doc! { "query": {}, "project": { "text": 0 }, "sort": { "n": 1 } }),
        ("findOne", doc! { "query": one() }),
        ("count", doc! { "query": { "_id": { "$gt": 1 } } }),
        ("aggregate", doc! { "pipeline": [{ "$match": { "_id": { "$lt": 4 } } }, { "$group": { "_id": "$n" } }] }),
        ("updateOne", doc! { "query": one(), "update": set() }),
        ("updateOne", doc! { "query": { "_id": 4 }, "update": { "$set": { "hidden": null, "m": 1 } } }),
        ("updateMany", doc! { "query": { "_id": { "$lt": 4 } }, "update": { "$inc": { "n": 1 } } }),
        ("updateMany", doc! { "query": {}, "update": { "$set": { "userId": user_id, "hidden": null, "k": 1 } } }),
        ("updateOne", doc! { "query": { "_id": 7 }, "update": { "$set": owned(doc! { "n": 1 }) }, "upsert": true }),
        ("findOneAndUpdate", doc! { "filter": one(), "update": { "$inc": { "n": 1 } }, "returnNewDocument": true }),
        ("findOneAndReplace", doc! { "filter": one(), "update": owned(doc! { "n": 9 }) }),
        ("findOneAndDelete", doc! { "filter": one() }),
        ("deleteOne", doc! { "query": { "_id": 2 } }),
        ("deleteMany", doc! { "query": {} }),
    ]
}

/// True if the command, or each of its statements, compares strings byte by byte.
fn is_simple(command: &Document) -> bool {
    let is_simple = |place: &Document| {
        place.get_document("collation").is_ok_and(|collation| *collation == doc! { "locale": "simple" })
    };
    match command.get_array("updates").or_else(|_| command.get_array("deletes")) {
        Ok(statements) => statements.iter().all(|statement| is_simple(statement.as_document().unwrap())),
        Err(_) => is_simple(command),
    }
}

/// Returns the time limit of a command.
fn time_of(command: &Document) -> Option<Duration> {
    let time = command.get("maxTimeMS")?;
    let time = time.as_i64().or(time.as_i32().map(i64::from))?;
    u64::try_from(time).ok().map(Duration::from_millis)
}

/// Checks the commands of one operation with the time limit `limit`: the limit of each command is
/// what the previous ones have left.
fn check(sent: &[Sent], limit: Duration, operation: &str) {
    let mut left = limit;
    for Sent { command, bytes, .. } in sent {
        let name = command.keys().next().unwrap();
        assert!(*bytes <= MESSAGE, "{operation}: {name} has {bytes} bytes");
        // A `getMore` uses the limit of its cursor, and an aborted transaction ends at once.
        if !["getMore", "killCursors", "abortTransaction"].contains(&name.as_str()) {
            let time = time_of(command).unwrap_or_else(|| panic!("{operation}: {name} has no time limit"));
            assert!(time > Duration::ZERO && time <= left, "{operation}: {name} has {time:?} of {left:?}");
            left = time.checked_sub(LATENCY).unwrap();
        }
        if ["find", "aggregate", "update", "delete", "findAndModify", "count"].contains(&name.as_str()) {
            assert!(is_simple(command), "{operation}: {command}");
        }
    }
}

/// Returns the names of the commands, except those that read the rest of a large answer.
fn names(sent: &[Sent]) -> Vec<&str> {
    sent.iter().map(Sent::name).filter(|name| *name != "getMore").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_has_a_time_limit_and_a_maximum_size_and_compares_strings_byte_by_byte() {
    let proxy = Proxy::to(&server()).await;
    let app = App::open(&proxy.uri(&format!("socketTimeoutMS={}", OWN_TIME.as_millis())));
    app.register("ada@example.com").await;
    let session = app.log_in("ada@example.com").await.unwrap();
    let token = &session.access.access_token;
    // The first calls also discover the server and create MongoDB sessions.
    app.call(token, "open", "insertOne", doc! { "document": { "_id": 0 } }).await.unwrap();
    app.call(token, "open", "deleteMany", doc! { "query": {} }).await.unwrap();
    proxy.delay(LATENCY);

    let large = ["insert", "insert"];
    for collection in ["open", "own", "judged"] {
        let is_judged = collection == "judged";
        for (number, (name, arguments)) in operations(&session.user_id).into_iter().enumerate() {
            proxy.take_sent();
            let operation = format!("{collection}.{name} ({number})");
            let answer = app.call(token, collection, name, arguments).await;
            answer.unwrap_or_else(|error| panic!("{operation}: {error}"));
            let mut sent = proxy.take_sent();
            // The read of the session runs in between, with a time limit of its own.
            sent.retain(|sent| sent.command.get_str("$db").is_ok_and(|database| !database.starts_with("userkeep")));
            check(&sent, TIME, &operation);
            let expected: &[&[&str]] = match (name, number) {
                ("insertMany", 2) => &[&large],
                ("insertOne" | "insertMany", _) => &[&["insert"]],
                ("find" | "findOne", _) => &[&["find"]],
                ("count", _) if is_judged => &[&["find"]],
                ("count" | "aggregate", _) if !is_judged => &[&["aggregate"]],
                ("aggregate", _) => &[&["find"]],
                // The guard checks only the document to be inserted, because no other matches.
                ("updateOne", 11) => &[&["update", "insert"], &["find", "insert"], &["find", "find", "insert"]],
                ("updateOne", _) if is_judged => {
                    &[&["find", "update"], &["find", "find", "update", "commitTransaction"]]
                }
                ("updateOne", _) => &[&["update"], &["find", "update"]],
                ("deleteOne", _) => &[&["delete"], &["find", "delete"]],
                // The server first counts the documents that would be changed.
                ("updateMany", _) => &[&["aggregate", "update"], &["find", "update", "commitTransaction"]],
                ("deleteMany", _) => &[&["aggregate", "delete"], &["find", "delete", "commitTransaction"]],
                ("findOneAndDelete", _) => &[&["findAndModify"], &["find", "delete"]],
                _ => &[&["findAndModify"], &["find", "update"]],
            };
            assert!(expected.iter().any(|expected| names(&sent) == *expected), "{operation}: {:?}", names(&sent));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backends_own_commands_have_a_time_limit() {
    let proxy = Proxy::to(&server()).await;
    let app = App::open(&proxy.uri(&format!("socketTimeoutMS={}", OWN_TIME.as_millis())));
    app.register("eve@example.com").await;
    let mut sessions = Vec::new();
    for name in ["register", "log in", "log in anonymously", "refresh", "profile", "end", "delete"] {
        proxy.take_sent();
        let handle = async |request| app.backend.handle_in_process(request).await.map(|_| ());
        let last = || -> &Session { sessions.last().unwrap() };
        match name {
            "register" => app.register("ada@example.com").await,
            "log in" => sessions.push(app.log_in("ada@example.com").await.unwrap()),
            "log in anonymously" => sessions.push(app.log_in_with(Credentials::anonymous()).await.unwrap()),
            "refresh" => drop(app.refresh(last()).await.unwrap()),
            "profile" => {
                handle(Request::ReadProfile(ReadProfile { access_token: last().access.access_token.clone() }))
                    .await
                    .unwrap();
            }
            "end" => {
                handle(Request::EndSession(EndSession { refresh_token: sessions[0].refresh_token.clone() }))
                    .await
                    .unwrap();
            }
            _ => handle(Request::DeleteUser(DeleteUser { access_token: last().access.access_token.clone() }))
                .await
                .unwrap(),
        }
        let sent = proxy.take_sent();
        assert!(!sent.is_empty(), "{name}");
        // Each command has its own time limit.
        sent.iter().for_each(|sent| check(std::slice::from_ref(sent), OWN_TIME, name));
    }
}

/// Returns the 99th percentile.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Logs other users in, refreshes and queries for `time`, and returns the duration of each
/// request.
async fn others(app: &App, time: Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let step = Instant::now();
        let session = app.log_in_with(Credentials::anonymous()).await.unwrap();
        times.push(step.elapsed());
        for _ in 0..4 {
            let step = Instant::now();
            app.refresh(&session).await.unwrap();
            times.push(step.elapsed());
            let step = Instant::now();
            app.call(&session.access.access_token, "open", "findOne", doc! { "query": {} }).await.unwrap();
            times.push(step.elapsed());
        }
    }
    times
}

/// One user keeps 130 calls under way, each of which the database answers late. `SHARES_SECONDS`
/// is the duration: a minute for a measurement; a few seconds are enough for the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_who_fills_the_share_does_not_delay_others() {
    let seconds = std::env::var("SHARES_SECONDS").map_or(6, |seconds| seconds.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let proxy = Proxy::to(&server()).await;
    proxy.slow_down("slow", Duration::from_secs(3));
    let app = Arc::new(App::open(&proxy.uri("maxPoolSize=50")));
    let greedy = app.log_in_with(Credentials::anonymous()).await.unwrap();
    let alone = p99(others(&app, time / 2).await);

    let is_over = Arc::new(AtomicBool::new(false));
    let (answered, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls: Vec<_> = (0..130)
        .map(|_| {
            let (app, token, is_over) = (Arc::clone(&app), greedy.access.access_token.clone(), Arc::clone(&is_over));
            let (answered, refused) = (Arc::clone(&answered), Arc::clone(&refused));
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    match app.call(&token, "slow", "find", doc! { "query": {} }).await {
                        Ok(_) => answered.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            assert_eq!((error.code.status(), error.retry_after), (429, Some(2)), "{error}");
                            refused.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let beside = p99(others(&app, time).await);
    is_over.store(true, Ordering::SeqCst);
    for call in calls {
        call.await.unwrap();
    }
    let (answered, refused) = (answered.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
    println!("p99 of others alone {alone:?}, beside {beside:?}; {answered} calls answered, {refused} refused");
    assert!(answered >= 10 && refused > 100, "{answered} answered, {refused} refused");
    // On a busy machine, one in a hundred takes some milliseconds in any case.
    assert!(beside <= 2 * alone.max(Duration::from_millis(30)), "{beside:?} beside {alone:?} alone");
    assert!(slow_at_once(&proxy) <= 10);
}

/// Returns the maximum number of slow commands under way at once.
fn slow_at_once(proxy: &Proxy) -> usize {
    let slow: Vec<_> = proxy
        .take_sent()
        .into_iter()
        .filter(|sent| sent.command.get_str("find").is_ok_and(|name| name == "slow"))
        .collect();
    let under_way = |at: Instant| {
        // A little less than the delay: the next one is sent as soon as one is answered.
        slow.iter().filter(|sent| sent.at <= at && at < sent.at + Duration::from_millis(2900)).count()
    };
    slow.iter().map(|sent| under_way(sent.at)).max().unwrap_or(0)
}

fn is_refused(error: &Error) -> bool {
    (error.code, error.code.status()) == (ErrorCode::MaintenanceInProgress, 503) && error.retry_after.is_some()
}

/// While the database does not answer, a limited number of requests wait for it, and all others
/// fail at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_outage_does_not_accumulate_requests() {
    let proxy = Proxy::to(&server()).await;
    let app = Arc::new(App::open(&proxy.uri("socketTimeoutMS=3000&maxPoolSize=20")));
    app.backend.call_as_system("mongodb-atlas", "find".into(), app.arguments("open", doc! {})).await.unwrap();
    let text = "x".repeat(90_000);
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    proxy.silence(true);
    let begun = Instant::now();
    let mut waiting = Vec::new();
    for number in 0..20_000 {
        let (app, document) = (Arc::clone(&app), doc! { "number": number, "text": &text });
        let arguments = app.arguments("open", doc! { "document": document });
        waiting.push(tokio::spawn(async move {
            let answer = app.backend.call_as_system("mongodb-atlas", "insertOne".into(), arguments).await;
            (answer.unwrap_err(), begun.elapsed())
        }));
        if number % 20 == 0 {
            // Lets tasks start, so that the memory measured is that of waiting requests.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut grown = 0;
    let (mut refused, mut waited) = (0, 0);
    for (number, waiting) in waiting.into_iter().enumerate() {
        let (error, after) = waiting.await.unwrap();
        if number % 100 == 0 {
            grown = grown.max(resident().saturating_sub(before));
        }
        if is_refused(&error) {
            refused += 1;
        } else {
            assert!(error.message.starts_with("the database is not available"), "{error}");
            waited += 1;
            assert!(after < Duration::from_secs(20), "{after:?}");
        }
    }
    println!("{refused} refused, {waited} waited, {} MB", grown / 1_000_000);
    // 64 MB of them wait, and 20 have a connection.
    assert!((500..=20 + 1_000).contains(&waited), "{waited} waited, {refused} were refused");
    // This includes the memory of other tests in this process; all waiting requests would take 1.8
    // GB.
    assert!(grown < 700_000_000, "{grown} bytes more");
    proxy.silence(false);
}

/// A session that has ended cannot cause work in the database while its token is valid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_sends_no_query_to_the_database() {
    let proxy = Proxy::to(&server()).await;
    let app = App::open(&proxy.uri(""));
    let session = app.log_in_with(Credentials::anonymous()).await.unwrap();
    let token = &session.access.access_token;
    app.call(token, "open", "findOne", doc! { "query": {} }).await.unwrap();
    app.backend
        .handle_in_process(Request::EndSession(EndSession { refresh_token: session.refresh_token.clone() }))
        .await
        .unwrap();
    proxy.take_sent();
    for _ in 0..5 {
        let error = app.call(token, "open", "find", doc! { "query": {} }).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidSession);
    }
    let asked = proxy.take_sent();
    assert!(asked.iter().all(|sent| sent.command.get_str("find").ok() != Some("open")), "{asked:?}");
}

/// Thousands of the backend's own requests for one user count towards that user's share.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_deletions_of_one_user_do_not_delay_log_ins() {
    let proxy = Proxy::to(&server()).await;
    let app = Arc::new(App::open(&proxy.uri("")));
    let greedy = app.log_in_with(Credentials::anonymous()).await.unwrap();
    let other = app.log_in_with(Credentials::anonymous()).await.unwrap();
    app.call(&greedy.access.access_token, "open", "findOne", doc! { "query": {} }).await.unwrap();
    proxy.delay(Duration::from_millis(20));
    let deletions: Vec<_> = (0..2_000)
        .map(|_| {
            let (app, access_token) = (Arc::clone(&app), greedy.access.access_token.clone());
            tokio::spawn(async move {
                app.backend.handle_in_process(Request::DeleteUser(DeleteUser { access_token })).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        app.log_in_with(Credentials::anonymous()).await.unwrap();
        app.refresh(&other).await.unwrap();
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    for deletion in deletions {
        if let Err(error) = deletion.await.unwrap() {
            assert!([401, 429].contains(&error.code.status()), "{error}");
        }
    }
}

/// A stream that falls behind its buffer reopens by itself, even if the database answers late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_fallen_behind_catches_up_with_a_late_database() {
    const EVENTS: i32 = 6_000;
    let proxy = Proxy::to(&server()).await;
    let app = Arc::new(App::open(&proxy.uri("")));
    let session = app.log_in_with(Credentials::anonymous()).await.unwrap();
    let begin = async || {
        let call = CallFunction {
            access_token: session.access.access_token.clone(),
            name: "watch".into(),
            arguments: Arguments::Service { service: "mongodb-atlas".into(), argument: app.arguments("open", doc! {}) },
        };
        app.backend.watch(call).await.unwrap()
    };
    let (mut slow, _other) = (begin().await, begin().await);
    for part in 0..6 {
        let documents: Vec<Document> = (0..EVENTS / 6).map(|n| doc! { "_id": part * 1000 + n }).collect();
        let arguments = app.arguments("open", doc! { "documents": documents });
        app.backend.call_as_system("mongodb-atlas", "insertMany".into(), arguments).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.slow_down("open", Duration::from_millis(1500));
    // A stream that has reopened fetches a few events at a time. It is slow, but it progresses.
    let mut told = 0;
    let until = tokio::time::Instant::now() + Duration::from_secs(12);
    while let Ok(events) = tokio::time::timeout_at(until, slow.next()).await {
        told += events.unwrap().len();
    }
    assert!(told > 0, "no event was returned");
    proxy.slow_down("open", Duration::ZERO);
    while told < usize::try_from(EVENTS).unwrap() {
        told += tokio::time::timeout(Duration::from_secs(30), slow.next()).await.unwrap().unwrap().len();
    }
    assert_eq!(told, usize::try_from(EVENTS).unwrap());
}
