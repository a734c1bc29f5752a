//! What ends a relayed connection, and who is to blame.

use super::Side;
use crate::ssh::message::MessageError;

/// Why the relay can't go on. After any of them but [`RelayError::Unimplemented`] and
/// [`RelayError::ApiMisuse`] both legs must be disconnected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// A peer broke RFC 4254.
    #[error("the {side} broke the SSH protocol: expected {expect}, got {got}; the connection must end")]
    PeerMisbehaved {
        /// Who.
        side: Side,
        /// What the protocol allows there.
        expect: &'static str,
        /// What came.
        got: String,
    },
    /// A peer's message has not the layout of its number.
    #[error("the {side} sent a malformed message: {why}; the connection must end")]
    Malformed {
        /// Who.
        side: Side,
        /// What is wrong with it.
        #[source]
        why: MessageError,
    },
    /// A message number that RFC 4254 doesn't know. Nothing changed: answer the packet with
    /// `SSH_MSG_UNIMPLEMENTED` (RFC 4253, section 11.4) and go on.
    #[error("the {side} sent message number {number}, which is not implemented; answer so and go on")]
    Unimplemented {
        /// Who.
        side: Side,
        /// Which number.
        number: u8,
    },
    /// A peer would make the proxy hold more than it may.
    #[error("the {side} made the proxy hold more than {max} {what}; the connection must end")]
    LimitExceeded {
        /// Who.
        side: Side,
        /// What there is too much of.
        what: &'static str,
        /// The most that is allowed.
        max: usize,
    },
    /// The session layer decided something that can't be done to this message. Nothing moved.
    #[error("the relay was misused: expected {expect}, got {got}; this is a bug of the proxy")]
    ApiMisuse {
        /// What would have been right.
        expect: &'static str,
        /// What came.
        got: &'static str,
    },
}

impl RelayError {
    pub(super) fn misbehaved(side: Side, expect: &'static str, got: impl Into<String>) -> Self {
        RelayError::PeerMisbehaved { side, expect, got: got.into() }
    }

    pub(super) fn malformed(side: Side, why: MessageError) -> Self {
        match why {
            MessageError::UnknownNumber(number) => RelayError::Unimplemented { side, number },
            why => RelayError::Malformed { side, why },
        }
    }
}
