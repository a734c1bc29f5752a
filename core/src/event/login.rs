//! Logins: a person proves an identity, or fails to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How somebody proved who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A password at `custody login`.
    Password,
    /// An SSH certificate at the proxy.
    SshCertificate,
    /// A password at the proxy, asked for over SSH (RFC 4256).
    KeyboardInteractive,
    /// An X.509 client certificate at the API.
    ClientCertificate,
}

/// How somebody tried to prove who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attempt {
    /// A password at `custody login`.
    Password,
    /// An SSH certificate at the proxy.
    SshCertificate,
    /// A password at the proxy, asked for over SSH (RFC 4256).
    KeyboardInteractive,
    /// An X.509 client certificate at the API.
    ClientCertificate,
    /// The token of a service account, or of a `[[reader]]` of the log, at the API; since version 2.
    ServiceToken,
}

/// Somebody proved who he is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Succeeded {
    /// How.
    pub method: Method,
}

impl Succeeded {
    pub(super) fn example() -> Self {
        Self { method: Method::SshCertificate }
    }
}

/// Somebody failed to prove who he is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The name that was claimed, where a user or a service account of that name exists. A name that nobody has
    /// isn't kept: people type passwords into the wrong field.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub claimed_user: Option<String>,
    /// How.
    pub method: Attempt,
    /// Why it failed. The person was told less.
    pub reason: String,
}

impl Failed {
    pub(super) fn example() -> Self {
        Self {
            claimed_user: Some("alice".into()),
            method: Attempt::Password,
            reason: "wrong password".into(),
        }
    }
}
