//! A memory budget in bytes that all requests share.
//!
//! A place (an IPv4 address or an IPv6 /64) and a user may each hold only a fraction of it, their
//! share. A client that sends a lot of data, or reads slowly, exhausts its own share before it
//! affects other clients.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::StatusCode;
use backend::{Error, ErrorCode, Origin};

use crate::{
    answer::Answer,
    limits::{RETRY_AFTER, SHARE},
};

/// A memory budget.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Plural name of the counted items, for error messages.
    name: &'static str,
    /// The maximum number of bytes.
    total: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_place: HashMap<IpAddr, usize>,
    by_user: HashMap<Arc<str>, usize>,
}

/// Bytes of a budget that a request holds. Returns them when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    /// None if no share of a place applies.
    place: Option<IpAddr>,
    user: Option<Arc<str>>,
    /// True if many clients use the address, so that no share applies.
    is_shared: bool,
    /// False if the bytes count for shares only, and not for the total.
    is_of_all: bool,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(name: &'static str, total: usize) -> Arc<Self> {
        Arc::new(Self { name, total, held: Mutex::default() })
    }

    /// Returns an empty permit for a request from `origin`. No share applies to networks without
    /// limits.
    pub(crate) fn permit(self: &Arc<Self>, origin: &Origin) -> Permit {
        let place = (!origin.is_shared).then(|| origin.place());
        let mut permit = self.permit_of_all();
        (permit.place, permit.is_shared) = (place, origin.is_shared);
        permit
    }

    /// Returns an empty permit for bytes that count for the total only, not for a share.
    pub(crate) fn permit_of_all(self: &Arc<Self>) -> Permit {
        Permit { budget: Arc::clone(self), place: None, user: None, is_shared: true, is_of_all: true, bytes: 0 }
    }

    /// Returns an empty permit that counts for the share of a place only. Another permit counts
    /// the bytes for the total.
    pub(crate) fn share_of_place(self: &Arc<Self>, place: IpAddr) -> Permit {
        let mut permit = self.share();
        permit.place = Some(place);
        permit
    }

    /// Returns an empty permit that counts for the share of a user only. Another permit counts the
    /// bytes for the total.
    pub(crate) fn share_of_user(self: &Arc<Self>, user: &Arc<str>) -> Permit {
        let mut permit = self.share();
        permit.user = Some(Arc::clone(user));
        permit
    }

    fn share(self: &Arc<Self>) -> Permit {
        let mut permit = self.permit_of_all();
        (permit.is_shared, permit.is_of_all) = (false, false);
        permit
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, is_share: bool) -> Answer {
        let (status, whose) = match is_share {
            true => (StatusCode::TOO_MANY_REQUESTS, "of one client"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "of all clients"),
        };
        let message = format!("the total size of the {} {whose} exceeds the limit; try again later", self.name);
        let error = Error { retry_after: Some(RETRY_AFTER), ..Error::new(ErrorCode::AppServerError, message) };
        Answer::Error { status, error }
    }
}

impl Permit {
    /// Counts the present and future bytes for a user too.
    ///
    /// # Errors
    /// Status 429 if the bytes exceed the user's share.
    pub(crate) fn assign(&mut self, user: &str) -> Result<(), Answer> {
        if self.is_shared || self.user.is_some() {
            return Ok(());
        }
        let user = Arc::from(user);
        let mut held = self.budget.held();
        let bytes = held.by_user.get(&user).copied().unwrap_or_default() + self.bytes;
        if bytes > self.budget.total / SHARE {
            return Err(self.budget.refusal(true));
        }
        add(&mut held.by_user, &user, self.bytes);
        self.user = Some(user);
        Ok(())
    }

    /// True if the permit holds no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes `bytes` more bytes from the budget.
    ///
    /// # Errors
    /// Status 429 if the bytes exceed a share, and 503 if they exceed the total.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Answer> {
        let share = self.budget.total / SHARE;
        let mut held = self.budget.held();
        let of_place = self.place.and_then(|place| held.by_place.get(&place)).copied().unwrap_or_default();
        let of_user = self.user.as_ref().and_then(|user| held.by_user.get(user)).copied().unwrap_or_default();
        // One document of the maximum size may need more than a share: as JSON in a response, or
        // as the text and the BSON of a large value in a body. The only request of a client may
        // therefore use two shares.
        let is_alone = of_place.max(of_user) <= self.bytes;
        let most = if is_alone { 2 * share } else { share };
        if !self.is_shared && of_place.max(of_user) + bytes > most {
            return Err(self.budget.refusal(true));
        }
        if self.is_of_all {
            if held.all + bytes > self.budget.total {
                return Err(self.budget.refusal(false));
            }
            held.all += bytes;
        }
        if let Some(place) = self.place {
            add(&mut held.by_place, &place, bytes);
        }
        if let Some(user) = &self.user {
            add(&mut held.by_user, user, bytes);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Returns bytes to the budget.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        let mut held = self.budget.held();
        if self.is_of_all {
            held.all -= bytes;
        }
        if let Some(place) = &self.place {
            subtract(&mut held.by_place, place, bytes);
        }
        if let Some(user) = &self.user {
            subtract(&mut held.by_user, user, bytes);
        }
        self.bytes -= bytes;
    }

    /// Takes or returns bytes until the permit holds exactly `bytes`.
    ///
    /// # Errors
    /// The errors of [`Permit::grow`].
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Answer> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

fn add<K: Clone + Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if bytes > 0 {
        *counts.entry(key.clone()).or_default() += bytes;
    }
}

fn subtract<K: Borrow<Q> + Eq + Hash, Q: Eq + Hash + ?Sized>(counts: &mut HashMap<K, usize>, key: &Q, bytes: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count -= bytes.min(*count);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn origin(address: &str, is_shared: bool) -> Origin {
        Origin { address: address.parse().unwrap(), is_shared }
    }

    fn status(refused: Result<(), Answer>) -> Option<(u16, Option<u64>)> {
        match refused.unwrap_err() {
            Answer::Error { status, error } => Some((status.as_u16(), error.retry_after)),
            _ => None,
        }
    }

    #[test]
    fn limits_places_and_users_to_a_share_and_all_clients_to_the_total() {
        let budget = Budget::new("bodies", 800);
        let mut here = budget.permit(&origin("2001:db8::1", false));
        here.grow(60).unwrap();
        let mut near = budget.permit(&origin("2001:db8::2", false));
        assert_eq!(status(near.grow(60)), Some((429, Some(RETRY_AFTER))), "a /64 is one place");
        near.grow(40).unwrap();
        here.assign("a").unwrap();
        let mut elsewhere = budget.permit(&origin("192.0.2.1", false));
        elsewhere.grow(50).unwrap();
        assert_eq!(
            status(elsewhere.assign("a")),
            Some((429, Some(RETRY_AFTER))),
            "the share of a user spans all places"
        );
        elsewhere.resize(40).unwrap();
        elsewhere.assign("a").unwrap();
        assert_eq!(status(elsewhere.grow(1)), Some((429, Some(RETRY_AFTER))));
        let mut proxy = budget.permit(&origin("10.0.0.1", true));
        proxy.assign("a").unwrap();
        proxy.grow(660).unwrap();
        assert_eq!(status(proxy.grow(1)), Some((503, Some(RETRY_AFTER))));
        let mut other = budget.permit(&origin("192.0.2.2", false));
        assert_eq!(status(other.grow(1)), Some((503, Some(RETRY_AFTER))));
        drop((here, near, elsewhere, proxy, other));
        let held = budget.held();
        assert!(held.all == 0 && held.by_place.is_empty() && held.by_user.is_empty(), "{held:?}");
    }
}
