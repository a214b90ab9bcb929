//! The health check, for load balancers and for the operator.

use axum::{extract::State, http::StatusCode};
use backend::{ErrorCode, StoreError, Unhealthy};
use serde_json::json;

use crate::{
    answer::Answer,
    app_state::{AppState, Shared},
};

/// Responds with status 200 if the store can be used, and with 503 otherwise. Clients can reach
/// this endpoint, so the message names the kind of the failure but no path or host.
pub(crate) async fn health(State(state): Shared) -> Result<Answer, Answer> {
    check(&state).await.map_err(|error| {
        unhealthy(match error {
            Unhealthy::Store(StoreError::Open { .. } | StoreError::OpenInThisProcess { .. }) => {
                "the store cannot be opened; the log has the reason"
            }
            Unhealthy::Store(StoreError::FileReplaced { .. }) => "the store's file was removed or replaced",
            Unhealthy::Store(StoreError::NewerFormat { .. }) => "the store was written by a newer version of Userkeep",
            Unhealthy::Store(StoreError::NotAStore { .. }) => "the store's file is not a Userkeep store",
            Unhealthy::Store(StoreError::Unavailable { .. }) => "the database is not available",
            Unhealthy::Store(_) => "the store cannot be read; the log has the reason",
            Unhealthy::NotReady(_) => "the store is not ready; the log has the reason",
        })
    })
}

/// Responds like [`health`] on the operator's listener, with the full reason of a failure.
pub(super) async fn health_for_operator(State(state): Shared) -> Result<Answer, Answer> {
    check(&state).await.map_err(|error| {
        unhealthy(match error {
            Unhealthy::Store(error) => format!("the store cannot be read: {error}"),
            Unhealthy::NotReady(reason) => format!("the store is not ready: {reason}"),
        })
    })
}

/// Checks the store, and logs a failure.
async fn check(state: &AppState) -> Result<Answer, Unhealthy> {
    match state.backend.check_health().await {
        Ok(()) => Ok(Answer::json(&json!({ "status": "ok" }))),
        Err(error) => {
            match &error {
                Unhealthy::Store(error) => tracing::warn!(%error, "health check failed: the store cannot be read"),
                Unhealthy::NotReady(reason) => tracing::warn!(reason, "health check failed: the store is not ready"),
            }
            Err(error)
        }
    }
}

fn unhealthy(message: impl Into<String>) -> Answer {
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::InternalServerError, message)
}
