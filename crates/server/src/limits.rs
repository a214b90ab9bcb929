//! Limits on the connections and the memory that clients can occupy, with their defaults.
//! `SECURITY.md` lists them for operators.

/// The maximum size of a body that is always accepted regardless of the budget, in bytes. Also the
/// limit of the `auth/…` endpoints. A larger body needs a valid token, except on routes with their
/// own limit.
pub(crate) const SMALL_BODY: usize = 64 * 1024;

/// The maximum size of the body of a log-in with a custom function or a custom token, and of
/// `reset/call`, in bytes. These bodies carry data of the application.
pub(crate) const PAYLOAD_BODY: usize = 1024 * 1024;

/// The maximum size of such a payload as BSON, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 2 * PAYLOAD_BODY;

/// Default of the maximum size of the body of a function call, in bytes of JSON. A document of 16
/// MB needs up to about twice as many bytes as JSON, and more only if most of its text must be
/// escaped.
pub(crate) const MAX_BODY: usize = 64 * 1024 * 1024;

/// The maximum size of the arguments of a call as BSON, in bytes: a document of the maximum size
/// of 16 MB, plus 2 MB for the other arguments.
pub(crate) const MAX_DECODED: usize = 18 * 1024 * 1024;

/// Size of the chunks in which a worker thread decodes a large call, in bytes.
pub(crate) const DECODED_AT_ONCE: usize = 128 * 1024;

/// The maximum size of a response that is always sent regardless of the budget, in bytes. Larger
/// responses are sent in pieces of this size.
pub(crate) const SMALL_ANSWER: usize = 64 * 1024;

/// The maximum size of BSON that an HTTP thread serializes itself, in bytes. A worker thread
/// serializes larger values.
pub(crate) const INLINE_ANSWER: usize = 256 * 1024;

/// The maximum size of the request line and the headers together, in bytes. Larger ones are
/// rejected with status 431.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// The divisor that yields a share: one place, and one user, may hold an eighth of a budget.
pub(crate) const SHARE: usize = 8;

/// The minimum rate at which a client must send a body and read a response, in bytes per second.
pub(crate) const MIN_BODY_RATE: usize = 16 * 1024;

/// The maximum time in which a complete body must arrive, in seconds.
pub(crate) const LONGEST_BODY: u64 = 600;

/// The maximum number of bytes that are read and discarded after an early response. Then the
/// connection is closed.
pub(crate) const DRAINED_BYTES: usize = 128 * 1024 * 1024;

/// The maximum time of that reading, in seconds.
pub(crate) const DRAINED_TIME: u64 = 30;

/// The maximum pause between two frames during that reading, in seconds.
pub(crate) const DRAINED_PAUSE: u64 = 2;

/// The value of `Retry-After` if a budget is exhausted, in seconds.
pub(crate) const RETRY_AFTER: u64 = 5;

/// Limits on the connections and the memory of a server.
///
/// A place is an IPv4 address or an IPv6 /64. A request that exceeds the share of its place or its
/// user is rejected with status 429, and a request that exceeds a total with status 503.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum number of open connections; 10 000 by default. If it is reached, the server
    /// closes an idle connection for each new one.
    pub connections: usize,
    /// The maximum number of open connections from one place; 500 by default. Further ones are
    /// closed immediately.
    pub connections_per_place: usize,
    /// The maximum total size of all request bodies over 64 kB, in bytes, until their requests
    /// have been handled; 256 MB by default. Counts the decoded size of function calls, and the
    /// size of other bodies as sent. One place and one user may hold up to an eighth.
    pub bodies: usize,
    /// The maximum total size of all responses over 64 kB that clients have not read yet, in
    /// bytes; 256 MB by default. One place and one user may hold up to an eighth.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, connections_per_place: 500, bodies: 256 * 1024 * 1024, answers: 256 * 1024 * 1024 }
    }
}
