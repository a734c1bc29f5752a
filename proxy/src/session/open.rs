//! The beginning of a session: a person is proved, a decision is made, and both are durable before the target
//! hears of it.

use super::identity::Identity;
use super::watch::Watch;
use super::{Access, Session};
use crate::ssh::target::HostTrust;
use custody_core::event::login;
use custody_core::event::node::Agent;
use custody_core::event::{
    Actor, ByteString, Draft, Outcome, SessionId, Source, System, Target, Timestamp, session,
};
use custody_core::log::ProducerError;
use custody_core::policy::files;
use custody_core::policy::networks::{self, Reach};
use custody_core::policy::permit::{Connect, NoPermit, Permit};
use custody_core::policy::{Circumstances, Decision, RecordingLevel, Request, What, decide};
use custody_core::state::State;
use custody_core::state::nodes::Node;
use russh::keys::ssh_key::PublicKey;
use std::net::SocketAddr;
use std::sync::Arc;

/// A session that may connect, and how.
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// The index of its `session.requested`.
    pub index: u64,
    /// Leave to connect.
    pub permit: Permit<Connect>,
    /// How the node's host key is known.
    pub trust: HostTrust,
    /// How much is recorded.
    pub recording: RecordingLevel,
    /// How it is watched.
    pub watch: Watch,
}

impl OpenError {
    /// Whether nothing was appended yet: the refusal then needs an event of its own.
    #[must_use]
    pub fn came_before_the_decision(&self) -> bool {
        matches!(self, Self::NoTarget | Self::NoUser | Self::PinnedKey(_))
    }
}

/// Why a session isn't opened. `Display` is for the person.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Policy or a lock says no. Whether the node exists isn't told to those who may not reach it.
    #[error("access denied: {0}")]
    Denied(String),
    /// The log can't take the evidence.
    #[error("the audit log takes no evidence, so nothing can be done: tell your administrator")]
    NoEvidence(#[source] ProducerError),
    /// The name isn't `login+node`.
    #[error("say which account at which node: ssh LOGIN+NODE@PROXY")]
    NoTarget,
    /// The certificate doesn't name exactly one user.
    #[error("your certificate names no single user: log in again with `custody login`")]
    NoUser,
    /// The node's pinned key can't be read.
    #[error("the pinned host key of {0} can't be read: add the node anew")]
    PinnedKey(String),
    /// A mistake in this program.
    #[error("{0}")]
    Permit(String),
}

/// What the state says about a request, read in one moment.
struct Seen {
    decision: Decision,
    roles: Vec<String>,
    address: Option<String>,
    pinned: Option<String>,
    agent: Agent,
    reach: Reach,
    no_paths: Option<String>,
}

/// Decides whether a proved person may reach a node as `login`, and makes it durable.
///
/// # Errors
/// See [`OpenError`]; what was decided is in the log all the same.
pub async fn open(
    access: &Access,
    identity: &Identity,
    wanted: Option<(String, String)>,
    from: SocketAddr,
    client: Option<&str>,
) -> Result<Opened, OpenError> {
    let (login, node) = wanted.ok_or(OpenError::NoTarget)?;
    let user = &identity.user;
    let now = access.clock.wall().0;
    let id = SessionId::new();
    let circumstances = Circumstances {
        certificate_seconds: (now / 1_000_000_000).saturating_sub(identity.since),
        mfa: false,
        source: from.ip(),
        time: Timestamp::from_nanos(now),
    };
    let login = ByteString::from(login.as_str());
    let request = Request {
        user: user.clone(),
        what: What::Connect { node: node.clone(), login: login.clone() },
        session: Some(id),
        circumstances,
    };
    let seen = access.replica.read(|state| see(state, &request, &node));
    let pinned = seen.pinned.as_deref().map(PublicKey::from_openssh).transpose();
    let Ok(pinned) = pinned else { return Err(OpenError::PinnedKey(node)) };
    let trust = HostTrust { pinned, authorities: Arc::clone(&access.host_authorities) };

    let actor = identity.actor(seen.roles);
    let source = source(from, client);
    let target =
        Target { address: seen.address, kind: "node".to_owned(), login: Some(login), name: node.clone() };
    let proved = Draft::new(actor.clone(), login::Succeeded { method: identity.method })
        .source(source.clone())
        .session(id)
        .outcome(Outcome::Success);
    let allowed = seen.decision.allowed();
    let reason = seen.decision.made.reason.clone();
    let decision = Draft::new(actor.clone(), seen.decision.made)
        .cause(proved.id)
        .session(id)
        .source(source.clone())
        .target(target.clone())
        .outcome(if allowed { Outcome::Success } else { Outcome::Denied });
    if !allowed {
        let _durable = access.proxy.append((proved, decision)).await.map_err(OpenError::NoEvidence)?;
        return Err(OpenError::Denied(reason));
    }
    let recording = seen.decision.recording;
    let requested = session::Requested { protocol: "ssh".to_owned(), recording: recording.name().to_owned() };
    let requested = Draft::new(actor.clone(), requested)
        .cause(decision.id)
        .session(id)
        .source(source.clone())
        .target(target.clone());
    let announced = requested.id;
    let (_proved, decided, announced_durably) =
        access.proxy.append((proved, decision, requested)).await.map_err(OpenError::NoEvidence)?;
    let index = announced_durably.index();
    let permit = Permit::try_from((decided, announced_durably)).map_err(|error| match error {
        NoPermit::Denied(reason) => OpenError::Denied(reason),
        unrelated => OpenError::Permit(unrelated.to_string()),
    })?;

    let session = Arc::new(Session {
        id,
        actor,
        user: user.clone(),
        source,
        target,
        circumstances,
        proved_since: identity.since,
        announced,
    });
    let watch = Watch {
        agents: Arc::clone(&access.agents),
        demand: seen.agent,
        reach: seen.reach,
        no_paths: seen.no_paths,
        session: Arc::clone(&session),
    };
    Ok(Opened { session, index, permit, trust, recording, watch })
}

fn see(state: &State, request: &Request, node: &str) -> Seen {
    let decision = decide(state, request);
    // Where a node is, is for those to know who may reach it.
    let known = decision.allowed().then(|| state.nodes().get(node)).flatten();
    Seen {
        agent: known.map_or(Agent::None, |node| node.agent),
        reach: request.about(state, |subject| networks::reach(state, subject)),
        no_paths: known.and_then(no_paths),
        roles: roles(state, &request.user),
        address: known.map(|node| node.address.clone()),
        pinned: known.and_then(|node| node.host_key.clone()),
        decision,
    }
}

/// Why a node's kernel can't keep files from sessions, as far as its agent has said. One that hasn't joined yet says so itself.
pub(super) fn no_paths(node: &Node) -> Option<String> {
    let watched = node.watched.as_ref()?;
    files::keeps_paths(watched.tier, &watched.limits).err()
}

/// Says that a proved person came to the proxy itself, from where nodes can be reached. It is durable when this returns.
///
/// # Errors
/// See [`OpenError`].
pub async fn came(
    access: &Access,
    identity: &Identity,
    from: SocketAddr,
    client: Option<&str>,
) -> Result<(), OpenError> {
    let roles = access.replica.read(|state| roles(state, &identity.user));
    let proved = Draft::new(identity.actor(roles), login::Succeeded { method: identity.method })
        .source(source(from, client))
        .outcome(Outcome::Success);
    access.proxy.append(proved).await.map(drop).map_err(OpenError::NoEvidence)
}

fn roles(state: &State, user: &str) -> Vec<String> {
    state.users().get(user).map(|user| user.roles.iter().cloned().collect()).unwrap_or_default()
}

fn source(from: SocketAddr, client: Option<&str>) -> Source {
    Source { address: from.ip().to_string(), client: client.map(ByteString::from), port: from.port() }
}

/// Says that somebody failed to prove who he is.
///
/// # Errors
/// When the log can't take it. The client was refused all the same.
pub async fn refused(access: &Access, from: SocketAddr, failed: login::Failed) -> Result<(), ProducerError> {
    let draft = Draft::new(Actor::System(System { system: "proxy".to_owned() }), failed)
        .source(source(from, None))
        .outcome(Outcome::Failure);
    access.proxy.append(draft).await.map(drop)
}
