//! The router of the client API, with one route for each endpoint of the protocol.

mod functions;
mod requests;
mod service;

use std::sync::Arc;

use axum::{
    Router,
    http::StatusCode,
    routing::{MethodFilter, on},
};
use backend::ErrorCode;
use protocol::{API, Endpoint, Method};

use crate::{answer::Answer, app_state::AppState, operator, request_log};

pub(crate) fn router(state: Arc<AppState>) -> Router {
    let mut router = Router::new().route("/healthz", axum::routing::get(operator::health));
    for &endpoint in Endpoint::ALL {
        let method = match endpoint.method() {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = match endpoint {
            Endpoint::Location => on(method, service::location),
            Endpoint::PublicKeys => on(method, service::public_keys),
            Endpoint::CallFunction => on(method, functions::call),
            Endpoint::Watch => on(method, functions::watch),
            endpoint => on(method, move |state, origin, id, peer, parameters, query, headers, request| {
                let beside = requests::Beside { origin, id, peer, parameters, query, headers };
                requests::handle(endpoint, state, beside, request)
            }),
        };
        router = router.route(&format!("{API}{}", endpoint.path()), handler);
    }
    router
        .fallback(|| async { Answer::error(StatusCode::NOT_FOUND, ErrorCode::BadRequest, "no endpoint has this path") })
        .method_not_allowed_fallback(|| async {
            let message = "the endpoint does not support this method";
            Answer::error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, message)
        })
        // A single layer, because each layer costs a copy and an allocation per request.
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), request_log::request))
        .with_state(state)
}
