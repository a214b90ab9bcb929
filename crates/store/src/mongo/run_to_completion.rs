//! Operations that are carried out to their end.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;

use crate::{Error, Result};

/// An operation that has begun and goes on by itself when nobody waits for it any more. One that the driver is stopped in the middle of
/// costs its connection, and many of them make everybody wait for new ones.
pub(super) struct RunToCompletion<T: Send + 'static> {
    /// Nothing as soon as it has ended.
    operation: Option<BoxFuture<'static, Result<T>>>,
    /// Where it goes on; nothing until it has begun.
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
        let polled = polled.unwrap_or_else(|_| Poll::Ready(Err(Error::Engine("an operation was given up".to_owned()))));
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
