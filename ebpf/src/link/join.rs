//! Joining: a token that is good once becomes a certificate.

use super::identity::{Identity, IdentityError, Membership};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the server may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why the agent hasn't joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Its own identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server isn't there, or isn't the one.
    #[error("{server} can't be reached: {cause}")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        cause: String,
    },
    /// The server says no.
    #[error("{server} says: {said}")]
    Refused {
        /// Its address.
        server: String,
        /// In its words.
        said: String,
    },
}

#[derive(Serialize)]
struct Question<'a> {
    signing_request: String,
    token: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    certificate: String,
    node: String,
    origin: String,
}

/// Joins by `token` at `server` (`https://host:port`), whose certificate is of the authority in `server_ca` (PEM).
///
/// # Errors
/// See [`JoinError`].
pub async fn join(
    identity: &Identity,
    server: &str,
    server_ca: &[u8],
    token: &Zeroizing<String>,
) -> Result<Membership, JoinError> {
    identity.make_key()?;
    let server = server.trim_end_matches('/');
    let unreachable = |error: reqwest::Error| {
        let mut root: &dyn std::error::Error = &error;
        while let Some(cause) = root.source() {
            root = cause;
        }
        JoinError::Unreachable { server: server.to_owned(), cause: root.to_string() }
    };
    let certificates = reqwest::Certificate::from_pem_bundle(server_ca).map_err(unreachable)?;
    let http = reqwest::Client::builder()
        .tls_certs_only(certificates)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_MAX)
        .build()
        .map_err(unreachable)?;
    let signing_request = BASE64_STANDARD.encode(identity.signing_request()?);
    let question = Question { signing_request, token: token.trim() };
    let response =
        http.post(format!("{server}/v1/nodes/join")).json(&question).send().await.map_err(unreachable)?;
    let refused = |said: String| JoinError::Refused { server: server.to_owned(), said };
    if !response.status().is_success() {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let said =
            said.and_then(|body| body.get("error").and_then(|error| error.as_str().map(str::to_owned)));
        return Err(refused(said.unwrap_or_else(|| status.to_string())));
    }
    let answer = response.json::<Answer>().await;
    let Answer { certificate, node, origin } =
        answer.map_err(|_| refused("an answer that isn't what it should be".to_owned()))?;
    let membership = Membership { node, origin, server: server.to_owned() };
    identity.joined(&membership, &certificate, server_ca)?;
    Ok(membership)
}
