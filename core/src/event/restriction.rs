//! Restrictions: what sessions may reach, run and touch on the node that they are on. The node's kernel holds them, also
//! against what is live already.

use super::lock::Matches;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A network, or a part of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// In CIDR notation (RFC 4632, RFC 4291): `192.0.2.0/24`, `2001:db8::/32`.
    pub cidr: String,
    /// Ports, `443` or `8000-8080`; all of them where none stands here.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ports: Vec<String>,
}

/// What sessions may reach, run or touch was restricted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Where anything stands here, nothing else may be reached.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub allow: Vec<Network>,
    /// Programs: where anything stands here, nothing else may be run. Absolute paths of files, or of directories with all
    /// below them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub allow_programs: Vec<String>,
    /// What may not be reached.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub deny: Vec<Network>,
    /// Files, and directories with all below them, that may not be touched: absolute paths.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub deny_paths: Vec<String>,
    /// Programs that may not be run: absolute paths of files, or of directories with all below them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub deny_programs: Vec<String>,
    /// Whether a session that tries ends.
    pub ends_session: bool,
    /// Whose sessions.
    pub matches: Matches,
    /// The restriction's name.
    pub name: String,
    /// What it is for.
    pub reason: String,
}

impl Created {
    pub(super) fn example() -> Self {
        Self {
            allow: Vec::new(),
            allow_programs: Vec::new(),
            deny: vec![Network { cidr: "198.51.100.0/24".into(), ports: vec!["443".into()] }],
            deny_paths: vec!["/etc/shadow".into()],
            deny_programs: vec!["/usr/bin/curl".into()],
            ends_session: false,
            matches: Matches { role: Some("contractor".into()), ..Matches::default() },
            name: "no-internet".into(),
            reason: "contractors stay inside".into(),
        }
    }
}

/// A restriction no longer holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lifted {
    /// Its name.
    pub name: String,
}

impl Lifted {
    pub(super) fn example() -> Self {
        Self { name: "no-internet".into() }
    }
}
