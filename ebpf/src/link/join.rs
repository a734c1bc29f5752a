//! Joining: a token that is good once becomes a certificate.

use super::address::Address;
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
    /// The server's address isn't one.
    #[error("{0} is no address of a server: https://host:port, or of IPv6 https://[address]:port")]
    Address(String),
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
    let server = server.trim_end_matches('/');
    if Address::parse(server).is_none() {
        return Err(JoinError::Address(server.to_owned()));
    }
    identity.make_key()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_address_is_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::new(directory.path());
        let token = Zeroizing::new("token".to_owned());
        for wrong in ["https://2001:db8::1", "http://log.example:3443", "https://log.example:port"] {
            let said = join(&identity, wrong, b"", &token).await.unwrap_err();
            assert!(matches!(&said, JoinError::Address(server) if server == wrong), "{said}");
        }
        assert!(!identity.key_file().exists());
    }
}
