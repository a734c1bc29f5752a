//! Nodes: the servers that are reached.

use crate::event::node;
use serde::Serialize;
use std::collections::BTreeMap;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Host and port of its sshd.
    pub address: String,
    /// A pinned host key, OpenSSH's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The index of the event that says so.
    pub since: u64,
}

/// All nodes by name.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Nodes(BTreeMap<String, Node>);

impl Nodes {
    /// A node.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.0.get(name)
    }

    /// All nodes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(name, node)| (name.as_str(), node))
    }

    pub(super) fn added(&mut self, index: u64, data: node::Added) {
        let node::Added { address, host_key, labels, name } = data;
        self.0.insert(name, Node { address, host_key, labels, since: index });
    }

    pub(super) fn removed(&mut self, data: &node::Removed) -> Result<(), &'static str> {
        self.0.remove(&data.name).map(drop).ok_or("there is no such node")
    }
}
