//! Operations that run to completion even if their caller stops waiting.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;

use crate::{Error, Result};

/// A future that continues in a task of its own if it is dropped after the first poll.
///
/// If an operation is stopped in the middle, the driver closes its connection. Many stopped
/// operations would make all others wait for new connections.
pub(super) struct RunToCompletion<T: Send + 'static> {
    /// The operation; `None` as soon as it has ended.
    operation: Option<BoxFuture<'static, Result<T>>>,
    /// The runtime on which the operation continues; `None` before the first poll.
    runtime: Option<Handle>,
}

impl<T: Send + 'static> RunToCompletion<T> {
    pub(super) fn new(operation: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self { operation: Some(operation.boxed()), runtime: None }
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
        let Some(operation) = &mut self.operation else { return Poll::Pending };
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| operation.poll_unpin(context)));
        let polled = polled.unwrap_or_else(|_| Poll::Ready(Err(Error::Engine("an operation panicked".to_owned()))));
        if polled.is_ready() {
            self.operation = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        if let (Some(operation), Some(runtime)) = (self.operation.take(), self.runtime.take()) {
            runtime.spawn(operation);
        }
    }
}
