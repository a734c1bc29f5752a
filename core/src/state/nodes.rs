//! Nodes: the servers that are reached, and the agents that watch them.

use crate::event::node::{self, Agent, Tier};
use crate::event::{EventId, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Host and port of its sshd.
    pub address: String,
    /// Whether its sessions are watched.
    #[serde(skip_serializing_if = "Agent::is_none")]
    pub agent: Agent,
    /// The key of its agent, Ed25519, hex, once one has joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<String>,
    /// A pinned host key, OpenSSH's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The index of the event that says so.
    pub since: u64,
    /// Leave for an agent to join, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<JoinToken>,
    /// What its agent said of itself when it was last started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched: Option<Watched>,
}

/// Leave for an agent to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JoinToken {
    /// The event that made it.
    pub event: EventId,
    /// The first moment at which it counts no longer.
    pub expires: Timestamp,
    /// The version of its hash in the secret store.
    pub version: u64,
}

/// How a node is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Watched {
    /// The index of the event that says so.
    pub index: u64,
    /// The kernel's release.
    pub kernel: String,
    /// What can't be seen or refused there: the feature, and why.
    pub limits: BTreeMap<String, String>,
    /// That the agent is gone: the index of the event that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// By which means.
    pub tier: Tier,
}

/// How much an agent may say of what it can't do: entries, and characters of each.
const LIMITS_MAX: usize = 64;
const LIMIT_CHARS_MAX: usize = 256;

/// All nodes by name.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Nodes(BTreeMap<String, Node>);

const NO_NODE: &str = "there is no such node";

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

    /// The version of a node's newest token, 0 where it has none.
    #[must_use]
    pub fn token_version(&self, name: &str) -> u64 {
        self.0.get(name).and_then(|node| node.token.as_ref()).map_or(0, |token| token.version)
    }

    /// What stands about it is put in the place of what stood there; its agent stays.
    pub(super) fn added(&mut self, index: u64, data: node::Added) {
        let node::Added { address, agent, host_key, labels, name } = data;
        let before = self.0.remove(&name);
        let (agent_key, token, watched) =
            before.map_or((None, None, None), |node| (node.agent_key, node.token, node.watched));
        let node = Node { address, agent, agent_key, host_key, labels, since: index, token, watched };
        self.0.insert(name, node);
    }

    pub(super) fn removed(&mut self, data: &node::Removed) -> Result<(), &'static str> {
        self.0.remove(&data.name).map(drop).ok_or(NO_NODE)
    }

    pub(super) fn token_created(
        &mut self,
        event: EventId,
        data: &node::TokenCreated,
    ) -> Result<(), &'static str> {
        let node = self.0.get_mut(&data.name).ok_or(NO_NODE)?;
        node.token = Some(JoinToken { event, expires: data.expires, version: data.secret_version });
        Ok(())
    }

    /// An agent joins by a token, which is used up. `cause` is the event that made it.
    pub(super) fn enrolled(
        &mut self,
        cause: Option<EventId>,
        data: node::Enrolled,
    ) -> Result<(), &'static str> {
        let node = self.0.get_mut(&data.name).ok_or(NO_NODE)?;
        node.token.take_if(|token| cause == Some(token.event)).ok_or("no token lets it join")?;
        node.agent_key = Some(data.key);
        node.watched = None;
        Ok(())
    }

    pub(super) fn joined(&mut self, index: u64, name: &str, data: node::Joined) -> Result<(), &'static str> {
        let node = self.0.get_mut(name).ok_or(NO_NODE)?;
        let cut = |text: &str| text.chars().take(LIMIT_CHARS_MAX).collect::<String>();
        let limits = data.limits.iter().take(LIMITS_MAX).map(|(what, why)| (cut(what), cut(why))).collect();
        node.watched =
            Some(Watched { index, kernel: cut(&data.kernel), limits, lost: None, tier: data.tier });
        Ok(())
    }

    pub(super) fn lost(&mut self, index: u64, data: &node::Lost) -> Result<(), &'static str> {
        let watched = self.0.get_mut(&data.name).ok_or(NO_NODE)?.watched.as_mut();
        watched.ok_or("no agent has joined")?.lost = Some(index);
        Ok(())
    }
}
