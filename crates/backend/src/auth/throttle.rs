//! The back-off for whoever asks over a network: who fails has to wait before asking again, longer each time, but never
//! longer than a bound; what was counted is forgotten with time. Counted are an account from one place, an account from
//! anywhere, and a place. A place from which an account has logged in before is not held up by what others do to that
//! account, or from that place, so that an attack locks nobody out.
//!
//! Kept in memory, bounded: each node counts for itself.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use query::Environment as _;
use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Environment, Error, ErrorCode, Result,
    request::{Credentials, EmailPasswordRequest, LogIn, Request, Response},
};

/// How many accounts and places are remembered; beyond it, those that were not seen for longest are forgotten.
const REMEMBERED: usize = 100_000;

/// How many passwords of one account are checked at the same time for one place; further ones wait for what those come to.
const AT_ONCE: usize = 4;

/// When who asks has to wait.
struct Limit {
    /// How much is free.
    free: f64,
    /// The wait after the first beyond that, doubled with each further one, in seconds.
    first_wait: f64,
    /// The longest wait, in seconds.
    longest_wait: f64,
    /// One is forgotten each so many seconds.
    forgotten_each: f64,
}

/// Failures with one account from one place.
const ACCOUNT_HERE: Limit = Limit { free: 5.0, first_wait: 1.0, longest_wait: 300.0, forgotten_each: 300.0 };

/// Failures with one account from anywhere.
const ACCOUNT: Limit = Limit { free: 20.0, first_wait: 1.0, longest_wait: 60.0, forgotten_each: 60.0 };

/// Failures from one place, which may be a whole company's.
const PLACE: Limit = Limit { free: 50.0, first_wait: 1.0, longest_wait: 60.0, forgotten_each: 10.0 };

/// Users made from one place.
const NEW_USERS: Limit = Limit { free: 200.0, first_wait: 1.0, longest_wait: 5.0, forgotten_each: 5.0 };

/// Where a request comes from over a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// Whether many people make their requests from there, as from the application's own servers: it is then only an
    /// account that has to wait.
    pub is_shared: bool,
}

impl Origin {
    /// The address as far as one client cannot have many of it: of IPv6 the /64.
    pub fn place(&self) -> IpAddr {
        Place::from(self.address).0
    }
}

/// An address as far as one client cannot have many of it: of IPv6 the /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place(IpAddr);

impl From<IpAddr> for Place {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        })
    }
}

/// An account, by a hash that nobody outside can make.
type Account = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    AccountHere(Account, Place),
    Account(Account),
    Place(Place),
    NewUsers(Place),
}

impl Key {
    fn limit(self) -> &'static Limit {
        match self {
            Self::AccountHere(..) => &ACCOUNT_HERE,
            Self::Account(_) => &ACCOUNT,
            Self::Place(_) => &PLACE,
            Self::NewUsers(_) => &NEW_USERS,
        }
    }
}

/// What one key has come to.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    counted: f64,
    /// Milliseconds since the Unix epoch.
    at: i64,
    wait_until: i64,
}

impl Level {
    /// How long to wait still, in milliseconds.
    fn wait(&self, limit: &Limit, now: i64) -> i64 {
        // A clock that was set back makes nobody wait longer than the longest.
        (self.wait_until - now).clamp(0, (limit.longest_wait * 1000.0) as i64)
    }

    fn count(&mut self, limit: &Limit, now: i64) {
        let elapsed = (now - self.at).max(0) as f64 / 1000.0;
        self.counted = (self.counted - elapsed / limit.forgotten_each).max(0.0) + 1.0;
        self.at = now;
        let beyond = (self.counted - limit.free).ceil();
        if beyond > 0.0 {
            let wait = (limit.first_wait * (beyond - 1.0).min(32.0).exp2()).min(limit.longest_wait);
            self.wait_until = now + (wait * 1000.0) as i64;
        }
    }
}

struct Entry {
    level: Mutex<Level>,
    gate: Arc<Semaphore>,
}

impl Entry {
    fn level(&self) -> std::sync::MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is counted, and who has to wait.
pub(crate) struct Throttle {
    entries: Cache<Key, Arc<Entry>>,
    /// From where an account has logged in.
    known: Cache<(Account, Place), ()>,
    hasher: RandomState,
    environment: Environment,
    /// How many requests were refused.
    refused: AtomicU64,
}

/// What a request may use up.
struct Counted {
    account: Option<Account>,
    makes_user: bool,
    /// Whether to refuse before it is looked at. A token that is genuine is never refused for the sake of others.
    refuse_first: bool,
}

/// A request that is under way. If it is dropped, as when its client goes away, it has failed.
pub(crate) struct Attempt<'a> {
    throttle: &'a Throttle,
    origin: Origin,
    counted: Counted,
    settled: bool,
    _gate: Option<OwnedSemaphorePermit>,
}

impl Throttle {
    pub(crate) fn new(environment: Environment) -> Self {
        Self {
            entries: Cache::new(REMEMBERED),
            known: Cache::new(REMEMBERED),
            hasher: RandomState::new(),
            environment,
            refused: AtomicU64::new(0),
        }
    }

    /// How many requests were refused since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn now(&self) -> i64 {
        self.environment.now().timestamp_millis()
    }

    fn entry(&self, key: Key) -> Arc<Entry> {
        let make = || Ok(Arc::new(Entry { level: Mutex::default(), gate: Arc::new(Semaphore::new(AT_ONCE)) }));
        self.entries.get_or_insert_with(&key, make).unwrap_or_else(|never: std::convert::Infallible| match never {})
    }

    /// Lets a request begin, or says how long to wait. `None` for a request that is not limited.
    pub(crate) async fn begin(&self, request: &Request, origin: Origin) -> Result<Option<Attempt<'_>>> {
        let Some(counted) = self.counted(request) else { return Ok(None) };
        let mut attempt = Attempt { throttle: self, origin, counted, settled: true, _gate: None };
        if attempt.counted.refuse_first {
            if let Some(account) = attempt.counted.account {
                let gate = Arc::clone(&self.entry(Key::AccountHere(account, origin.address.into())).gate);
                attempt._gate = gate.acquire_owned().await.ok();
            }
            attempt.check()?;
        }
        attempt.settled = false;
        Ok(Some(attempt))
    }

    fn counted(&self, request: &Request) -> Option<Counted> {
        let account = |name: &str| Some(self.hasher.hash_one(name));
        let (account, makes_user, refuse_first) = match request {
            Request::LogIn(LogIn { credentials: Credentials::Anonymous, .. }) => (None, true, true),
            Request::LogIn(LogIn { credentials: Credentials::EmailPassword { email, .. }, .. }) => {
                (account(email), false, true)
            }
            Request::LogIn(LogIn { credentials: Credentials::Other(_), .. }) => (None, false, true),
            Request::EmailPassword(request) => match request {
                EmailPasswordRequest::Register { email, .. } => (account(email), true, true),
                EmailPasswordRequest::ResendConfirmation { email }
                | EmailPasswordRequest::RetryCustomConfirmation { email }
                | EmailPasswordRequest::SendReset { email }
                | EmailPasswordRequest::CallResetFunction { email } => (account(email), false, true),
                EmailPasswordRequest::Confirm | EmailPasswordRequest::Reset => (None, false, true),
            },
            Request::RefreshSession { .. } => (None, false, false),
            _ => return None,
        };
        Some(Counted { account, makes_user, refuse_first })
    }

    fn refuse(&self, wait: i64) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let seconds = wait.max(1).unsigned_abs().div_ceil(1000);
        Error::retry_later(format!("too many attempts; try again in {seconds} s"), seconds)
    }
}

impl Attempt<'_> {
    /// What has to be free for the request, and what a failure is counted for.
    fn failures(&self) -> impl Iterator<Item = Key> {
        let place = Place::from(self.origin.address);
        let account = self.counted.account;
        let is_known = account.is_some_and(|account| self.throttle.known.get(&(account, place)).is_some());
        let here = account.map(|account| Key::AccountHere(account, place));
        let anywhere = account.filter(|_| !is_known).map(Key::Account);
        let place = (!is_known && !self.origin.is_shared).then_some(Key::Place(place));
        [here, anywhere, place].into_iter().flatten()
    }

    fn new_users(&self) -> Option<Key> {
        (self.counted.makes_user && !self.origin.is_shared).then(|| Key::NewUsers(self.origin.address.into()))
    }

    fn check(&self) -> Result<()> {
        let now = self.throttle.now();
        let wait = |key: Key| match self.throttle.entries.get(&key) {
            Some(entry) => entry.level().wait(key.limit(), now),
            None => 0,
        };
        match self.failures().chain(self.new_users()).map(wait).max() {
            Some(wait) if wait > 0 => Err(self.throttle.refuse(wait)),
            _ => Ok(()),
        }
    }

    fn count(&self, keys: impl Iterator<Item = Key>) {
        let now = self.throttle.now();
        for key in keys {
            self.throttle.entry(key).level().count(key.limit(), now);
        }
    }

    /// Counts what the request came to. A failed refresh of who has failed too often is told to wait.
    pub(crate) fn settle(mut self, answer: Result<Response>) -> Result<Response> {
        self.settled = true;
        match &answer {
            Ok(_) => {
                self.count(self.new_users().into_iter());
                if let (Some(account), Ok(Response::Session(_))) = (self.counted.account, &answer) {
                    let place = Place::from(self.origin.address);
                    self.throttle.known.insert((account, place), ());
                    self.throttle.entries.remove(&Key::AccountHere(account, place));
                }
            }
            // Not the client's doing.
            Err(error) if matches!(error.code, ErrorCode::InternalServerError | ErrorCode::AppServerError) => {}
            Err(_) => {
                let refused = if self.counted.refuse_first { Ok(()) } else { self.check() };
                self.count(self.failures());
                refused?;
            }
        }
        answer
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.count(self.failures());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
