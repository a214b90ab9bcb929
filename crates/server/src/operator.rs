//! The operator's listener: health and metrics.

mod health;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_TYPE},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{app_state::AppState, security};

pub(crate) use health::health;

/// Returns the router of the operator's listener.
pub(crate) fn router(state: Arc<AppState>) -> Router {
    let metrics = state.metrics.clone();
    let text = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Router::new()
        .route("/healthz", get(health::health_for_operator))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, text)], metrics.text()).into_response()))
        .layer(map_response(async |mut response: Response| {
            security::protect(response.headers_mut(), true, false);
            response
        }))
        .with_state(state)
}
