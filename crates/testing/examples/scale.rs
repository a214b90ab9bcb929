//! Measures a log-in, a refresh and a revocation with few users and sessions, and then with many,
//! on the MongoDB of `MONGODB_URI`: `npm run bench:scale [-- --users 100000 --sessions 1000000]`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::time::Instant;

use backend::{
    Backend, Definition, Environment, Options, Request, Response, Secret, Store, StoreAddress,
    request::{Action, Credentials, EndSession, LogIn, ProviderAction, RefreshSession},
};
use bson::{Binary, DateTime, RawDocumentBuf, oid::ObjectId, rawdoc, spec::BinarySubtype};
use store::{Namespace, Operation, Write};

/// The number of users that log in, refresh and log out for each figure.
const SAMPLES: usize = 60;
const BATCH: usize = 10_000;
const DAY: i64 = 24 * 60 * 60 * 1000;

fn argument(name: &str, usual: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| *argument != format!("--{name}"));
    arguments.nth(1).map_or(usual, |value| value.parse().unwrap())
}

async fn fill(store: &dyn Store, namespace: &Namespace, count: usize, make: impl Fn(usize) -> RawDocumentBuf) {
    let begun = Instant::now();
    for start in (0..count).step_by(BATCH) {
        let documents = (start..count.min(start + BATCH)).map(&make).collect();
        let write = Write::new(namespace.clone(), Operation::Insert(documents));
        store.write(vec![write]).await.unwrap();
    }
    println!("{count} {} in {:.0} s", namespace.collection, begun.elapsed().as_secs_f64());
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Returns the medians of a log-in, a refresh and a revocation in milliseconds.
async fn measure(backend: &Backend) -> [f64; 3] {
    let mut times = [const { Vec::new() }; 3];
    for number in 0..SAMPLES {
        let mut timed = async |place: usize, request: Request| {
            let begun = Instant::now();
            let response = backend.handle_in_process(request).await.unwrap();
            times[place].push(begun.elapsed().as_secs_f64() * 1000.0);
            response
        };
        let email = format!("sample{}@example.com", number % 10);
        let credentials = Credentials::email_password(&email, "passw0rd");
        let log_in = Request::LogIn(LogIn { credentials, device_id: None });
        let Response::Session(session) = timed(0, log_in).await else { panic!("no session") };
        let refresh_token: Secret = session.refresh_token;
        timed(1, RefreshSession { refresh_token: refresh_token.clone() }.into()).await;
        timed(2, EndSession { refresh_token }.into()).await;
    }
    times.map(median)
}

#[tokio::main]
async fn main() {
    let (users, sessions) = (argument("users", 100_000), argument("sessions", 1_000_000));
    let uri = std::env::var("MONGODB_URI").unwrap_or_else(|_| panic!("set MONGODB_URI to a MongoDB-compatible server"));
    let app = format!("scale_{}", ObjectId::new().to_hex());
    let open = Backend::open(
        &app,
        Definition::development().unwrap(),
        &StoreAddress::MongoDb(uri.into()),
        Environment::system(),
        &Options::default(),
    );
    let backend = open.unwrap();
    for number in 0..10 {
        let email = format!("sample{number}@example.com");
        let register = rawdoc! { "email": email, "password": "passw0rd" };
        let register = ProviderAction::email_password(Action::Register, register);
        backend.handle_in_process(register.into()).await.unwrap();
    }
    let few = measure(&backend).await;

    let store = backend.store();
    let database = format!("userkeep_{app}");
    let user_ids: Vec<ObjectId> = (0..users).map(|_| ObjectId::new()).collect();
    fill(&*store, &Namespace::new(&database, "users"), users, |number| {
        rawdoc! {
            "_id": user_ids[number],
            "type": "normal",
            "identities": [{ "id": ObjectId::new().to_hex(), "provider_type": "local-userpass", "key": format!("local-userpass:user{number}@example.com") }],
            "data": { "email": format!("user{number}@example.com") },
            "disabled": false,
            "created_at": DateTime::now(),
        }
    })
    .await;
    let now = DateTime::now().timestamp_millis();
    fill(&*store, &Namespace::new(&database, "sessions"), sessions, |number| {
        rawdoc! {
            "_id": ObjectId::new(),
            "user_id": user_ids[number % users],
            "provider_type": "local-userpass",
            "device_id": ObjectId::new().to_hex(),
            "refresh_token_hash": Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 32] },
            "created_at": DateTime::from_millis(now),
            "expires_at": DateTime::from_millis(now + 60 * DAY),
        }
    })
    .await;
    let many = measure(&backend).await;
    println!("\nmilliseconds at the median      few    {users} users, {sessions} sessions");
    for (place, name) in ["log-in (argon2 in it)", "refresh", "revocation"].iter().enumerate() {
        println!("{name:<28}{:>7.2} {:>9.2}", few[place], many[place]);
    }
    println!("\nthe plan of each query");
    for (query, explanation) in backend.explain_queries().await.unwrap() {
        let index = explanation.index.unwrap_or_else(|| "_id_".to_owned());
        println!("{:<44}{:<8}{index:<20}{} examined", query.name, explanation.stage, explanation.examined);
    }
    backend.close().await;
}
