//! The rate limit of failed attempts over a network.
//!
//! After several failures, a client must wait before it tries again. The wait doubles with each
//! further failure up to a maximum, and the count of failures decays over time.
//!
//! Failures are counted per account and network, per account, and per network. If an account has
//! logged in from a network before, the last two limits do not apply to it there, so that an
//! attack does not lock the user out.
//!
//! On MongoDB, all nodes share the counts.

mod buckets;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::future::FutureExt;
use query::Environment as _;
use quick_cache::sync::Cache;
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    DeclaredQuery, Environment, Error, ErrorCode, Request, Response, Result,
    auth::providers::Providers,
    request::{Action, LogIn, ProviderAction},
};
use buckets::{Bucket, Buckets, REMEMBERED};

/// The maximum number of concurrent password checks for one account from one network. Further
/// attempts wait for their results.
const AT_ONCE: usize = 4;

/// The maximum number of concurrent requests from one network that may run a function. Functions
/// can take minutes. Further requests wait.
const FUNCTIONS_AT_ONCE: usize = 16;

/// A rate limit with exponential backoff.
struct Limit {
    /// The number of failures that cause no wait.
    free: f64,
    /// The wait after the first failure beyond `free`, in seconds; it doubles with each further
    /// failure.
    first_wait: f64,
    /// The maximum wait, in seconds.
    longest_wait: f64,
    /// Seconds after which the count decreases by one.
    forgotten_each: f64,
}

/// Failures with one account from one network.
const ACCOUNT_HERE: Limit = Limit { free: 5.0, first_wait: 1.0, longest_wait: 300.0, forgotten_each: 300.0 };

/// Failures with one account from any network.
const ACCOUNT: Limit = Limit { free: 20.0, first_wait: 1.0, longest_wait: 60.0, forgotten_each: 60.0 };

/// Failures from one network, which may be shared by a whole company.
const PLACE: Limit = Limit { free: 50.0, first_wait: 1.0, longest_wait: 60.0, forgotten_each: 10.0 };

/// Calls of a confirmation or reset function for one account, also successful ones: each may send
/// a mail.
const HOOK_CALLS_OF_ACCOUNT: Limit = Limit { free: 10.0, first_wait: 1.0, longest_wait: 60.0, forgotten_each: 60.0 };

/// Such calls from one network.
const HOOK_CALLS: Limit = Limit { free: 50.0, first_wait: 1.0, longest_wait: 60.0, forgotten_each: 10.0 };

/// Users created from one network.
const NEW_USERS: Limit = Limit { free: 200.0, first_wait: 1.0, longest_wait: 5.0, forgotten_each: 5.0 };

/// The network origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's IP address.
    pub address: IpAddr,
    /// True if many people share this address, as with the application's own servers. Then only
    /// accounts are limited, not the address.
    pub is_shared: bool,
}

impl Origin {
    /// Returns the network that the rate limit counts: the IPv4 address, or the /64 prefix of an
    /// IPv6 address, because one client has all addresses of a /64.
    pub fn place(&self) -> IpAddr {
        Network::from(self.address).0
    }
}

/// The IPv4 address or the /64 prefix of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        })
    }
}

/// An account: the SHA-256 digest of its name.
type Account = [u8; 32];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    AccountHere(Account, Network),
    Account(Account),
    Network(Network),
    NewUsers(Network),
    HookCallsOfAccount(Account),
    HookCalls(Network),
    /// A successful log-in of an account from a network.
    Known(Account, Network),
}

impl Key {
    fn limit(self) -> &'static Limit {
        match self {
            Self::AccountHere(..) | Self::Known(..) => &ACCOUNT_HERE,
            Self::Account(_) => &ACCOUNT,
            Self::Network(_) => &PLACE,
            Self::NewUsers(_) => &NEW_USERS,
            Self::HookCallsOfAccount(_) => &HOOK_CALLS_OF_ACCOUNT,
            Self::HookCalls(_) => &HOOK_CALLS,
        }
    }

    fn parts(self) -> (&'static str, Option<Account>, Option<Network>) {
        match self {
            Self::AccountHere(account, place) => ("account here", Some(account), Some(place)),
            Self::Account(account) => ("account", Some(account), None),
            Self::Network(place) => ("place", None, Some(place)),
            Self::NewUsers(place) => ("new users", None, Some(place)),
            Self::HookCallsOfAccount(account) => ("hook calls of account", Some(account), None),
            Self::HookCalls(place) => ("hook calls", None, Some(place)),
            Self::Known(account, place) => ("known", Some(account), Some(place)),
        }
    }
}

/// Counts failures, and rejects requests whose wait is not over.
pub(crate) struct Throttle {
    buckets: Arc<Buckets>,
    gates: Cache<Key, Arc<Semaphore>>,
    environment: Environment,
    /// The number of rejected requests.
    refused: AtomicU64,
}

/// The limits that apply to a request.
struct Counted {
    account: Option<Account>,
    /// True if the request may create a user.
    makes_user: bool,
    /// True if the request runs a hook for a client who is not logged in, so that it counts also
    /// if it succeeds.
    calls_hook: bool,
    /// True to check the limits before the request runs. A refresh is checked only after it has
    /// failed, so that a valid token is never rejected because of other clients.
    refuse_first: bool,
}

/// The part of a rate-limited request that the functions which it runs share with it. They keep it
/// until they end, also if the client disconnects before.
#[derive(Debug, Default)]
pub(crate) struct AttemptShare {
    _permit: Option<OwnedSemaphorePermit>,
    has_made_user: AtomicBool,
}

impl AttemptShare {
    /// Notes that the request has created a user.
    pub(crate) fn note_new_user(&self) {
        self.has_made_user.store(true, Ordering::Relaxed);
    }
}

/// A running request. If it is dropped before [`settle`](Self::settle), for example because the
/// client disconnects, it counts as failed.
pub(crate) struct Attempt<'a> {
    throttle: &'a Throttle,
    origin: Origin,
    counted: Counted,
    /// The buckets at the start of the request, or none if they have not been read.
    recalled: HashMap<Key, Bucket>,
    settled: bool,
    gate_permit: Option<OwnedSemaphorePermit>,
    share: Option<Arc<AttemptShare>>,
}

impl Throttle {
    /// Creates a throttle that counts in memory, or in the store's database `database` if nodes
    /// share the store.
    pub(crate) fn new(environment: Environment, store: &Arc<dyn Store>, database: &str) -> Self {
        let buckets = Arc::new(Buckets::new(store, database));
        Self { buckets, gates: Cache::new(REMEMBERED), environment, refused: AtomicU64::new(0) }
    }

    pub(crate) async fn prepare(&self) -> Result<()> {
        self.buckets.prepare().await
    }

    /// Returns the queries for buckets, for the index test.
    pub(crate) fn declared(&self) -> Result<Vec<DeclaredQuery>> {
        let (account, place) = (digest("placeholder"), Network(Ipv6Addr::LOCALHOST.into()));
        self.buckets.declared(&[Key::AccountHere(account, place), Key::Account(account), Key::Network(place)])
    }

    /// Returns the number of requests rejected since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn now(&self) -> i64 {
        self.environment.now().timestamp_millis()
    }

    fn gate(&self, key: Key, at_once: usize) -> Arc<Semaphore> {
        let make = || Ok(Arc::new(Semaphore::new(at_once)));
        self.gates.get_or_insert_with(&key, make).unwrap_or_else(|never: std::convert::Infallible| match never {})
    }

    /// Starts a request, or rejects it with the remaining wait. `runs_function` is true if it may
    /// run a function. Returns `None` if the request is not rate limited.
    ///
    /// # Errors
    /// The error of the rate limit, and `MissingParameter` or `InvalidParameter` for an incomplete
    /// request.
    pub(crate) async fn begin(
        &self,
        request: &Request,
        origin: Origin,
        providers: &Providers,
        runs_function: bool,
    ) -> Result<Option<Attempt<'_>>> {
        let Some(counted) = Self::counted(request, providers)? else { return Ok(None) };
        let recalled = HashMap::new();
        let mut attempt =
            Attempt { throttle: self, origin, counted, recalled, settled: true, gate_permit: None, share: None };
        if attempt.counted.refuse_first {
            if let Some(account) = attempt.counted.account {
                let gate = self.gate(Key::AccountHere(account, origin.address.into()), AT_ONCE);
                attempt.gate_permit = gate.acquire_owned().await.ok();
            }
            if runs_function {
                let permit = match origin.is_shared {
                    false => {
                        self.gate(Key::Network(origin.address.into()), FUNCTIONS_AT_ONCE).acquire_owned().await.ok()
                    }
                    true => None,
                };
                attempt.share = Some(Arc::new(AttemptShare { _permit: permit, ..AttemptShare::default() }));
            }
            attempt.recall().await?;
            attempt.check()?;
        }
        attempt.settled = false;
        Ok(Some(attempt))
    }

    fn counted(request: &Request, providers: &Providers) -> Result<Option<Counted>> {
        // Failures of a provider that is not enabled count too.
        let unknown = Ok(Some(Counted { account: None, makes_user: false, calls_hook: false, refuse_first: true }));
        let (account, makes_user, calls_hook, refuse_first) = match request {
            Request::LogIn(LogIn { credentials, .. }) => {
                let Some(provider) = providers.get(&credentials.provider) else { return unknown };
                (provider.account(&credentials.payload)?, provider.creates_users(None), false, true)
            }
            Request::ProviderAction(ProviderAction { provider, action, payload }) => {
                let Some(provider) = providers.get(provider) else { return unknown };
                let calls_hook = matches!(action, Action::CallConfirmation | Action::CallReset);
                let makes_user = provider.creates_users(Some(*action));
                (provider.account_of_action(*action, payload)?, makes_user, calls_hook, true)
            }
            Request::RefreshSession(_) => (None, false, false, false),
            _ => return Ok(None),
        };
        Ok(Some(Counted { account: account.map(digest), makes_user, calls_hook, refuse_first }))
    }

    fn refuse(&self, wait: i64) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let seconds = wait.max(1).unsigned_abs().div_ceil(1000);
        Error::retry_later(format!("too many attempts; try again in {seconds} s"), seconds)
    }
}

fn digest(name: &str) -> Account {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    let mut account = Account::default();
    account.copy_from_slice(digest.as_ref());
    account
}

impl Attempt<'_> {
    /// Returns the part for the functions that the request runs, if it may run one.
    pub(crate) fn share(&self) -> Option<Arc<AttemptShare>> {
        self.share.clone()
    }

    fn place(&self) -> Network {
        self.origin.address.into()
    }

    fn known(&self) -> Option<Key> {
        self.counted.account.map(|account| Key::Known(account, self.place()))
    }

    /// Reads all buckets that may apply, in one query.
    async fn recall(&mut self) -> Result<()> {
        let account = self.counted.account;
        let here = account.map(|account| Key::AccountHere(account, self.place()));
        let of_place = (!self.origin.is_shared).then(|| Key::Network(self.place()));
        let keys = [here, account.map(Key::Account), of_place, self.new_users(), self.known()];
        let keys: Vec<Key> = keys.into_iter().flatten().chain(self.hook_calls()).collect();
        self.recalled = self.throttle.buckets.recall(&keys).await?;
        Ok(())
    }

    /// Returns the buckets that must allow the request, and that count its failure.
    fn failures(&self) -> Vec<Key> {
        let is_known = self.known().is_some_and(|known| self.recalled.contains_key(&known));
        let here = self.counted.account.map(|account| Key::AccountHere(account, self.place()));
        let anywhere = self.counted.account.filter(|_| !is_known).map(Key::Account);
        let of_place = (!is_known && !self.origin.is_shared).then(|| Key::Network(self.place()));
        [here, anywhere, of_place].into_iter().flatten().collect()
    }

    fn new_users(&self) -> Option<Key> {
        (self.counted.makes_user && !self.origin.is_shared).then(|| Key::NewUsers(self.place()))
    }

    fn hook_calls(&self) -> Vec<Key> {
        if !self.counted.calls_hook {
            return Vec::new();
        }
        let of_account = self.counted.account.map(Key::HookCallsOfAccount);
        let of_place = (!self.origin.is_shared).then(|| Key::HookCalls(self.place()));
        of_account.into_iter().chain(of_place).collect()
    }

    /// True unless the request has logged in a user who existed before.
    fn has_made_user(&self) -> bool {
        self.share.as_ref().is_none_or(|share| share.has_made_user.load(Ordering::Relaxed))
    }

    fn check(&self) -> Result<()> {
        let now = self.throttle.now();
        let wait = |key: Key| self.recalled.get(&key).map_or(0, |bucket| bucket.wait(key.limit(), now));
        match self.failures().into_iter().chain(self.new_users()).chain(self.hook_calls()).map(wait).max() {
            Some(wait) if wait > 0 => Err(self.throttle.refuse(wait)),
            _ => Ok(()),
        }
    }

    async fn count(&self, keys: &[Key]) -> Result<()> {
        self.throttle.buckets.count(keys, self.throttle.now()).await
    }

    /// Counts the result of the request. If a refresh fails and the limit is reached, returns the
    /// error of the rate limit.
    pub(crate) async fn settle(mut self, answer: Result<Response>) -> Result<Response> {
        let buckets = &self.throttle.buckets;
        let noted = match &answer {
            Ok(response) => {
                self.settled = true;
                self.succeeded(response).await
            }
            // Internal errors do not count as failures of the client.
            Err(error)
                if error.is_of_thread
                    || matches!(error.code, ErrorCode::InternalServerError | ErrorCode::AppServerError) =>
            {
                self.settled = true;
                Ok(())
            }
            Err(_) => {
                let refused = if self.counted.refuse_first {
                    Ok(())
                } else {
                    self.recall().await?;
                    self.check()
                };
                // A dropped future leaves `settled` false, and `drop` counts the failure.
                let counted = buckets.count(&self.failures(), self.throttle.now()).await;
                self.settled = true;
                refused?;
                counted
            }
        };
        // A failure to count does not change the result for the client.
        if let Err(error) = noted {
            tracing::warn!(%error, "cannot record the result of a rate-limited request");
        }
        answer
    }

    async fn succeeded(&self, response: &Response) -> Result<()> {
        let mut keys = self.hook_calls();
        keys.extend(self.new_users().filter(|_| self.has_made_user()));
        self.count(&keys).await?;
        let (Some(account), Response::Session(_)) = (self.counted.account, response) else { return Ok(()) };
        let buckets = &self.throttle.buckets;
        buckets.note_known(Key::Known(account, self.place()), self.throttle.now()).await?;
        let here = Key::AccountHere(account, self.place());
        // This also removes failures that were counted while the request ran. Usually there are
        // none.
        if self.recalled.contains_key(&here) { buckets.forget(here).await } else { Ok(()) }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (buckets, keys, now) = (Arc::clone(&self.throttle.buckets), self.failures(), self.throttle.now());
        let count = async move {
            if let Err(error) = buckets.count(&keys, now).await {
                tracing::warn!(%error, "cannot record a canceled request for the rate limit");
            }
        };
        if !self.throttle.buckets.is_shared() {
            // In memory, counting completes at the first poll.
            let _ = count.now_or_never();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(count);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
