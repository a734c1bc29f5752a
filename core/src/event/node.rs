//! Nodes: the servers that are reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A node was made known, or its record replaced.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// Host and port of its sshd.
    pub address: String,
    /// A pinned host key in OpenSSH's form; without one the node must show a certificate of the host CA.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_key: Option<String>,
    /// Labels that policies may ask for.
    pub labels: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
}

impl Added {
    pub(super) fn example() -> Self {
        Self {
            address: "192.0.2.10:22".into(),
            host_key: None,
            labels: BTreeMap::from([("env".into(), "prod".into())]),
            name: "web-1".into(),
        }
    }
}

/// A node was removed: what is live there ends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Its name.
    pub name: String,
}

impl Removed {
    pub(super) fn example() -> Self {
        Self { name: "web-1".into() }
    }
}

/// Something answered at a node's address with a host key that isn't trusted; nothing was sent to it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HostKeyRefused {
    /// What was expected: a fingerprint, or the host CA's.
    pub expected: String,
    /// The fingerprint that was shown.
    pub got: String,
    /// Why it isn't trusted.
    pub reason: String,
}

impl HostKeyRefused {
    pub(super) fn example() -> Self {
        Self {
            expected: "a certificate of SHA256:1pVkMKGMhwUhHTW2ZNDBJmXz5iEWNeSkaB0jTOVZxnE".into(),
            got: "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8".into(),
            reason: "the key is not pinned and carries no certificate".into(),
        }
    }
}
