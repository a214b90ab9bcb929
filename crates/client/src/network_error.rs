//! Failures of the network.

use std::io::{self, ErrorKind};

/// The root cause of a failed request, without the URL, which the error's message already has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    /// The reason, in words.
    pub message: String,
    /// The name that Node gives to the error of the system, such as `ECONNREFUSED`.
    pub code: Option<&'static str>,
}

impl NetworkError {
    /// The error of a request that exceeds its time limit.
    pub(crate) fn timed_out() -> Self {
        Self { message: "the request took too long".to_owned(), code: Some("ETIMEDOUT") }
    }

    /// Finds the root cause of an error of the HTTP client.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::timed_out();
        }
        let mut deepest: &(dyn std::error::Error + 'static) = error;
        let mut code = None;
        while let Some(source) = deepest.source() {
            deepest = source;
            code = code.or_else(|| code_of(deepest.downcast_ref::<io::Error>()?));
        }
        Self { message: deepest.to_string(), code }
    }
}

fn code_of(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some("ECONNREFUSED"),
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => Some("ECONNRESET"),
        ErrorKind::ConnectionAborted => Some("ECONNABORTED"),
        ErrorKind::BrokenPipe => Some("EPIPE"),
        ErrorKind::HostUnreachable => Some("EHOSTUNREACH"),
        ErrorKind::NetworkUnreachable => Some("ENETUNREACH"),
        ErrorKind::TimedOut => Some("ETIMEDOUT"),
        _ => None,
    }
}
