//! The endpoints for the app's location and the public keys of its tokens.

use axum::extract::{Path, State};
use protocol::reply::LocationBody;
use serde_json::json;

use crate::{answer::Answer, app_state::Shared};

/// Returns the URL under which clients reach the app.
pub(super) async fn location(State(state): Shared, Path(app): Path<String>) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    Ok(Answer::json(&LocationBody::new(&state.url)))
}

/// Returns the public keys that verify access tokens, as a JSON Web Key Set (RFC 7517).
pub(super) async fn public_keys(State(state): Shared, Path(app): Path<String>) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    let keys = state.backend.public_keys().await?;
    let keys: Vec<serde_json::Value> = keys
        .into_iter()
        .map(|key| json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.id, "x": key.x }))
        .collect();
    Ok(Answer::json(&json!({ "keys": keys })))
}
