//! What can go wrong on one leg, and whose fault it is.

use super::reason;
use super::wire::WireError;

/// Longest text of a peer that is kept, in characters: it goes into events and onto terminals.
const PEER_TEXT_CHARS_MAX: usize = 255;

/// Why a leg ended. After an error the leg is closed; a farewell for the peer may wait in its output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol.
    #[error("the peer broke the SSH protocol: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The peer is honest, but we have no common ground.
    #[error("the peer can't talk to us: {0}")]
    PeerIncompatible(#[from] PeerIncompatible),
    /// The peer said goodbye (SSH_MSG_DISCONNECT, RFC 4253 section 11.1).
    #[error("the peer ended the connection (reason {reason}): {text}")]
    PeerDisconnected {
        /// Its reason code.
        reason: u32,
        /// Its text, made printable and cut to 255 characters.
        text: String,
    },
    /// The owner of the leg refused the host key that the target showed.
    #[error("the target's host key was refused")]
    HostKeyRefused,
    /// We did something that this leg can't take.
    #[error("misuse of the SSH transport: {0}")]
    ApiMisuse(#[from] ApiMisuse),
    /// The cryptographic library failed us: no randomness, or no memory.
    #[error("the cryptographic library failed to {0}; try again, and look at the machine if it stays")]
    Crypto(&'static str),
}

/// What the peer did that RFC 4253 and its extensions forbid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A line before the key exchange that is no SSH version.
    #[error("expected a line SSH-2.0-…, got {got:?}")]
    NotSsh {
        /// The line, printable and cut.
        got: String,
    },
    /// A version line, or a banner line, over 255 bytes.
    #[error("a line before the key exchange is longer than {max} bytes")]
    LineTooLong {
        /// The limit.
        max: usize,
    },
    /// Too many lines before the version.
    #[error("more than {max_lines} lines or {max_bytes} bytes before the SSH version")]
    TooManyLines {
        /// The limit of lines.
        max_lines: usize,
        /// The limit of bytes.
        max_bytes: usize,
    },
    /// The packet's length field is out of bounds.
    #[error(
        "a packet's length is {got}, expected at least {min}, at most {max} and a multiple of {block} in all"
    )]
    PacketLength {
        /// As sent (or as decrypted: an attacker's noise, too).
        got: usize,
        /// Smallest.
        min: usize,
        /// Largest, at this point of the connection.
        max: usize,
        /// Block size of the cipher.
        block: usize,
    },
    /// The padding is shorter than 4 bytes or leaves no payload.
    #[error("a packet of length {length} claims {padding} bytes of padding")]
    Padding {
        /// Length of padding length, payload and padding.
        length: usize,
        /// The claim.
        padding: usize,
    },
    /// The authentication tag is wrong.
    #[error("packet {sequence} was altered on its way: its authentication tag is wrong")]
    Tag {
        /// Its sequence number.
        sequence: u32,
    },
    /// A message whose fields can't be read.
    #[error("{message}: {source}")]
    Malformed {
        /// Which message.
        message: &'static str,
        /// What was wrong in it.
        source: WireError,
    },
    /// A message at the wrong time.
    #[error("got message {got} while waiting for {expect}")]
    Unexpected {
        /// What may come here.
        expect: &'static str,
        /// Its number.
        got: u8,
    },
    /// Strict key exchange: something stood before the first KEXINIT, or within the first exchange.
    #[error("strict key exchange: message {got} may not come before the first NEWKEYS")]
    StrictKex {
        /// Number of the message, or of the KEXINIT that wasn't first.
        got: u8,
    },
    /// The public value of the exchange has the wrong length, is invalid, or gives an all-zero secret.
    #[error("the key exchange's public value is invalid for {algorithm}")]
    BadPublicValue {
        /// The method.
        algorithm: &'static str,
    },
    /// The host key isn't of the negotiated kind, or can't be read.
    #[error("expected a host key for {expect}, got one that is {got}")]
    HostKeyKind {
        /// The negotiated algorithm.
        expect: &'static str,
        /// What it is instead.
        got: String,
    },
    /// The signature over the exchange hash is wrong: a man in the middle, or a broken peer.
    #[error(
        "the host's signature over the key exchange is wrong (algorithm {algorithm}): someone may be in between"
    )]
    HostSignature {
        /// The negotiated algorithm.
        algorithm: &'static str,
    },
    /// A later key exchange showed another host key than the first.
    #[error("the host key changed in the middle of the connection")]
    HostKeyChanged,
    /// More key exchanges than anybody needs before authentication.
    #[error("more than {max} key exchanges before authentication")]
    TooManyExchanges {
        /// The limit.
        max: u32,
    },
    /// More packets than anybody needs before authentication.
    #[error("more than {max} packets before authentication")]
    TooManyPackets {
        /// The limit.
        max: u32,
    },
    /// The peer never renewed keys although it was asked, until a nonce would come twice.
    #[error("2^32 packets under one key: the peer doesn't let keys be renewed")]
    KeyExhausted,
}

/// What we and the peer don't have in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIncompatible {
    /// Another protocol version.
    #[error("it speaks {got:?}, we speak SSH-2.0")]
    Version {
        /// Its line, printable.
        got: String,
    },
    /// No common algorithm.
    #[error("no common {what}: it offers {theirs}, we offer {ours}")]
    NoCommon {
        /// What was negotiated.
        what: &'static str,
        /// Our list.
        ours: String,
        /// Its list, cut.
        theirs: String,
    },
    /// chacha20-poly1305 without strict key exchange is open to Terrapin.
    #[error(
        "it chose chacha20-poly1305 without strict key exchange (CVE-2023-48795): update it or let it use aes256-gcm@openssh.com"
    )]
    Terrapin,
    /// An RSA host key under 2,048 bits, or over 8,192.
    #[error("its RSA host key has {bits} bits, we take 2048 to 8192")]
    RsaSize {
        /// Of the modulus.
        bits: usize,
    },
}

/// What our own code did wrong with a leg.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiMisuse {
    /// The leg has ended.
    #[error("this leg is closed")]
    Closed,
    /// A message before the first key exchange.
    #[error("nothing may be sent before the first key exchange is done")]
    NotReady,
    /// Larger than any packet that peers must take.
    #[error("a message of {got} bytes is over the limit of {max}")]
    TooLong {
        /// Its length.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A message that this layer sends by itself, or none at all.
    #[error("message {got} belongs to the transport layer")]
    NotOurs {
        /// Its number; 0 for an empty payload.
        got: u8,
    },
    /// The owner goes on sending while keys are exchanged.
    #[error(
        "more than {max} bytes wait for the end of a key exchange; read the other leg only while this one can send"
    )]
    HeldTooMuch {
        /// The limit.
        max: usize,
    },
    /// The owner goes on reading while the host key is not yet judged.
    #[error("more than {max} bytes wait for the verdict on the host key")]
    UnreadTooMuch {
        /// The limit.
        max: usize,
    },
    /// A verdict when none was asked for.
    #[error("no host key waits for a verdict")]
    NoHostKeyPending,
    /// A host key that can't sign what it is offered for.
    #[error("host key: {0}")]
    HostKey(&'static str),
}

impl Error {
    /// Code and text of the DISCONNECT that tells the peer; `None` where telling makes no sense.
    #[must_use]
    pub fn farewell(&self) -> Option<(u32, &'static str)> {
        Some(match self {
            Self::PeerDisconnected { .. } | Self::ApiMisuse(_) | Self::Crypto(_) => return None,
            Self::PeerMisbehaved(PeerMisbehaved::NotSsh { .. }) => return None,
            Self::PeerMisbehaved(PeerMisbehaved::Tag { .. }) => {
                (reason::MAC_ERROR, "message authentication failed")
            }
            Self::PeerMisbehaved(
                PeerMisbehaved::BadPublicValue { .. }
                | PeerMisbehaved::HostSignature { .. }
                | PeerMisbehaved::HostKeyKind { .. },
            )
            | Self::PeerIncompatible(PeerIncompatible::RsaSize { .. }) => {
                (reason::KEY_EXCHANGE_FAILED, "key exchange failed")
            }
            Self::PeerMisbehaved(_) => (reason::PROTOCOL_ERROR, "protocol error"),
            Self::PeerIncompatible(PeerIncompatible::Version { .. }) => {
                (reason::PROTOCOL_VERSION_NOT_SUPPORTED, "only SSH-2.0 is spoken here")
            }
            Self::PeerIncompatible(PeerIncompatible::NoCommon { .. }) => {
                (reason::KEY_EXCHANGE_FAILED, "no common algorithm")
            }
            Self::PeerIncompatible(PeerIncompatible::Terrapin) => (
                reason::KEY_EXCHANGE_FAILED,
                "chacha20-poly1305 needs strict key exchange here: use aes256-gcm@openssh.com",
            ),
            Self::HostKeyRefused => (reason::HOST_KEY_NOT_VERIFIABLE, "host key refused"),
        })
    }
}

/// A peer's text as one may print it: UTF-8, no control characters, at most 255 characters.
#[must_use]
pub fn printable(text: &[u8]) -> String {
    let cut = text.get(..PEER_TEXT_CHARS_MAX * 4).unwrap_or(text);
    String::from_utf8_lossy(cut)
        .chars()
        .take(PEER_TEXT_CHARS_MAX)
        .map(|c| if c.is_control() || is_direction_mark(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Marks that turn the reading direction can make a line on a terminal say something else.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_text_is_printable_and_bounded() {
        assert_eq!(printable(b"bye\x1b[2J\n\xff"), "bye\u{fffd}[2J\u{fffd}\u{fffd}");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\u{fffd}b");
        assert_eq!(printable(&[b'x'; 5000]).len(), 255);
    }
}
