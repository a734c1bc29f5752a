//! Certificates that Custody's authorities sign.

use crate::event::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which authority signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Authority {
    /// What people hold; only proxies trust it.
    ClientSsh,
    /// The same for TLS.
    ClientX509,
    /// What a proxy holds for one session; only targets trust it.
    TargetSsh,
    /// Host keys of nodes and of the proxy.
    HostSsh,
    /// TLS certificates of Custody's own servers.
    ServerX509,
    /// TLS certificates of nodes' agents; only the `log` role trusts it.
    AgentX509,
}

/// A certificate was signed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Issued {
    /// Who signed.
    pub authority: Authority,
    /// `SHA256:…` of the certified public key.
    pub key: String,
    /// Names that it is good for: principals, or DNS names and addresses.
    pub principals: Vec<String>,
    /// Serial number, decimal.
    pub serial: String,
    /// Whom or what it names.
    pub subject: String,
    /// First moment of validity.
    pub valid_from: Timestamp,
    /// Last moment of validity.
    pub valid_until: Timestamp,
}

impl Issued {
    pub(super) fn example() -> Self {
        Self {
            authority: Authority::ClientSsh,
            key: "SHA256:1pVkMKGMhwUhHTW2ZNDBJmXz5iEWNeSkaB0jTOVZxnE".into(),
            principals: vec!["alice".into()],
            serial: "7310384917230117".into(),
            subject: "alice".into(),
            valid_from: Timestamp::from_seconds(1_764_028_740),
            valid_until: Timestamp::from_seconds(1_764_057_600),
        }
    }
}
