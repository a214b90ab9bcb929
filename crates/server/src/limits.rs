//! The limits of what clients may make the server hold, with their defaults. `SECURITY.md` lists them for operators.

/// Largest body that is never refused for a budget, and the largest of `auth/…`, in bytes. Larger bodies need a valid token, except on
/// routes with a limit of their own.
pub(crate) const SMALL_BODY: usize = 64 * 1024;

/// Largest body of log-ins with a custom function or a custom token, and of `reset/call`, in bytes: it carries data of the application.
pub(crate) const PAYLOAD_BODY: usize = 1024 * 1024;

/// Largest body of a call as it is sent, in bytes, unless said otherwise. A document of 16 MB has up to about twice as many bytes as
/// JSON, and more only if most of its text has to be escaped.
pub(crate) const MAX_BODY: usize = 64 * 1024 * 1024;

/// Largest BSON that the arguments of a call may become, in bytes: every document of 16 MB, and what is sent beside it.
pub(crate) const MAX_DECODED: usize = 18 * 1024 * 1024;

/// Bytes of a large call that are collected and then decoded at once, on another thread.
pub(crate) const DECODED_AT_ONCE: usize = 128 * 1024;

/// Largest answer that is never refused for a budget, and the size of the pieces in which larger ones are sent, in bytes.
pub(crate) const SMALL_ANSWER: usize = 64 * 1024;

/// Largest BSON that becomes JSON on an HTTP thread, in bytes.
pub(crate) const INLINE_ANSWER: usize = 256 * 1024;

/// Largest head of a request, its line and headers, in bytes. A larger one is answered with status 431.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// The part of a budget that one place, and one user, may hold.
pub(crate) const SHARE: usize = 8;

/// Lowest rate at which a client must send a body and read an answer, in bytes a second.
pub(crate) const MIN_BODY_RATE: usize = 16 * 1024;

/// Longest time that a body may take altogether, in seconds.
pub(crate) const LONGEST_BODY: u64 = 600;

/// Bytes that are read and discarded of a body whose request has been answered already. After them the connection is closed.
pub(crate) const DRAINED_BYTES: usize = 128 * 1024 * 1024;

/// Longest time for that, in seconds.
pub(crate) const DRAINED_TIME: u64 = 30;

/// Longest pause of the client in it, in seconds.
pub(crate) const DRAINED_PAUSE: u64 = 2;

/// Seconds after which it is worth asking again for what a budget refused.
pub(crate) const RETRY_AFTER: u64 = 5;

/// Limits of a server. Requests over a share of one of them are refused with status 429, and over the whole with 503.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections. Beyond it, the connection that has been waiting longest for its client is closed.
    pub connections: usize,
    /// Open connections of one peer address (an IPv6 /64 counts as one). Further ones are closed at once.
    pub connections_per_place: usize,
    /// Bytes of all bodies over 64 kB together, until their requests have been handled: of calls
    /// as they are decoded, of others as they are sent. One place and one user hold up to an
    /// eighth.
    pub bodies: usize,
    /// Bytes of all answers over 64 kB that clients have not read yet. One place and one user hold up to an eighth.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, connections_per_place: 500, bodies: 256 * 1024 * 1024, answers: 256 * 1024 * 1024 }
    }
}
