#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use bson::{DateTime, Document, doc, oid::ObjectId, raw::RawDocumentBuf};
use query::Filter;
use store::{Find, Location, Namespace, Operation, SqliteStore, Write};

use super::*;
use crate::{
    context::first_decides,
    request::{
        Action, Arguments, Credentials, DeleteUser, EndSession, LogIn, ProviderAction, ReadProfile, RefreshSession,
    },
    response::{AccessGrant, Session},
};

struct World {
    backend: Arc<Backend>,
    clock: Arc<AtomicI64>,
}

impl World {
    fn new() -> Self {
        Self::with(Definition::development().unwrap())
    }

    fn with(definition: Definition) -> Self {
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let hands = Arc::clone(&clock);
        let environment = Environment::with_clock(move || DateTime::from_millis(hands.load(Ordering::SeqCst)));
        let store = SqliteStore::open(Location::Memory, Arc::new(environment.clone())).unwrap();
        let backend = Backend::new("test-app", definition, Arc::new(store), environment, &Options::default());
        Self { backend: Arc::new(backend), clock }
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    async fn register(&self, email: &str, password: &str) -> Result<()> {
        let request =
            ProviderAction::email_password(Action::Register, bson::rawdoc! { "email": email, "password": password });
        self.backend.handle_in_process(Request::ProviderAction(request)).await.map(|_| ())
    }

    async fn log_in(&self, credentials: Credentials) -> Result<Session> {
        match self.backend.handle_in_process(Request::LogIn(LogIn { credentials, device_id: None })).await? {
            Response::Session(session) => Ok(session),
            other => panic!("{other:?}"),
        }
    }

    async fn log_in_as(&self, email: &str, password: &str) -> Result<Session> {
        self.log_in(Credentials::email_password(email, password)).await
    }

    async fn refresh(&self, session: &Session) -> Result<AccessGrant> {
        match self
            .backend
            .handle_in_process(Request::RefreshSession(RefreshSession { refresh_token: session.refresh_token.clone() }))
            .await?
        {
            Response::AccessGrant(access) => Ok(access),
            other => panic!("{other:?}"),
        }
    }

    async fn call(&self, access_token: &Secret, name: &str, arguments: Document) -> Result<bson::Bson> {
        let mut all = doc! { "database": "custom-user-data-database", "collection": "custom-user-data" };
        all.extend(arguments);
        let call = CallFunction {
            access_token: access_token.clone(),
            name: name.into(),
            arguments: Arguments::Service {
                service: "mongodb-atlas".into(),
                argument: RawDocumentBuf::try_from(all).unwrap(),
            },
        };
        match self.backend.handle_in_process(Request::CallFunction(call)).await? {
            Response::Value(value) => Ok(bson::Bson::try_from(value).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    async fn seed(&self, document: Document) {
        let arguments =
            doc! { "database": "custom-user-data-database", "collection": "custom-user-data", "document": document };
        self.backend
            .call_as_system("mongodb-atlas", "insertOne".into(), RawDocumentBuf::try_from(arguments).unwrap())
            .await
            .unwrap();
    }
}

fn claims(token: &Secret) -> serde_json::Value {
    use base64::Engine;
    let payload = token.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn custom_data_is_as_of_the_time_of_the_token() {
    let world = World::new();
    world.register("a@example.com", "passw0rd").await.unwrap();
    let session = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    assert!(session.access.custom_data.is_none());
    assert!(claims(&session.access.access_token).get("user_data").is_none());

    let token = &session.access.access_token;
    let answer = world
        .call(token, "updateOne", doc! { "query": { "userId": &session.user_id }, "update": { "$set": { "favoriteColor": "pink", "n": 5_i64 } }, "upsert": true })
        .await
        .unwrap();
    let answer = answer.as_document().unwrap();
    assert_eq!((answer.get_i32("matchedCount").unwrap(), answer.get_i32("modifiedCount").unwrap()), (0, 0));
    assert!(answer.get_object_id("upsertedId").is_ok());

    let access = world.refresh(&session).await.unwrap();
    let data = Document::try_from(&**access.custom_data.unwrap()).unwrap();
    assert_eq!(
        (data.get_str("favoriteColor").unwrap(), data.get_str("userId").unwrap()),
        ("pink", session.user_id.as_str())
    );
    let claims = claims(&access.access_token);
    assert_eq!(claims["user_data"]["n"], serde_json::json!({ "$numberLong": "5" }));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 1800);
    assert_eq!(claims["sub"], session.user_id.as_str());
    assert_eq!(claims["typ"], "access");
}

#[tokio::test]
async fn the_string_id_wins_over_the_object_id_and_the_first_document_over_later_ones() {
    let world = World::new();
    let session = world.log_in(Credentials::anonymous()).await.unwrap();
    let id = ObjectId::parse_str(&session.user_id).unwrap();
    let number = |access: AccessGrant| access.custom_data.map(|data| data.get_i32("n").unwrap());

    // A document that lists the id in an array is no user's data; otherwise one user could plant
    // another's data.
    world.seed(doc! { "n": 0, "userId": [&session.user_id, "another"] }).await;
    assert_eq!(number(world.refresh(&session).await.unwrap()), None);
    world.seed(doc! { "n": 1, "userId": id }).await;
    world.seed(doc! { "n": 2, "userId": id }).await;
    assert_eq!(number(world.refresh(&session).await.unwrap()), Some(1));
    world.seed(doc! { "n": 3, "userId": &session.user_id }).await;
    world.seed(doc! { "n": 4, "userId": &session.user_id }).await;
    assert_eq!(number(world.refresh(&session).await.unwrap()), Some(3));
}

#[tokio::test]
async fn custom_data_that_is_too_large_for_the_token_is_returned_beside_it() {
    let world = World::new();
    let session = world.log_in(Credentials::anonymous()).await.unwrap();
    world.seed(doc! { "userId": &session.user_id, "text": "x".repeat(1_000_000) }).await;
    let access = world.refresh(&session).await.unwrap();
    assert!(claims(&access.access_token).get("user_data").is_none());
    assert_eq!(access.custom_data.unwrap().get_str("text").unwrap().len(), 1_000_000);
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_error_in_the_same_time() {
    let world = World::new();
    world.register("a@example.com", "passw0rd").await.unwrap();
    // The minimum of several tries, because other load only makes them longer.
    let mut times = [std::time::Duration::MAX; 2];
    for _ in 0..12 {
        for (time, email) in times.iter_mut().zip(["a@example.com", "b@example.com"]) {
            let start = Instant::now();
            let error = world.log_in_as(email, "wrong password").await.unwrap_err();
            *time = start.elapsed().min(*time);
            assert_eq!((error.message.as_ref(), error.code as i32, error.code.status()), ("unauthorized", 4349, 401));
        }
    }
    let ratio = times[0].as_secs_f64() / times[1].as_secs_f64();
    // Without a hash to verify, an unknown user would take a hundredth of the time.
    assert!((0.33..3.0).contains(&ratio), "a wrong password takes {ratio} times an unknown user");
    assert_eq!(
        world.log_in_as("A@example.com", "passw0rd").await.unwrap_err().message,
        "unauthorized",
        "addresses are case-sensitive"
    );
}

#[tokio::test]
async fn registration_is_checked_and_only_one_of_two_concurrent_ones_succeeds() {
    let world = World::new();
    for (email, password, message) in [
        ("a@example.com", "12345", "password must be between 6 and 128 characters"),
        ("a@example.com", &"x".repeat(129), "password must be between 6 and 128 characters"),
        ("", "passw0rd", "email invalid"),
        (" ada@example.com", "passw0rd", "email invalid"),
        ("ada\n@example.com", "passw0rd", "email invalid"),
        (&"é".repeat(129), "passw0rd", "email invalid"),
    ] {
        assert_eq!(world.register(email, password).await.unwrap_err().message, message);
    }
    // Without confirmation by e-mail, a name need not be an address.
    for name in ["ada", "a b@example.com", &"é".repeat(128)] {
        world.register(name, "passw0rd").await.unwrap();
        world.log_in_as(name, "passw0rd").await.unwrap();
    }
    let (one, two) =
        tokio::join!(world.register("a@example.com", "passw0rd"), world.register("a@example.com", "passw0rd"));
    let refused = one.err().or(two.err()).unwrap();
    assert_eq!((refused.message.as_ref(), refused.code as i32), ("name already in use", 4348));
    world.log_in_as("a@example.com", "passw0rd").await.unwrap();
}

#[tokio::test]
async fn tokens_expire_and_end_with_their_session_and_their_user() {
    let world = World::new();
    world.register("a@example.com", "passw0rd").await.unwrap();
    let session = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    let second = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    let profile = |token: &Secret| {
        world.backend.handle_in_process(Request::ReadProfile(ReadProfile { access_token: token.clone() }))
    };
    let message = |error: Error| (error.code, error.message.into_owned());

    world.pass(1799);
    profile(&session.access.access_token).await.unwrap();
    world.pass(1);
    assert_eq!(
        message(profile(&session.access.access_token).await.unwrap_err()),
        (ErrorCode::InvalidSession, "invalid session: access token expired".into())
    );
    let access = world.refresh(&session).await.unwrap();
    profile(&access.access_token).await.unwrap();

    // The two kinds of token are not interchangeable, and another app's tokens are rejected.
    assert!(profile(&session.refresh_token).await.is_err());
    let swapped = Request::RefreshSession(RefreshSession { refresh_token: access.access_token.clone() });
    assert_eq!(
        world.backend.handle_in_process(swapped).await.unwrap_err().message,
        "invalid refresh token: incorrect token type"
    );
    let other = World::new();
    let foreign = other.log_in(Credentials::anonymous()).await.unwrap();
    assert_eq!(profile(&foreign.access.access_token).await.unwrap_err().message, "unauthorized");
    for garbage in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."] {
        assert_eq!(profile(&garbage.to_owned().into()).await.unwrap_err().code, ErrorCode::InvalidSession);
    }

    world
        .backend
        .handle_in_process(Request::EndSession(EndSession { refresh_token: session.refresh_token.clone() }))
        .await
        .unwrap();
    assert!(profile(&access.access_token).await.is_err(), "an access token ends with its session");
    assert_eq!(world.refresh(&session).await.unwrap_err().message, "invalid session: failed to find refresh token");
    let still = world.refresh(&second).await.unwrap();
    profile(&still.access_token).await.unwrap();

    world
        .backend
        .handle_in_process(Request::DeleteUser(DeleteUser { access_token: still.access_token.clone() }))
        .await
        .unwrap();
    assert!(profile(&still.access_token).await.unwrap_err().message.contains("No user found for session for user id"));
    world.register("a@example.com", "passw0rd").await.unwrap();
    assert_ne!(world.log_in_as("a@example.com", "passw0rd").await.unwrap().user_id, session.user_id);

    let third = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    world.pass(60 * 24 * 60 * 60);
    assert_eq!(world.refresh(&third).await.unwrap_err().message, "invalid session: refresh token expired");
}

#[tokio::test]
async fn rules_apply_to_users_and_the_backends_own_databases_are_inaccessible() {
    let world = World::new();
    let session = world.log_in(Credentials::anonymous()).await.unwrap();
    let token = &session.access.access_token;
    world.seed(doc! { "_id": 1, "userId": "another" }).await;

    assert_eq!(world.call(token, "find", doc! {}).await.unwrap(), bson::Bson::Array(vec![]));
    assert_eq!(world.call(token, "count", doc! {}).await.unwrap(), bson::Bson::Int64(0));
    assert_eq!(world.call(token, "aggregate", doc! { "pipeline": [] }).await.unwrap(), bson::Bson::Array(vec![]));
    let error = world.call(token, "insertOne", doc! { "document": { "userId": "another" } }).await.unwrap_err();
    assert_eq!((error.message.as_ref(), error.code.status()), ("insert not permitted", 403));
    let error = world
        .call(token, "updateOne", doc! { "query": { "_id": 1 }, "update": { "$set": { "userId": &session.user_id } } })
        .await
        .unwrap_err();
    assert_eq!(error.message, "update not permitted");
    for (database, collection) in [
        ("userkeep_test-app", "users"),
        ("Userkeep_test-app", "users"),
        ("admin", "x"),
        ("local", "x"),
        ("config", "x"),
        ("d", "system.users"),
        ("d", "c"),
    ] {
        let error =
            world.call(token, "find", doc! { "database": database, "collection": collection }).await.unwrap_err();
        assert_eq!(error.message, format!("no rule exists for namespace '{database}.{collection}'"));
    }
}

#[tokio::test]
async fn an_invalid_call_is_rejected_with_the_reason() {
    let world = World::new();
    let session = world.log_in(Credentials::anonymous()).await.unwrap();
    let token = &session.access.access_token;
    for (name, arguments, message) in [
        ("find", doc! { "query": 1 }, "'query' of find must be a document, got int"),
        ("find", doc! { "hint": {} }, "find does not take 'hint'"),
        ("find", doc! { "database": "" }, "'database' must not be empty"),
        ("find", doc! { "limit": -1 }, "'limit' must not be negative"),
        ("insertMany", doc! { "documents": [] }, "must provide at least one element"),
        ("insertOne", doc! {}, "insertOne needs 'document'"),
        (
            "updateOne",
            doc! { "update": { "$set": { "a": 1 } }, "arrayFilters": [{ "x": 1 }] },
            "The array filter for identifier 'x' was not used in the update",
        ),
        (
            "findOneAndReplace",
            doc! { "update": { "$set": { "a": 1 } } },
            "the replace operation document must not contain atomic operators",
        ),
        ("drop", doc! {}, "function not found: 'drop'"),
    ] {
        assert_eq!(world.call(token, name, arguments).await.unwrap_err().message, message, "{name}");
    }
    let call = CallFunction {
        access_token: token.clone(),
        name: "find".into(),
        arguments: Arguments::Service { service: "other".into(), argument: RawDocumentBuf::new() },
    };
    assert_eq!(
        world.backend.handle_in_process(Request::CallFunction(call)).await.unwrap_err().message,
        "Cannot access member 'find' of undefined"
    );
}

fn key_id(token: &Secret) -> String {
    let header = token.expose().split('.').next().unwrap();
    let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap();
    serde_json::from_slice::<serde_json::Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_key_signs_and_the_old_ones_verify_until_their_last_token_has_expired() {
    let world = World::new();
    let hands = Arc::clone(&world.clock);
    let environment = Environment::with_clock(move || DateTime::from_millis(hands.load(Ordering::SeqCst)));
    let definition = Definition::development().unwrap();
    let store = Arc::clone(&world.backend.store());
    let other = Backend::new("test-app", definition, store, environment, &Options::default());

    world.register("a@example.com", "passw0rd").await.unwrap();
    let before = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    let first = key_id(&before.refresh_token);
    let profile = async |backend: &Backend, session: &Session| {
        backend
            .handle_in_process(Request::ReadProfile(ReadProfile { access_token: session.access.access_token.clone() }))
            .await
    };
    profile(&other, &before).await.unwrap();

    let second = world.backend.context().sessions.rotate_keys().await.unwrap();
    assert_ne!(first, second);
    let store = world.backend.store();
    // The key of resume tokens has no number.
    let signing = Filter::parse(&bson::rawdoc! { "_id": { "$gte": 1 } }).unwrap();
    let keys = store.find(Find::new(Namespace::new("userkeep_test-app", "keys"), signing)).await;
    let kept: Vec<bool> = keys.unwrap().iter().map(|key| key.get_binary("private").is_ok()).collect();
    assert_eq!(kept, [false, true], "a retired key has no private half");
    let access = world.refresh(&before).await.unwrap();
    assert_eq!(key_id(&access.access_token), second);
    profile(&world.backend, &before).await.unwrap();
    world.pass(2);
    let after = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    assert_eq!(key_id(&after.refresh_token), second);
    profile(&other, &after).await.unwrap();

    let ids = async || world.backend.public_keys().await.unwrap().into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids().await, [first.clone(), second.clone()]);
    world.pass(59 * 86_400);
    let third = world.backend.context().sessions.rotate_keys().await.unwrap();
    assert_eq!(ids().await, [first, second.clone(), third.clone()]);
    world.refresh(&before).await.unwrap();
    world.pass(2 * 86_400);
    let fourth = world.backend.context().sessions.rotate_keys().await.unwrap();
    assert_eq!(ids().await, [third, fourth], "all tokens of the first two have expired");
    assert!(world.refresh(&before).await.unwrap_err().is_invalid_session());
}

#[tokio::test]
async fn tokens_with_an_unknown_key_id_rarely_cause_a_read_of_the_keys() {
    let world = World::new();
    let session = world.log_in(Credentials::anonymous()).await.unwrap();
    let (_, rest) = session.access.access_token.expose().split_once('.').unwrap();
    let header = r#"{"alg":"EdDSA","typ":"JWT","kid":"unknown"}"#;
    let header = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
    let forged = Secret::from(format!("{header}.{rest}"));
    let read_at = || world.backend.context().keys.last_read();
    let ask = async || {
        let refused =
            world.backend.handle_in_process(Request::ReadProfile(ReadProfile { access_token: forged.clone() })).await;
        assert!(refused.unwrap_err().is_invalid_session());
    };
    let before = read_at();
    world.clock.fetch_add(5000, Ordering::SeqCst);
    ask().await;
    assert_eq!(read_at(), before + 5000);
    // All concurrent requests wait for one read, which does not happen before the minimum time has
    // passed.
    world.clock.fetch_add(400, Ordering::SeqCst);
    let begun = Instant::now();
    futures_util::future::join_all((0..50).map(|_| ask())).await;
    assert_eq!(read_at(), before + 5400);
    let took = begun.elapsed().as_millis();
    assert!((590..3000).contains(&took), "{took}");
}

#[tokio::test]
async fn an_anonymous_user_is_kept_if_used_within_ninety_days() {
    const DAY: i64 = 24 * 60 * 60;
    let world = World::new();
    let session = world.log_in(Credentials::anonymous()).await.unwrap();
    let ends = async |collection: &str| {
        let find = Find::new(Namespace::new("userkeep_test-app", collection), query::Filter::all());
        let found = world.backend.store().find(find).await.unwrap();
        let end = found[0].get_datetime("expires_at").unwrap().timestamp_millis() / 1000;
        (end - world.clock.load(Ordering::SeqCst) / 1000) / DAY
    };
    assert_eq!((ends("users").await, ends("sessions").await), (90, 90));
    // The expiry is updated at most once a day.
    world.pass(DAY / 2);
    world.refresh(&session).await.unwrap();
    assert_eq!((ends("users").await, ends("sessions").await), (89, 89));
    for _ in 0..3 {
        world.pass(80 * DAY);
        world.refresh(&session).await.unwrap();
        assert_eq!((ends("users").await, ends("sessions").await), (90, 90));
    }
    world.pass(91 * DAY);
    let error = world.refresh(&session).await.unwrap_err();
    assert_eq!(error.message, "invalid session: failed to find refresh token");
}

#[tokio::test]
async fn ids_come_from_the_environment() {
    let next = Arc::new(AtomicI64::new(1));
    let id = |number: i64| bson::oid::ObjectId::parse_str(format!("{number:024x}")).unwrap();
    let environment = Environment::system().with_ids(move || id(next.fetch_add(1, Ordering::SeqCst)));
    let store = SqliteStore::open(Location::Memory, Arc::new(environment.clone())).unwrap();
    let definition = Definition::development().unwrap();
    let backend = Backend::new("test-app", definition, Arc::new(store), environment, &Options::default());
    let log_in = LogIn { credentials: Credentials::anonymous(), device_id: None };
    let Ok(Response::Session(session)) = backend.handle_in_process(Request::LogIn(log_in)).await else {
        panic!("the log-in failed");
    };
    // The name of the anonymous user has the first id, and the identity the third.
    assert_eq!([session.user_id, session.device_id], [id(2).to_hex(), id(4).to_hex()]);
    assert_eq!(claims(&session.refresh_token)["baas_id"], id(5).to_hex());
}

/// Opens a change stream as a user, with more arguments.
async fn watch(
    backend: &Arc<Backend>,
    access_token: &Secret,
    collection: &str,
    more: Document,
) -> Result<Subscription> {
    let mut arguments = doc! { "database": "custom-user-data-database", "collection": collection };
    arguments.extend(more);
    let call = CallFunction {
        access_token: access_token.clone(),
        name: "watch".into(),
        arguments: Arguments::Service {
            service: "mongodb-atlas".into(),
            argument: RawDocumentBuf::try_from(arguments).unwrap(),
        },
    };
    backend.watch(call).await
}

fn after(id: &RawDocumentBuf) -> Document {
    doc! { "resumeAfter": Document::try_from(id.clone()).unwrap() }
}

#[tokio::test]
async fn a_resume_token_is_valid_for_one_user_collection_and_app() {
    let rules = |definition: &mut Definition| {
        let service = definition.services.get_mut("mongodb-atlas").unwrap();
        let rules = service.collections.values().next().cloned().unwrap();
        service.collections.insert(Namespace::new("custom-user-data-database", "others"), rules);
    };
    let mut definition = Definition::development().unwrap();
    rules(&mut definition);
    let world = World::with(definition);
    let mut sessions = Vec::new();
    for email in ["a@example.com", "b@example.com"] {
        world.register(email, "passw0rd").await.unwrap();
        sessions.push(world.log_in_as(email, "passw0rd").await.unwrap());
    }
    let [ada, bob] = &sessions[..] else { unreachable!() };
    let token = &ada.access.access_token;
    let mut watcher = watch(&world.backend, token, "custom-user-data", doc! {}).await.unwrap();
    let at_first = watcher.position().unwrap();
    for n in 0..2 {
        world.seed(doc! { "_id": n, "userId": &ada.user_id }).await;
    }
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(watcher.next().await.unwrap());
    }
    let id = watcher.id(&events[0]);
    let document = watcher.document(&events[0]);
    assert_eq!(document.get_document("_id").unwrap(), &*id);
    assert_eq!(watcher.audience(), store::Audience::User);
    assert_eq!(watcher.position().unwrap(), watcher.id(&events[1]), "a token is always the same text");
    let raw = events[0].token.to_document();
    assert_ne!(id, raw);

    for (place, first) in [(&at_first, 0), (&id, 1)] {
        let mut resumed = watch(&world.backend, token, "custom-user-data", after(place)).await.unwrap();
        assert_eq!(resumed.next().await.unwrap()[0].id().as_i32(), Some(first));
    }
    let refused = async |token: &Secret, collection: &str, place: &RawDocumentBuf| {
        let error = watch(&world.backend, token, collection, after(place)).await.unwrap_err();
        assert_eq!((error.code, error.server_code), (ErrorCode::MongoDBError, Some(260)), "{error}");
    };
    for place in [&at_first, &id] {
        refused(&bob.access.access_token, "custom-user-data", place).await;
        refused(token, "others", place).await;
    }
    refused(token, "custom-user-data", &raw).await;

    // The operator's streams use the store's own tokens, and accept no others.
    let operator = async |place: &RawDocumentBuf| {
        let mut arguments = doc! { "database": "custom-user-data-database", "collection": "custom-user-data" };
        arguments.extend(after(place));
        world.backend.watch_as_system("mongodb-atlas", RawDocumentBuf::try_from(arguments).unwrap()).await
    };
    let mut watcher = operator(&raw).await.unwrap();
    let events = watcher.next().await.unwrap();
    assert_eq!(watcher.id(&events[0]), events[0].token.to_document());
    assert_eq!(operator(&id).await.unwrap_err().server_code, Some(260));

    // Another backend of the app on the same store, as after a restart, and a backend of another
    // app.
    let store = world.backend.store();
    let open = |app: &str| {
        let mut definition = Definition::development().unwrap();
        rules(&mut definition);
        let environment = world.backend.context().environment.clone();
        Arc::new(Backend::new(app, definition, Arc::clone(&store), environment, &Options::default()))
    };
    let again = open("test-app");
    let mut resumed = watch(&again, token, "custom-user-data", after(&id)).await.unwrap();
    assert_eq!(resumed.next().await.unwrap()[0].id().as_i32(), Some(1));
    let other = open("other-app");
    // Its keys and users are copied, so that only its id differs.
    for collection in ["keys", "users"] {
        let documents = store.find(Find::new(Namespace::new("userkeep_test-app", collection), Filter::all()));
        let insert = Operation::Insert(documents.await.unwrap());
        store.write(vec![Write::new(Namespace::new("userkeep_other-app", collection), insert)]).await.unwrap();
    }
    let credentials = Credentials::email_password("a@example.com", "passw0rd");
    let there = match other.handle_in_process(Request::LogIn(LogIn { credentials, device_id: None })).await.unwrap() {
        Response::Session(session) => session,
        other => panic!("{other:?}"),
    };
    assert_eq!(there.user_id, ada.user_id);
    watch(&other, &there.access.access_token, "custom-user-data", doc! {}).await.unwrap();
    let error = watch(&other, &there.access.access_token, "custom-user-data", after(&id)).await.unwrap_err();
    assert_eq!(error.server_code, Some(260), "{error}");
}

#[tokio::test]
async fn a_filter_matches_the_token_that_the_user_gets() {
    let world = World::new();
    world.register("a@example.com", "passw0rd").await.unwrap();
    let session = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    let token = &session.access.access_token;
    let mut watcher = watch(&world.backend, token, "custom-user-data", doc! {}).await.unwrap();
    let begin = watcher.position().unwrap();
    for n in 0..2 {
        world.seed(doc! { "_id": n, "userId": &session.user_id }).await;
    }
    // The two events can arrive one after the other.
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(watcher.next().await.unwrap());
    }
    for (id, expected) in [(watcher.id(&events[1]), true), (events[1].token.to_document(), false)] {
        let mut more = after(&begin);
        more.insert("filter", doc! { "_id": Document::try_from(id).unwrap() });
        let mut filtered = watch(&world.backend, token, "custom-user-data", more).await.unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_millis(300), filtered.next()).await;
        let found = next.map(|events| events.unwrap()[0].id().as_i32());
        assert_eq!(found.ok().flatten(), expected.then_some(1));
    }
}

/// Cancel safety: dropping `next` loses no event, whether it waits for the store, the session or
/// the custom data.
#[tokio::test]
async fn a_stream_whose_reads_are_canceled_returns_each_event_once() {
    let world = World::new();
    world.register("a@example.com", "passw0rd").await.unwrap();
    let session = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
    let (token, user) = (&session.access.access_token, session.user_id.as_str());
    let mut watcher = watch(&world.backend, token, "custom-user-data", doc! {}).await.unwrap();
    let mut seen = Vec::new();
    let mut position = watcher.position();
    let telling = async {
        while seen.len() < 200 {
            let patience = std::time::Duration::from_micros(seen.len() as u64 % 7 * 40);
            if let Ok(events) = tokio::time::timeout(patience, watcher.next()).await {
                seen.extend(events.unwrap().iter().map(|event| event.known().get_i32("n").unwrap()));
                assert_ne!(watcher.position(), position, "the position has advanced");
                position = watcher.position();
            }
        }
    };
    let writing = async {
        for n in 0..200 {
            world.call(token, "insertOne", doc! { "document": { "userId": user, "n": n } }).await.unwrap();
        }
    };
    tokio::join!(telling, writing);
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    world
        .backend
        .handle_in_process(Request::EndSession(EndSession { refresh_token: session.refresh_token }))
        .await
        .unwrap();
    let error = watcher.next().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidSession);
}

impl World {
    /// Updates a user, or deletes the user if there is no update, as the operator of the database
    /// could.
    async fn change_user(&self, session: &Session, update: Option<bson::RawDocumentBuf>) {
        let filter = query::Filter::equals("_id", ObjectId::parse_str(&session.user_id).unwrap());
        let change = update.map_or(store::Change::Delete, |update| store::Change::Update {
            update: query::Update::parse(&update).unwrap(),
            upsert: false,
        });
        let modify = store::Modify::new(filter, false, change);
        let users = Namespace::new("userkeep_test-app", "users");
        let store = self.backend.store();
        let outcomes = store.write(vec![store::Write::new(users, store::Operation::modify(modify))]).await;
        let outcome = outcomes.unwrap().remove(0);
        assert_eq!(outcome.modified + outcome.deleted, 1);
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T>) -> String {
    let error = answer.unwrap_err();
    assert_eq!((error.code, error.code.status()), (ErrorCode::InvalidSession, 401), "{error}");
    error.message.into_owned()
}

#[tokio::test]
async fn requests_of_a_disabled_or_removed_user_are_rejected_within_five_seconds() {
    let disable = || Some(bson::rawdoc! { "$set": { "disabled": true } });
    let gone = |session: &Session| format!("No user found for session for user id {}", session.user_id);
    for change in [disable(), None] {
        let world = World::new();
        world.register("a@example.com", "passw0rd").await.unwrap();
        let session = world.log_in_as("a@example.com", "passw0rd").await.unwrap();
        let message = if change.is_some() { "user disabled".to_owned() } else { gone(&session) };
        let message = format!("invalid session: {message}");
        let token = &session.access.access_token;
        let watch = CallFunction {
            access_token: token.clone(),
            name: "watch".into(),
            arguments: Arguments::Service {
                service: "mongodb-atlas".into(),
                argument: bson::rawdoc! { "database": "custom-user-data-database", "collection": "custom-user-data" },
            },
        };
        let mut watcher = world.backend.watch(watch.clone()).await.unwrap();
        for name in ["find", "count"] {
            world.call(token, name, doc! {}).await.unwrap();
        }
        world.change_user(&session, change.clone()).await;
        // The cache still has the user as enabled, so that not every request reads the user.
        world.pass(3);
        world.call(token, "count", doc! {}).await.unwrap();
        world.call(token, "find", doc! {}).await.unwrap();
        assert_eq!(refused(world.refresh(&session).await), message);
        world.pass(2);
        assert_eq!(refused(world.call(token, "count", doc! {}).await), message);
        assert_eq!(refused(world.call(token, "find", doc! {}).await), message);
        assert_eq!(
            refused(
                world
                    .backend
                    .handle_in_process(Request::ReadProfile(ReadProfile { access_token: token.clone() }))
                    .await
            ),
            message
        );
        assert_eq!(refused(world.backend.watch(watch).await), message);
        world.seed(doc! { "userId": &session.user_id }).await;
        assert_eq!(refused(watcher.next().await), message);

        let log_in = world.log_in_as("a@example.com", "passw0rd").await.unwrap_err();
        if change.is_none() {
            assert_eq!(log_in.code, ErrorCode::InvalidPassword);
            continue;
        }
        assert_eq!(log_in.code, ErrorCode::UserDisabled);
        world.change_user(&session, Some(bson::rawdoc! { "$set": { "disabled": false } })).await;
        world.call(token, "find", doc! {}).await.unwrap();
        world.refresh(&session).await.unwrap();
        // A disabled user may log out.
        world.change_user(&session, disable()).await;
        world
            .backend
            .handle_in_process(Request::EndSession(EndSession { refresh_token: session.refresh_token.clone() }))
            .await
            .unwrap();
        world.change_user(&session, Some(bson::rawdoc! { "$set": { "disabled": false } })).await;
        assert_eq!(refused(world.refresh(&session).await), "invalid session: failed to find refresh token");
    }
}

/// The error of the session is the one returned.
#[tokio::test]
async fn the_error_of_the_first_future_is_returned() {
    let wrong = |message: &'static str| Error::new(ErrorCode::BadRequest, message);
    let late = async |answer: Result<i32>| {
        tokio::task::yield_now().await;
        answer
    };
    assert_eq!(first_decides(late(Ok(1)), async { Ok(2) }).await, Ok((1, 2)));
    assert_eq!(first_decides(late(Ok(1)), async { Err::<i32, _>(wrong("second")) }).await, Err(wrong("second")));
    assert_eq!(
        first_decides(late(Err(wrong("first"))), async { Err::<i32, _>(wrong("second")) }).await,
        Err(wrong("first"))
    );
    let never = std::future::pending::<Result<i32>>();
    assert_eq!(first_decides(late(Err(wrong("first"))), never).await, Err(wrong("first")));
}

#[tokio::test]
async fn an_app_id_that_mongodb_cannot_name_a_database_after_is_rejected_at_once() {
    let mongodb = StoreAddress::MongoDb(Secret::from("mongodb://127.0.0.1:1/".to_owned()));
    let open = |id: &str, address: &StoreAddress| {
        let definition = Definition::development().unwrap();
        Backend::open(id, definition, address, Environment::system(), &Options::default())
    };
    let long = "x".repeat(55);
    for id in ["my app", "my.app", "a/b", "a$b", &long] {
        let error = open(id, &mongodb).unwrap_err().to_string();
        let expected = format!(
            "the app id '{id}' cannot be used with a store on MongoDB: it may have up to 54 bytes there, and no slash,"
        );
        assert!(error.starts_with(&expected), "{error}");
        open(id, &StoreAddress::Memory).unwrap();
    }
    open(&long[1..], &mongodb).unwrap();
}
