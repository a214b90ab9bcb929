//! The share of the log that one client may have, so that no client displaces the entries of
//! others: neither in the queue nor in the store.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Kind;
use crate::auth::Origin;

/// The entries that one client may cause at once, and how many more each second.
const BURST: f64 = 100.0;
const PER_SECOND: f64 = 1.0;

/// The bytes that one client may cause at once, as a part of the limit of the log, and at least.
const BURST_PART: f64 = 256.0;
const LEAST_BURST: f64 = 65_536.0;

/// The time in which one client may fill the log, in seconds: 8 days.
const FILLING_SECONDS: f64 = 8.0 * 24.0 * 60.0 * 60.0;

/// The number of shares that all clients of one network have together.
const SHARES_OF_NETWORK: f64 = 4.0;

/// The maximum number of clients whose shares are known. Further ones have one share together.
const MOST_CLIENTS: usize = 4096;

/// The minimum time between two searches for shares that are not needed any more.
const SWEEP_EACH: Duration = Duration::from_secs(1);

/// The time from the first entry that is left out to the entry that says so, and the minimum time
/// between two of these for one client.
const FIRST_NOTE: Duration = Duration::from_secs(1);
const NOTE_EACH: Duration = Duration::from_secs(10);

/// The client who caused an entry over a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    User(String),
    /// Requests from a network whose user is not known.
    Unknown(IpAddr),
    /// All clients of a network.
    Network(IpAddr),
    /// All clients beyond [`MOST_CLIENTS`].
    Others,
}

/// The client who caused an entry over a network, and the network.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) user: Option<String>,
    pub(super) origin: Origin,
    pub(super) kind: Kind,
}

impl Source {
    /// Returns the clients whose shares the entry uses, with their numbers of shares.
    fn clients(&self) -> Vec<(Client, f64)> {
        let place = self.origin.place();
        // The application's own servers are not one client, so their address has no limit of its
        // own.
        let network = (!self.origin.is_shared).then_some((Client::Network(place), SHARES_OF_NETWORK));
        let own = match &self.user {
            Some(user) => (Client::User(user.clone()), 1.0),
            None => (Client::Unknown(place), if self.origin.is_shared { SHARES_OF_NETWORK } else { 1.0 }),
        };
        std::iter::once(own).chain(network).collect()
    }
}

/// The share of a client.
#[derive(Debug)]
struct Share {
    /// The number of shares that the client has.
    number: f64,
    /// The entries and bytes that may still come, at a time.
    entries: f64,
    bytes: f64,
    at: Instant,
}

/// The entries of a client that were left out and have not been noted yet.
#[derive(Debug)]
struct LeftOut {
    source: Source,
    number: u64,
    /// The time at which they are noted.
    due: Instant,
}

/// A note of the entries of a client that were left out.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) source: Source,
    pub(super) number: u64,
}

/// The shares of all clients.
#[derive(Debug)]
pub(super) struct Clients {
    shares: HashMap<Client, Share>,
    left_out: HashMap<Client, LeftOut>,
    burst_bytes: f64,
    bytes_per_second: f64,
    swept: Option<Instant>,
}

impl Clients {
    /// Creates the shares of a log of up to `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let bytes = bytes as f64;
        Self {
            shares: HashMap::new(),
            left_out: HashMap::new(),
            burst_bytes: (bytes / BURST_PART).max(LEAST_BURST).min(bytes / 4.0),
            bytes_per_second: bytes / FILLING_SECONDS,
            swept: None,
        }
    }

    /// True if a client may cause an entry of a size now. Otherwise the entry is counted.
    pub(super) fn allow(&mut self, source: &Source, bytes: usize, now: Instant) -> bool {
        let bytes = bytes as f64;
        let clients: Vec<Client> =
            source.clients().into_iter().map(|(client, number)| self.refill(client, number, now)).collect();
        let has_room =
            |client| self.shares.get(client).is_some_and(|share: &Share| share.entries >= 1.0 && share.bytes >= bytes);
        if !clients.iter().all(has_room) {
            self.leave_out(source, clients, now);
            return false;
        }
        for client in &clients {
            if let Some(share) = self.shares.get_mut(client) {
                share.entries -= 1.0;
                share.bytes -= bytes;
            }
        }
        true
    }

    /// Adds what a client may cause since the last time. Returns the client whose share counts.
    fn refill(&mut self, client: Client, number: f64, now: Instant) -> Client {
        if self.shares.len() >= MOST_CLIENTS && !self.shares.contains_key(&client) {
            self.sweep(now);
        }
        let is_full = self.shares.len() >= MOST_CLIENTS && !self.shares.contains_key(&client);
        let client = if is_full { Client::Others } else { client };
        let (burst_bytes, bytes_per_second) = (self.burst_bytes, self.bytes_per_second);
        let full = || Share { number, entries: BURST * number, bytes: burst_bytes * number, at: now };
        let share = self.shares.entry(client.clone()).or_insert_with(full);
        let seconds = now.saturating_duration_since(share.at).as_secs_f64() * share.number;
        share.entries = (BURST * share.number).min(share.entries + seconds * PER_SECOND);
        share.bytes = (burst_bytes * share.number).min(share.bytes + seconds * bytes_per_second);
        share.at = now;
        client
    }

    /// Forgets the clients who have their whole share.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EACH) {
            return;
        }
        self.swept = Some(now);
        let (burst, rate) = (self.burst_bytes, self.bytes_per_second);
        self.shares.retain(|_, share| {
            let seconds = now.saturating_duration_since(share.at).as_secs_f64();
            share.entries / share.number + seconds * PER_SECOND < BURST
                || share.bytes / share.number + seconds * rate < burst
        });
        self.left_out.retain(|_, left_out| left_out.number > 0 || left_out.due > now);
    }

    fn leave_out(&mut self, source: &Source, clients: Vec<Client>, now: Instant) {
        let Some(client) = clients.into_iter().next() else { return };
        let has_room = self.left_out.len() < MOST_CLIENTS || self.left_out.contains_key(&client);
        let client = if has_room { client } else { Client::Others };
        let first = || LeftOut { source: source.clone(), number: 0, due: now + FIRST_NOTE };
        let left_out = self.left_out.entry(client).or_insert_with(first);
        left_out.number += 1;
    }

    /// True if entries were left out that are not noted yet.
    pub(super) fn must_note(&self) -> bool {
        self.left_out.values().any(|left_out| left_out.number > 0)
    }

    /// Takes the notes that are due, or all of them.
    pub(super) fn take_notes(&mut self, now: Instant, takes_all: bool) -> Vec<Note> {
        let mut notes = Vec::new();
        self.left_out.retain(|_, left_out| {
            if left_out.number == 0 {
                return left_out.due > now;
            }
            if takes_all || left_out.due <= now {
                let number = std::mem::take(&mut left_out.number);
                notes.push(Note { source: left_out.source.clone(), number });
                left_out.due = now + NOTE_EACH;
            }
            true
        });
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(user: Option<&str>, last: u8) -> Source {
        let origin = Origin { address: [10, 0, 0, last].into(), is_shared: false };
        Source { user: user.map(ToOwned::to_owned), origin, kind: Kind::Auth }
    }

    fn allowed(clients: &mut Clients, source: &Source, bytes: usize, now: Instant) -> usize {
        (0..2000).take_while(|_| clients.allow(source, bytes, now)).count()
    }

    #[test]
    fn a_client_has_a_burst_and_a_rate_of_entries_and_bytes() {
        let (mut clients, now) = (Clients::new(64 * 1024 * 1024), Instant::now());
        assert_eq!(allowed(&mut clients, &source(Some("eve"), 1), 300, now), 100);
        let later = now + Duration::from_secs(20);
        assert_eq!(allowed(&mut clients, &source(Some("eve"), 1), 300, later), 20);
        assert_eq!(allowed(&mut clients, &source(Some("ada"), 1), 300, later), 100);
        assert_eq!(allowed(&mut clients, &source(Some("bob"), 2), 16 * 1024, later), 16);
        // Within two days, a client who always sends fills at most a third of the log.
        let mut bytes = 0;
        for minute in 0..2 * 24 * 60 {
            let now = later + Duration::from_secs(60 * minute);
            bytes += allowed(&mut clients, &source(Some("max"), 3), 4096, now) * 4096;
        }
        assert!(bytes < 64 * 1024 * 1024 / 3, "{bytes}");
    }

    #[test]
    fn all_clients_of_a_network_have_some_shares_together() {
        let (mut clients, now) = (Clients::new(64 * 1024 * 1024), Instant::now());
        let all: usize =
            (0..50).map(|number| allowed(&mut clients, &source(Some(&number.to_string()), 1), 300, now)).sum();
        assert_eq!(all, 400);
        assert_eq!(allowed(&mut clients, &source(None, 2), 300, now), 100);
    }

    #[test]
    fn the_number_of_known_clients_is_limited() {
        let (mut clients, now) = (Clients::new(64 * 1024 * 1024), Instant::now());
        for number in 0..20_000_u32 {
            let origin = Origin { address: std::net::Ipv4Addr::from_bits(number).into(), is_shared: false };
            clients.allow(&Source { user: None, origin, kind: Kind::Auth }, 300, now);
        }
        assert!(clients.shares.len() <= MOST_CLIENTS + 1);
        assert!(clients.left_out.len() <= MOST_CLIENTS + 1);
        let later = now + Duration::from_secs(3600);
        assert!(clients.allow(&source(None, 250), 300, later));
        assert!(clients.shares.len() < 100, "{}", clients.shares.len());
    }

    #[test]
    fn left_out_entries_are_noted_from_time_to_time() {
        let (mut clients, now) = (Clients::new(64 * 1024 * 1024), Instant::now());
        let eve = source(Some("eve"), 1);
        assert_eq!(allowed(&mut clients, &eve, 300, now), 100);
        assert!(!clients.allow(&eve, 300, now));
        assert!(clients.must_note() && clients.take_notes(now, false).is_empty());
        let later = now + FIRST_NOTE;
        let numbers = |notes: Vec<Note>| notes.iter().map(|note| note.number).collect::<Vec<_>>();
        assert_eq!(numbers(clients.take_notes(later, false)), [2]);
        assert!(!clients.must_note());
        allowed(&mut clients, &eve, 300, later);
        assert!(clients.take_notes(later + NOTE_EACH / 2, false).is_empty());
        assert_eq!(numbers(clients.take_notes(later + NOTE_EACH, false)), [1]);
    }
}
