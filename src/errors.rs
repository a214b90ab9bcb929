use client::Error;
use napi_derive::napi;

/// An error that JavaScript receives as an `Error`.
#[napi(object, object_from_js = false)]
pub(crate) struct ErrorObject {
    pub code: i32,
    pub error_code: String,
    pub message: String,
    pub server_code: Option<i32>,
    pub retry_after: Option<f64>,
    pub status: Option<u16>,
    pub link: Option<String>,
    pub error_labels: Option<Vec<&'static str>>,
    /// The message and the code of the failure of the network.
    pub cause: Option<CauseObject>,
}

#[napi(object, object_from_js = false)]
pub(crate) struct CauseObject {
    pub message: String,
    pub code: Option<&'static str>,
}

impl From<Error> for ErrorObject {
    fn from(error: Error) -> Self {
        Self {
            code: error.code,
            error_code: error.name.into(),
            message: error.message,
            server_code: error.server_code,
            retry_after: error.retry_after.map(|seconds| seconds as f64),
            status: error.status,
            link: error.link,
            error_labels: error.is_transient_transaction.then(|| vec!["TransientTransactionError"]),
            cause: error.cause.map(|cause| CauseObject { message: cause.message, code: cause.code }),
        }
    }
}

/// Creates the error of a function that returns no [`Started`](crate::outbox::Started). It has no
/// code, as in the SDK.
pub(crate) fn thrown(error: &Error) -> napi::Error {
    napi::Error::from_reason(error.message.clone())
}
