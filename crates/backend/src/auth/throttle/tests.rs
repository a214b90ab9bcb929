use std::sync::atomic::AtomicI64;

use bson::DateTime;

use super::*;
use crate::request::{Action, Credentials, ReadProfile, RefreshSession};

/// Enables both supported providers.
fn providers() -> Providers {
    crate::Definition::development().unwrap().providers
}

/// A throttle, and its clock in milliseconds, which only the test advances.
fn throttle() -> (Throttle, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
    let now = Arc::clone(&clock);
    let environment = Environment::with_clock(move || DateTime::from_millis(now.load(Ordering::SeqCst)));
    let store = store::SqliteStore::open(store::Location::Memory, Arc::new(environment.clone())).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    (Throttle::new(environment, &store, "userkeep_test"), clock)
}

fn from(address: &str) -> Origin {
    Origin { address: address.parse().unwrap(), is_shared: false }
}

fn log_in(email: &str) -> Request {
    let credentials = Credentials::email_password(email, "x");
    Request::LogIn(LogIn { credentials, device_id: None })
}

fn refresh() -> Request {
    Request::RefreshSession(RefreshSession { refresh_token: "x".to_owned().into() })
}

fn wrong() -> Result<Response> {
    Err(Error::new(ErrorCode::InvalidPassword, "unauthorized"))
}

fn right() -> Result<Response> {
    let access = crate::response::AccessGrant { access_token: String::new().into(), custom_data: None };
    Ok(Response::Session(crate::response::Session {
        access,
        refresh_token: String::new().into(),
        user_id: String::new(),
        device_id: String::new(),
    }))
}

/// Makes one attempt. Returns the seconds to wait if it is rejected.
async fn attempt(throttle: &Throttle, request: &Request, origin: Origin, answer: Result<Response>) -> Option<u64> {
    match throttle.begin(request, origin, &providers(), false).await {
        Ok(attempt) => attempt.unwrap().settle(answer).await.err().and_then(|error| error.retry_after),
        Err(error) => {
            assert_eq!(error.code.status(), 429);
            error.retry_after
        }
    }
}

/// Returns the number of failures that are allowed before the first wait.
async fn free(throttle: &Throttle, request: impl Fn(usize) -> Request, origin: impl Fn(usize) -> Origin) -> usize {
    for number in 0..1000 {
        if attempt(throttle, &request(number), origin(number), wrong()).await.is_some() {
            return number;
        }
    }
    1000
}

#[tokio::test]
async fn each_failure_doubles_the_wait_up_to_a_maximum() {
    let (throttle, clock) = throttle();
    let origin = from("192.0.2.1");
    assert_eq!(free(&throttle, |_| log_in("a"), |_| origin).await, 6);
    let mut waits = Vec::new();
    for _ in 0..20 {
        let wait = attempt(&throttle, &log_in("a"), origin, wrong()).await.unwrap();
        assert_eq!(attempt(&throttle, &log_in("a"), origin, right()).await, Some(wait), "rejected during the wait");
        waits.push(wait);
        clock.fetch_add(wait as i64 * 1000, Ordering::SeqCst);
        assert_eq!(attempt(&throttle, &log_in("a"), origin, wrong()).await, None);
    }
    assert_eq!(waits[..5], [1, 2, 4, 8, 16]);
    assert_eq!(waits.last(), Some(&300));
    assert!(throttle.refused() >= 40);

    clock.fetch_add(300_000, Ordering::SeqCst);
    assert_eq!(attempt(&throttle, &log_in("a"), origin, right()).await, None);
    assert_eq!(free(&throttle, |_| log_in("a"), |_| origin).await, 6, "a successful log-in resets the count");
    clock.fetch_add(86_400_000, Ordering::SeqCst);
    assert_eq!(free(&throttle, |_| log_in("a"), |_| origin).await, 6, "failures decay");
}

#[tokio::test]
async fn many_accounts_from_one_network_and_one_account_from_many_networks_are_limited() {
    let (many, _) = throttle();
    assert_eq!(free(&many, |number| log_in(&number.to_string()), |_| from("192.0.2.1")).await, 51);
    assert_eq!(
        attempt(&many, &log_in("other"), from("192.0.2.2"), right()).await,
        None,
        "another network is not limited"
    );

    let (one, _) = throttle();
    let anywhere = |number: usize| from(&format!("192.0.2.{number}"));
    assert_eq!(free(&one, |_| log_in("a"), anywhere).await, 21);

    let (six, _) = throttle();
    let within = |number: usize| from(&format!("2001:db8:0:1::{number:x}"));
    assert_eq!(free(&six, |number| log_in(&number.to_string()), within).await, 51, "a /64 is one network");
    assert_eq!(attempt(&six, &log_in("other"), from("2001:db8:0:2::1"), right()).await, None);
    let mapped = |number: usize| from(if number.is_multiple_of(2) { "192.0.2.9" } else { "::ffff:192.0.2.9" });
    assert_eq!(free(&six, |number| log_in(&format!("m{number}")), mapped).await, 51);
}

#[tokio::test]
async fn an_attack_does_not_lock_out_a_user_who_has_logged_in_from_this_network() {
    let (throttle, _) = throttle();
    let home = from("192.0.2.1");
    assert_eq!(attempt(&throttle, &log_in("a"), home, right()).await, None);
    free(&throttle, |_| log_in("a"), |number| from(&format!("198.51.100.{number}"))).await;
    free(&throttle, |number| log_in(&number.to_string()), |_| home).await;
    assert!(attempt(&throttle, &log_in("a"), from("203.0.113.1"), right()).await.is_some(), "other networks must wait");
    assert!(attempt(&throttle, &log_in("b"), home, right()).await.is_some());
    assert_eq!(attempt(&throttle, &log_in("a"), home, right()).await, None);
    // The number of guesses from this network is still limited.
    assert_eq!(free(&throttle, |_| log_in("a"), |_| home).await, 6);
}

#[tokio::test]
async fn a_valid_refresh_token_is_never_rejected_and_invalid_ones_are_counted() {
    let (throttle, _) = throttle();
    let origin = from("192.0.2.1");
    assert_eq!(free(&throttle, |_| refresh(), |_| origin).await, 51);
    assert_eq!(attempt(&throttle, &refresh(), origin, Ok(crate::response::Done.into())).await, None);
    assert!(attempt(&throttle, &refresh(), origin, wrong()).await.is_some());
    assert!(
        throttle
            .begin(
                &Request::ReadProfile(ReadProfile { access_token: "x".to_owned().into() }),
                origin,
                &providers(),
                false
            )
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn new_users_are_limited_per_network() {
    let (throttle, clock) = throttle();
    let request = Request::LogIn(LogIn { credentials: Credentials::anonymous(), device_id: None });
    let origin = from("192.0.2.1");
    let made = async |origin, count: usize| {
        let mut made = 0;
        for _ in 0..count {
            made += usize::from(attempt(&throttle, &request, origin, right()).await.is_none());
        }
        made
    };
    assert_eq!(made(origin, 1000).await, 201);
    for _ in 0..10 {
        clock.fetch_add(5000, Ordering::SeqCst);
        assert_eq!(made(origin, 10).await, 1);
    }
    assert_eq!(made(Origin { is_shared: true, ..origin }, 1000).await, 1000);
}

#[tokio::test]
async fn concurrent_attempts_wait_and_abandoned_attempts_count_as_failures() {
    let (throttle, _) = throttle();
    let origin = from("192.0.2.1");
    let (request, enabled) = (log_in("a"), providers());
    let mut under_way = Vec::new();
    for _ in 0..AT_ONCE {
        under_way.push(throttle.begin(&request, origin, &enabled, false).await.unwrap().unwrap());
    }
    let mut next = Box::pin(throttle.begin(&request, origin, &enabled, false));
    assert!(futures_util::poll!(&mut next).is_pending(), "waits for the results of the others");
    under_way.clear();
    assert!(next.await.is_ok());
    // Four abandoned attempts, and one that was dropped before it started.
    assert_eq!(free(&throttle, |_| log_in("a"), |_| origin).await, 1);
    // Concurrent log-ins with the right password all succeed.
    let honest = log_in("b");
    let all = (0..50).map(|_| attempt(&throttle, &honest, from("192.0.2.7"), right()));
    assert!(futures_util::future::join_all(all).await.iter().all(Option::is_none));
}

#[tokio::test]
async fn an_incomplete_request_is_rejected_before_the_limits_and_not_counted() {
    let (throttle, _) = throttle();
    let origin = from("192.0.2.1");
    let rejected = async |payload: bson::raw::RawDocumentBuf, action: Option<Action>| {
        let provider = protocol::provider::EMAIL_PASSWORD.to_owned();
        let request = match action {
            Some(action) => Request::ProviderAction(ProviderAction { provider, action, payload: payload.into() }),
            None => {
                let credentials = Credentials { provider, payload: payload.into() };
                Request::LogIn(LogIn { credentials, device_id: None })
            }
        };
        throttle.begin(&request, origin, &providers(), false).await.err().map(|error| error.code)
    };
    for _ in 0..100 {
        let of_log_in = rejected(bson::rawdoc! { "username": "a" }, None).await;
        assert_eq!(of_log_in, Some(ErrorCode::MissingParameter));
        let of_action = rejected(bson::rawdoc! { "email": 1 }, Some(Action::Register)).await;
        assert_eq!(of_action, Some(ErrorCode::InvalidParameter));
    }
    assert_eq!(free(&throttle, |_| log_in("a"), |_| origin).await, 6);
}

#[tokio::test]
async fn internal_errors_are_not_counted() {
    let (throttle, _) = throttle();
    for _ in 0..100 {
        let failed = Err(Error::new(ErrorCode::InternalServerError, "internal server error"));
        assert_eq!(attempt(&throttle, &log_in("a"), from("192.0.2.1"), failed).await, None);
    }
}

#[tokio::test]
async fn a_thread_that_ends_is_not_counted() {
    let (throttle, _) = throttle();
    for _ in 0..100 {
        let failed = Err(Error::of_thread("memory limit exceeded"));
        assert_eq!(attempt(&throttle, &log_in("a"), from("192.0.2.1"), failed).await, None);
    }
}

#[tokio::test]
async fn successful_calls_of_hooks_are_limited_per_account_and_network() {
    for action in [Action::CallConfirmation, Action::CallReset] {
        let call = |email: &str| {
            let payload = bson::rawdoc! { "email": email, "password": "passw0rd" };
            Request::ProviderAction(ProviderAction::email_password(action, payload))
        };
        let done = || Ok(crate::response::Done.into());
        let calls = async |throttle: &Throttle, email: &dyn Fn(usize) -> String, address: &dyn Fn(usize) -> String| {
            for number in 0..100 {
                let origin = from(&address(number));
                if attempt(throttle, &call(&email(number)), origin, done()).await.is_some() {
                    return number;
                }
            }
            100
        };
        let (of_account, clock) = throttle();
        let anywhere = |number| format!("192.0.2.{number}");
        assert_eq!(calls(&of_account, &|_| "a".to_owned(), &anywhere).await, 11);
        clock.fetch_add(2000, Ordering::SeqCst);
        assert_eq!(calls(&of_account, &|_| "a".to_owned(), &anywhere).await, 1);
        // The account can still log in.
        assert_eq!(attempt(&of_account, &log_in("a"), from("192.0.2.1"), right()).await, None);
        let (of_place, _) = throttle();
        assert_eq!(calls(&of_place, &|number| number.to_string(), &|_| "192.0.2.1".to_owned()).await, 51);
    }
}
