#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bson::{Document, doc};
use futures_util::future::{BoxFuture, FutureExt};

use super::*;
use crate::{
    UserSubscription,
    connection::{Embedded, EventStream, StoreAddress},
};
use backend::{Request, request::Action};

/// A backend in memory with simulated failures: unreachable, or rejecting the access token.
#[derive(Debug)]
struct Moody {
    inner: Embedded,
    unreachable: AtomicBool,
    rejects_access: AtomicBool,
    refreshes: AtomicUsize,
    /// The number of refreshes that fail as interrupted.
    loses_refreshes: AtomicUsize,
    requests: AtomicUsize,
    loses_profiles: AtomicBool,
    /// Interrupts all open streams.
    cut: tokio::sync::watch::Sender<()>,
}

/// A stream that can be interrupted.
#[derive(Debug)]
struct Cut {
    stream: Box<dyn EventStream>,
    cut: tokio::sync::watch::Receiver<()>,
}

impl EventStream for Cut {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        async move {
            let next = std::pin::pin!(self.stream.next());
            match futures_util::future::select(std::pin::pin!(self.cut.changed()), next).await {
                futures_util::future::Either::Left(_) => Err(Error::interrupted("cut", None)),
                futures_util::future::Either::Right((events, _)) => events,
            }
        }
        .boxed()
    }

    fn position(&self) -> Option<RawDocumentBuf> {
        self.stream.position()
    }
}

impl Connection for Moody {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        async move {
            self.requests.fetch_add(1, Ordering::SeqCst);
            if self.unreachable.load(Ordering::SeqCst) {
                return Err(Error::custom("unreachable"));
            }
            match &request {
                Request::RefreshSession(_) if self.loses_refreshes.load(Ordering::SeqCst) > 0 => {
                    self.loses_refreshes.fetch_sub(1, Ordering::SeqCst);
                    return Err(Error::interrupted("unreachable", None));
                }
                Request::RefreshSession(_) => {
                    self.refreshes.fetch_add(1, Ordering::SeqCst);
                    self.rejects_access.store(false, Ordering::SeqCst);
                }
                Request::ReadProfile(_) if self.loses_profiles.load(Ordering::SeqCst) => {
                    return Err(Error::custom("unreachable"));
                }
                Request::CallFunction(_) if self.rejects_access.load(Ordering::SeqCst) => {
                    // Other calls get here before the first one refreshes.
                    tokio::task::yield_now().await;
                    return Err(Error { unauthorized: true, ..Error::custom("expired") });
                }
                _ => {}
            }
            self.inner.send(request).await
        }
        .boxed()
    }

    fn watch(&self, call: CallFunction) -> BoxFuture<'_, Result<Box<dyn EventStream>>> {
        async move {
            if self.unreachable.load(Ordering::SeqCst) {
                return Err(Error::interrupted("unreachable", None));
            }
            if self.rejects_access.load(Ordering::SeqCst) {
                return Err(Error { unauthorized: true, ..Error::custom("expired") });
            }
            let stream = self.inner.watch(call).await?;
            Ok(Box::new(Cut { stream, cut: self.cut.subscribe() }) as Box<dyn EventStream>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn moody() -> Arc<Moody> {
    Arc::new(Moody {
        inner: Embedded::open("test-app", None, &StoreAddress::Memory, &backend::Options::default()).unwrap(),
        unreachable: AtomicBool::new(false),
        rejects_access: AtomicBool::new(false),
        refreshes: AtomicUsize::new(0),
        loses_refreshes: AtomicUsize::new(0),
        requests: AtomicUsize::new(0),
        loses_profiles: AtomicBool::new(false),
        cut: tokio::sync::watch::Sender::default(),
    })
}

fn open(connection: &Arc<Moody>, path: Option<PathBuf>, metadata: &Metadata) -> Result<App> {
    App::open(Settings::new(Arc::clone(connection) as Arc<dyn Connection>, path, metadata)?)
}

async fn email_user(app: &App, email: &str) -> Handle {
    app.act(ProviderAction::email_password(Action::Register, bson::rawdoc! { "email": email, "password": "passw0rd" }))
        .await
        .unwrap();
    app.log_in(Credentials::email_password(email, "passw0rd"), true).await.unwrap()
}

fn follow(app: &App, user: Handle) -> UserSubscription {
    let arguments = doc! { "database": "custom-user-data-database", "collection": "custom-user-data" };
    app.watching(user, "mongodb-atlas".into(), RawDocumentBuf::try_from(arguments).unwrap())
}

/// Returns the `n` of the documents of the next `count` events; `None` if the stream has ended.
async fn numbers(app: &App, watching: &mut UserSubscription, count: usize) -> Option<Vec<i32>> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), app.next_events(watching)).await;
        for event in next.unwrap().unwrap()? {
            numbers.push(event.get_document("fullDocument").unwrap().get_i32("n").unwrap());
        }
    }
    Some(numbers)
}

async fn insert(app: &App, user: Handle, document: Document) -> Result<RawBson> {
    let arguments =
        doc! { "database": "custom-user-data-database", "collection": "custom-user-data", "document": document };
    app.call_function(
        user,
        "insertOne".into(),
        Arguments::Service { service: "mongodb-atlas".into(), argument: RawDocumentBuf::try_from(arguments).unwrap() },
    )
    .await
}

#[tokio::test]
async fn logs_out_locally_before_the_backend_responds() {
    let connection = moody();
    let app = open(&connection, None, &Metadata::InMemory).unwrap();
    let user = email_user(&app, "a@example.com").await;
    app.take_events();
    connection.unreachable.store(true, Ordering::SeqCst);
    let mut log_out = Box::pin(app.log_out(user));
    assert!(futures_util::poll!(&mut log_out).is_pending());
    assert_eq!(app.user_state(user).unwrap(), UserState::LoggedOut);
    assert_eq!((app.current_user(), app.user(user).unwrap().access_token), (None, String::new()));
    assert_eq!(app.take_events(), [Event::User(user)]);
    assert!(log_out.await.is_err());
    assert_eq!(app.take_events(), [], "the app gets an event only when the session has ended");
    assert_eq!(app.log_out(user).await, Ok(()), "a second log-out does nothing");
}

#[tokio::test]
async fn emits_as_many_events_as_the_sdk() {
    let app = open(&moody(), None, &Metadata::InMemory).unwrap();
    let events = || app.take_events();
    let one = email_user(&app, "a@example.com").await;
    assert_eq!(events().iter().filter(|event| **event == Event::App).count(), 1);
    let two = app.log_in(Credentials::anonymous(), true).await.unwrap();
    events();
    assert_eq!(app.log_in(Credentials::anonymous(), true).await.unwrap(), two);
    assert_eq!(events(), [Event::App]);
    app.switch_user(one).unwrap();
    assert_eq!(events(), [Event::App]);
    app.refresh_custom_data(one).await.unwrap();
    assert_eq!(events(), [Event::User(one)]);
    app.log_out(one).await.unwrap();
    assert_eq!(events(), [Event::User(one), Event::App]);
    assert_eq!(app.current_user(), Some(two));
    app.remove_user(one).await.unwrap();
    assert_eq!(events(), [Event::User(one)]);
    app.delete_user(two).await.unwrap();
    assert_eq!(events(), [Event::App]);
    assert_eq!(app.all_users(), []);
}

#[tokio::test]
async fn users_log_in_and_out_as_in_the_sdk() {
    let app = open(&moody(), None, &Metadata::InMemory).unwrap();
    let anonymous = app.log_in(Credentials::anonymous(), true).await.unwrap();
    let other = app.log_in(Credentials::anonymous(), false).await.unwrap();
    assert_ne!(anonymous, other);
    let named = email_user(&app, "a@example.com").await;
    let id = app.user(named).unwrap().id;

    app.log_out(other).await.unwrap();
    assert_eq!(app.user_state(other).unwrap(), UserState::Removed, "an anonymous user is removed");
    app.log_out(named).await.unwrap();
    assert_eq!(app.all_users().len(), 2);
    assert_eq!(app.switch_user(named).unwrap_err().message, "User is no longer valid or is logged out");
    assert_eq!(app.delete_user(named).await.unwrap_err().code, 4101);
    assert_eq!(app.refresh_custom_data(named).await.unwrap_err().message, "The user is not logged in");

    let again = Credentials::email_password("a@example.com", "passw0rd");
    assert_eq!(app.log_in(again.clone(), true).await.unwrap(), named, "a known user keeps the handle");
    app.remove_user(named).await.unwrap();
    assert_eq!(app.remove_user(named).await.unwrap_err().message, "User has already been removed");
    let back = app.log_in(again, true).await.unwrap();
    assert_ne!(back, named);
    assert_eq!((app.user(back).unwrap().id, app.user_state(named).unwrap()), (id, UserState::Removed));
}

#[tokio::test]
async fn calls_that_fail_together_refresh_once_and_are_retried() {
    let connection = moody();
    let app = open(&connection, None, &Metadata::InMemory).unwrap();
    let user = app.log_in(Credentials::anonymous(), true).await.unwrap();
    let id = app.user(user).unwrap().id;
    connection.rejects_access.store(true, Ordering::SeqCst);
    let (one, two) = tokio::join!(
        insert(&app, user, doc! { "userId": &id, "n": 1 }),
        insert(&app, user, doc! { "userId": &id, "n": 2 })
    );
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(connection.refreshes.load(Ordering::SeqCst), 1);
    assert_eq!(app.custom_data(user).unwrap(), None, "the refresh precedes the inserts");
    app.refresh_custom_data(user).await.unwrap();
    assert!(app.custom_data(user).unwrap().is_some());
}

#[tokio::test]
async fn a_silent_refresh_takes_another_turn() {
    let connection = moody();
    let app = open(&connection, None, &Metadata::InMemory).unwrap();
    let user = app.log_in(Credentials::anonymous(), true).await.unwrap();
    app.take_events();
    let asked = AtomicUsize::new(0);
    let ask = |_| {
        let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        let expired = || Error { unauthorized: true, ..Error::custom("expired") };
        async move { if is_first { Err(expired()) } else { Ok(()) } }.boxed()
    };
    let mut call = Box::pin(app.with_access_token(user, ask));
    assert!(futures_util::poll!(&mut call).is_pending());
    assert_eq!(app.take_events(), [], "listeners get the event later");
    call.await.unwrap();
    assert_eq!(app.take_events(), [Event::User(user)]);
}

#[tokio::test]
async fn a_call_fails_with_its_own_error_if_the_session_has_ended() {
    let connection = moody();
    let app = open(&connection, None, &Metadata::InMemory).unwrap();
    let user = app.log_in(Credentials::anonymous(), true).await.unwrap();
    let refresh_token = app.user(user).unwrap().refresh_token;
    connection.inner.send(Request::EndSession(EndSession { refresh_token: refresh_token.into() })).await.unwrap();
    let error = insert(&app, user, doc! {}).await.unwrap_err();
    assert!(error.message.contains("No user found for session"), "{error}");
    assert_eq!(app.user_state(user).unwrap(), UserState::LoggedIn, "only the user decides to log out");
}

#[tokio::test]
async fn restores_users_and_shares_the_file_between_processes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep/test-app.session");
    let connection = moody();
    let app = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    let also = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    assert!(!path.exists());
    let one = email_user(&app, "a@example.com").await;
    let two = email_user(&also, "b@example.com").await;
    let three = app.log_in(Credentials::anonymous(), true).await.unwrap();
    insert(&app, one, doc! { "userId": app.user(one).unwrap().id, "color": "blue" }).await.unwrap();
    app.switch_user(one).unwrap();
    app.refresh_custom_data(one).await.unwrap();
    app.remove_user(three).await.unwrap();
    also.log_out(two).await.unwrap();
    app.close().await;

    let reopened = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    let users: Vec<_> =
        reopened.all_users().into_iter().map(|(handle, id)| (id, reopened.user_state(handle).unwrap())).collect();
    assert_eq!(
        users,
        [(app.user(one).unwrap().id, UserState::LoggedIn), (also.user(two).unwrap().id, UserState::LoggedOut)]
    );
    let current = reopened.current_user().unwrap();
    assert_eq!(reopened.user(current).unwrap().access_token, app.user(one).unwrap().access_token);
    assert_eq!(reopened.custom_data(current).unwrap().unwrap().get_str("color").unwrap(), "blue");
    assert_eq!(reopened.profile(current).unwrap().get_str("email").unwrap(), "a@example.com");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pending_refresh_does_not_undo_a_log_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test-app.session");
    let connection = moody();
    for round in 0..30 {
        let app = Arc::new(open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap());
        let user = app.log_in(Credentials::anonymous(), true).await.unwrap();
        app.take_events();
        // Neither change can be written yet, so either may be written last.
        let held = files::Lock::acquire(&path, Duration::ZERO).unwrap();
        let refreshing = Arc::clone(&app);
        let refresh = tokio::spawn(async move { refreshing.refresh_custom_data(user).await });
        while app.take_events().is_empty() {
            tokio::task::yield_now().await;
        }
        let leaving = Arc::clone(&app);
        let log_out = tokio::spawn(async move { leaving.log_out(user).await });
        while app.user_state(user).unwrap() == UserState::LoggedIn {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        drop(held);
        refresh.await.unwrap().unwrap();
        log_out.await.unwrap().unwrap();
        let reopened = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
        assert_eq!(reopened.all_users(), [], "round {round}");
        app.write_snapshots(EXIT_TIMEOUT);
        let reopened = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
        assert_eq!(reopened.all_users(), [], "round {round}, with the snapshot written");
    }
}

/// Returns the number of times that an app has written its session file.
fn writes(app: &App) -> usize {
    app.session_file.as_ref().unwrap().writes.load(Ordering::SeqCst)
}

/// Returns the `n` of the current user's custom data, as an app opened now shows it.
fn kept_number(connection: &Arc<Moody>, path: &std::path::Path) -> Option<i32> {
    let reopened = open(connection, Some(path.to_owned()), &Metadata::NoEncryption).unwrap();
    let data = reopened.custom_data(reopened.current_user().unwrap()).unwrap();
    data.map(|data| data.get_i32("n").unwrap())
}

/// Opens an app with a session file. The next refresh of its user returns `n: 1` in the custom
/// data.
async fn with_custom_data(connection: &Arc<Moody>, path: &std::path::Path) -> (App, Handle) {
    let app = open(connection, Some(path.to_owned()), &Metadata::NoEncryption).unwrap();
    let user = email_user(&app, "a@example.com").await;
    insert(&app, user, doc! { "userId": app.user_id(user).unwrap(), "n": 1 }).await.unwrap();
    (app, user)
}

#[tokio::test]
async fn a_log_in_writes_the_file_once_even_without_a_profile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test-app.session");
    let connection = moody();
    let app = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    email_user(&app, "a@example.com").await;
    assert_eq!(writes(&app), 1);
    connection.loses_profiles.store(true, Ordering::SeqCst);
    assert_eq!(app.log_in(Credentials::anonymous(), false).await.unwrap_err().message, "unreachable");
    assert_eq!(writes(&app), 2);
    let reopened = open(&connection, Some(path), &Metadata::NoEncryption).unwrap();
    let states: Vec<_> = reopened.all_users().iter().map(|(handle, _)| reopened.user_state(*handle).unwrap()).collect();
    assert_eq!(states, [UserState::LoggedIn, UserState::LoggedIn]);
}

#[tokio::test]
async fn refreshes_are_written_later_in_one_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test-app.session");
    let connection = moody();
    let (app, user) = with_custom_data(&connection, &path).await;
    let other = app.log_in(Credentials::anonymous(), true).await.unwrap();
    app.switch_user(user).unwrap();
    let before = writes(&app);
    for _ in 0..20 {
        app.refresh_custom_data(other).await.unwrap();
        app.refresh_custom_data(user).await.unwrap();
    }
    assert!(writes(&app) <= before + 1, "{} writes", writes(&app) - before);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while kept_number(&connection, &path).is_none() {
        assert!(std::time::Instant::now() < deadline, "the snapshot is not written");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Nothing has changed since.
    app.write_snapshots(EXIT_TIMEOUT);
    assert!(writes(&app) <= before + 2, "{} writes", writes(&app) - before);
}

#[tokio::test]
async fn refreshes_are_written_when_the_app_closes_or_is_dropped() {
    for closes in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test-app.session");
        let connection = moody();
        let (app, user) = with_custom_data(&connection, &path).await;
        app.refresh_custom_data(user).await.unwrap();
        if closes {
            app.close().await;
            assert_eq!(kept_number(&connection, &path), Some(1));
        }
        drop(app);
        assert_eq!(kept_number(&connection, &path), Some(1));
    }
}

#[tokio::test]
async fn a_refresh_does_not_restore_sessions_or_directories_removed_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep/test-app.session");
    let connection = moody();
    let (app, user) = with_custom_data(&connection, &path).await;
    let also = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    app.refresh_custom_data(user).await.unwrap();
    also.log_out(also.current_user().unwrap()).await.unwrap();
    app.write_snapshots(EXIT_TIMEOUT);
    let reopened = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    let (handle, _) = reopened.all_users()[0];
    assert_eq!(
        (reopened.user_state(handle).unwrap(), reopened.custom_data(handle).unwrap()),
        (UserState::LoggedOut, None)
    );

    let credentials = Credentials::email_password("a@example.com", "passw0rd");
    let user = app.log_in(credentials, true).await.unwrap();
    app.refresh_custom_data(user).await.unwrap();
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    app.close().await;
    assert!(!path.parent().unwrap().exists(), "a removed directory is not created again");
}

#[tokio::test]
async fn a_failed_write_of_a_snapshot_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test-app.session");
    let connection = moody();
    let (app, user) = with_custom_data(&connection, &path).await;
    app.refresh_custom_data(user).await.unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    app.write_snapshots(EXIT_TIMEOUT);
    assert_eq!(std::fs::read(&path).unwrap(), b"damaged", "a damaged file stays unchanged");
    std::fs::write(&path, bytes).unwrap();
    app.write_snapshots(EXIT_TIMEOUT);
    assert_eq!(kept_number(&connection, &path), Some(1));
}

#[tokio::test]
async fn an_encrypted_file_reveals_no_token_and_opens_only_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test-app.session");
    let connection = moody();
    let key = |byte| Metadata::Encryption(vec![byte; 64]);
    let app = open(&connection, Some(path.clone()), &key(1)).unwrap();
    let user = email_user(&app, "a@example.com").await;
    let bytes = std::fs::read(&path).unwrap();
    let token = app.user(user).unwrap().refresh_token;
    assert!(!bytes.windows(16).any(|window| window == &token.as_bytes()[..16]));

    assert_eq!(open(&connection, Some(path.clone()), &key(1)).unwrap().all_users().len(), 1);
    for (metadata, says) in [
        (key(2), "is not the one"),
        (Metadata::NoEncryption, "no encryption key"),
        (Metadata::Encryption(vec![1; 63]), "64 bytes"),
    ] {
        let error = open(&connection, Some(path.clone()), &metadata).unwrap_err();
        assert!(error.message.contains(says), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the file stays unchanged");
    }
    assert_eq!(open(&connection, Some(path), &Metadata::InMemory).unwrap().all_users().len(), 0);
}

#[tokio::test]
async fn an_interrupted_stream_resumes_where_it_was() {
    let connection = moody();
    let app = open(&connection, None, &Metadata::InMemory).unwrap();
    let user = email_user(&app, "a@example.com").await;
    let add = async |n: i32| insert(&app, user, doc! { "userId": app.user_id(user).unwrap(), "n": n }).await.unwrap();
    let mut watching = follow(&app, user);
    assert!(futures_util::poll!(Box::pin(app.next_events(&mut watching))).is_pending());
    add(1).await;
    assert_eq!(numbers(&app, &mut watching, 1).await, Some(vec![1]));
    // There was no event since, and the backend is unreachable for a while.
    connection.cut.send_replace(());
    connection.unreachable.store(true, Ordering::SeqCst);
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), app.next_events(&mut watching)).await;
    assert!(waiting.is_err(), "the stream keeps trying");
    connection.unreachable.store(false, Ordering::SeqCst);
    add(2).await;
    add(3).await;
    connection.rejects_access.store(true, Ordering::SeqCst);
    connection.loses_refreshes.store(1, Ordering::SeqCst);
    assert_eq!(numbers(&app, &mut watching, 2).await, Some(vec![2, 3]));
    assert!(connection.refreshes.load(Ordering::SeqCst) > 0, "a new access token was requested");
}

#[tokio::test]
async fn a_stream_ends_when_its_user_leaves_and_when_the_app_is_closed() {
    let connection = moody();
    let app = open(&connection, None, &Metadata::InMemory).unwrap();
    let user = email_user(&app, "a@example.com").await;
    let other = app.log_in(Credentials::anonymous(), true).await.unwrap();
    let (mut of_user, mut of_other) = (follow(&app, user), follow(&app, other));
    let (ended, ()) = futures_util::future::join(app.next_events(&mut of_user), async {
        assert!(futures_util::poll!(Box::pin(app.next_events(&mut of_other))).is_pending());
        app.log_out(user).await.unwrap();
        // The stream stays ended after the user logs in again.
        app.log_in(Credentials::email_password("a@example.com", "passw0rd"), true).await.unwrap();
    })
    .await;
    assert_eq!(ended, Ok(None));
    assert_eq!(app.next_events(&mut of_user).await, Ok(None));
    assert!(futures_util::poll!(Box::pin(app.next_events(&mut of_other))).is_pending());
    app.log_out(user).await.unwrap();
    let error = app.next_events(&mut follow(&app, user)).await.unwrap_err();
    assert_eq!(error.message, "Request failed: Unauthorized (401)");
    let (ended, ()) = futures_util::future::join(app.next_events(&mut of_other), app.close()).await;
    assert_eq!(ended, Ok(None));
}

/// Another process, or a copy of the directory on another system, may hold the lock for ever.
#[tokio::test]
async fn a_process_that_ends_waits_for_the_lock_of_the_session_file_up_to_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test-app.session");
    let connection = moody();
    let (app, user) = with_custom_data(&connection, &path).await;
    app.refresh_custom_data(user).await.unwrap();
    let held = files::Lock::acquire(&path, Duration::ZERO).unwrap();
    let begun = std::time::Instant::now();
    app.write_snapshots(Duration::from_millis(100));
    // The snapshots are given up, so dropping the app does not wait again.
    drop(app);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(held);
    assert_eq!(kept_number(&connection, &path), None);

    // While a write waits for the lock, the end of the process does not wait for that write.
    let path = directory.path().join("other-app.session");
    let app = open(&connection, Some(path.clone()), &Metadata::NoEncryption).unwrap();
    let user = app.log_in(Credentials::anonymous(), true).await.unwrap();
    app.refresh_custom_data(user).await.unwrap();
    let held = files::Lock::acquire(&path, Duration::ZERO).unwrap();
    let snapshots = app.snapshots.clone().unwrap();
    let waiting = std::thread::spawn(move || snapshots.write(Duration::from_secs(1)));
    std::thread::sleep(Duration::from_millis(100));
    let begun = std::time::Instant::now();
    app.write_snapshots(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    let error = waiting.join().unwrap().unwrap_err();
    assert!(error.message.contains("cannot be written: another process has held the lock"), "{}", error.message);
    drop(held);
}
