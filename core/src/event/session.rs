//! Sessions: one authenticated connection of a person to one target, from the request to its one end.

use crate::event::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A person was allowed to reach a target, and the target hasn't heard of it yet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// `ssh`.
    pub protocol: String,
    /// How much of it is recorded: `full`, `terminal`, `metadata` or `none`.
    pub recording: String,
}

impl Requested {
    pub(super) fn example() -> Self {
        Self { protocol: "ssh".into(), recording: "terminal".into() }
    }
}

/// The target has taken the proxy's certificate; the session is live.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// `SHA256:…` of the target's host key.
    pub host_key: String,
    /// How the host key was proved: `certificate` or `pinned`.
    pub host_proof: String,
    /// Serial number of the session's certificate, decimal.
    pub serial: String,
    /// The target's identification line.
    pub server: ByteString,
    /// The node's agent watches: its kernel has seen the connection come in.
    #[serde(skip_serializing_if = "super::process::is_false", default)]
    pub watched: bool,
}

impl Started {
    pub(super) fn example() -> Self {
        Self {
            host_key: "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8".into(),
            host_proof: "certificate".into(),
            serial: "991283123".into(),
            server: "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7".into(),
            watched: true,
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The client left.
    ClientClosed,
    /// The target left.
    TargetClosed,
    /// The target couldn't be reached, or didn't take the proxy's certificate.
    TargetUnavailable,
    /// The target's host key isn't the one that is trusted.
    HostKeyRefused,
    /// A lock or a change of policy; `cause` names the event.
    Locked,
    /// Somebody who may had it ended, or it tried what a restriction ends it for; `cause` names the event.
    Terminated,
    /// The node's agent is gone, without which nobody sees what the session does; `cause` names the `node.lost`.
    NodeLost,
    /// One side broke the protocol.
    ProtocolError,
    /// The log couldn't take evidence for longer than the limit.
    LogUnavailable,
    /// The recording couldn't be written.
    RecordingFailed,
    /// The proxy was stopped.
    ProxyStopped,
    /// The proxy died: said by the next start, up to the last evidence.
    ProxyCrashed,
    /// The certificate that opened the session has run out.
    Expired,
}

/// Somebody has a live session ended. It is durable before the session hears of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EndRequested {
    /// The session's id.
    pub name: String,
    /// What the people concerned are told.
    pub reason: String,
}

impl EndRequested {
    pub(super) fn example() -> Self {
        Self { name: "01900000-0000-7000-8000-000000000005".into(), reason: "incident 4711".into() }
    }
}

/// The one end of a session.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// Bytes of SSH payload from the client.
    pub bytes_in: u64,
    /// Bytes of SSH payload to the client.
    pub bytes_out: u64,
    /// One line for people.
    pub detail: String,
    /// The index in the log of the last evidence of the session, where the proxy couldn't say its end itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_evidence: Option<u64>,
    /// Why.
    pub reason: EndReason,
}

impl Ended {
    pub(super) fn example() -> Self {
        Self {
            bytes_in: 812,
            bytes_out: 20_311,
            detail: "the client disconnected".into(),
            last_evidence: None,
            reason: EndReason::ClientClosed,
        }
    }
}
