//! The messages of SSH's connection protocol (RFC 4254, numbers 80 to 100), read and written.
//!
//! Reading borrows from the payload and copies nothing. Strings are bytes: commands, environment
//! variables and paths are whatever the user's system says they are, and a proxy that insists on UTF-8
//! breaks them. A message whose layout isn't the one of its number is refused, trailing bytes included:
//! what the proxy judges must be exactly what the target reads. Only what stands behind a REQUEST_FAILURE is
//! passed over: it has no meaning, and Go's servers put a text there.

pub mod forward;
mod request;
mod wire;

#[cfg(test)]
mod tests;

pub use request::{Cookie, Request};
use wire::Reader;
pub(crate) use wire::{put_string, put_u32};

/// Longest name of a channel type or request, in bytes (RFC 4250, section 4.6.1).
pub const NAME_BYTES_MAX: usize = 64;

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254, section 5.2).
pub const STDERR: u32 = 1;

/// Reasons of `SSH_MSG_CHANNEL_OPEN_FAILURE` (RFC 4254, section 5.1).
pub mod open_failure {
    /// The answerer's policy forbids it.
    pub const ADMINISTRATIVELY_PROHIBITED: u32 = 1;
    /// What the channel should lead to can't be reached.
    pub const CONNECT_FAILED: u32 = 2;
    /// The answerer doesn't know this type of channel.
    pub const UNKNOWN_CHANNEL_TYPE: u32 = 3;
    /// The answerer has no room for another channel.
    pub const RESOURCE_SHORTAGE: u32 = 4;
}

/// Message numbers (RFC 4254, section 9).
pub mod number {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
}

/// Why a payload isn't a message of the connection protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Nothing to read a message number from.
    #[error("the message is empty")]
    Empty,
    /// Not one of RFC 4254's numbers: to be answered with `SSH_MSG_UNIMPLEMENTED` (RFC 4253, 11.4).
    #[error("message number {0} is not one of the connection protocol")]
    UnknownNumber(u8),
    /// The payload ends before a field does.
    #[error("{message} ends within its field '{field}'")]
    Truncated {
        /// Which message or request.
        message: &'static str,
        /// The field that isn't whole.
        field: &'static str,
    },
    /// Bytes are left behind the last field.
    #[error("{message} has {bytes} bytes behind its last field")]
    Trailing {
        /// Which message or request.
        message: &'static str,
        /// How many are left.
        bytes: usize,
    },
    /// A channel type or request name longer than [`NAME_BYTES_MAX`].
    #[error("{message} has a name of {bytes} bytes; at most 64 are allowed")]
    NameTooLong {
        /// Which message.
        message: &'static str,
        /// The name's length.
        bytes: usize,
    },
}

/// One message of the connection protocol, borrowed from its payload.
///
/// `recipient` is the channel number of whoever receives the message, `sender` that of whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Asks something of the connection as a whole (section 4).
    GlobalRequest {
        /// `tcpip-forward`, `no-more-sessions@openssh.com` …
        name: &'a [u8],
        /// Whether success or failure must be answered, in order.
        want_reply: bool,
        /// What belongs to the request, not interpreted.
        data: &'a [u8],
    },
    /// Answers the oldest global request that wants a reply (section 4).
    RequestSuccess {
        /// What belongs to the answer, not interpreted.
        data: &'a [u8],
    },
    /// Answers the oldest global request that wants a reply (section 4).
    RequestFailure,
    /// Asks for a channel (section 5.1).
    ChannelOpen {
        /// The channel type: `session`, `direct-tcpip`, `x11` …
        kind: &'a [u8],
        /// The opener's number for it.
        sender: u32,
        /// Bytes that the opener takes before it must adjust.
        window: u32,
        /// Most bytes of data that the opener takes in one message.
        max_packet: u32,
        /// What belongs to the type, not interpreted.
        data: &'a [u8],
    },
    /// Grants a channel (section 5.1).
    ChannelOpenConfirmation {
        /// The opener's number.
        recipient: u32,
        /// The answerer's number.
        sender: u32,
        /// Bytes that the answerer takes before it must adjust.
        window: u32,
        /// Most bytes of data that the answerer takes in one message.
        max_packet: u32,
        /// What belongs to the type, not interpreted.
        data: &'a [u8],
    },
    /// Refuses a channel (section 5.1).
    ChannelOpenFailure {
        /// The opener's number.
        recipient: u32,
        /// One of [`open_failure`], or a private one.
        reason: u32,
        /// A text for people.
        description: &'a [u8],
        /// Its language tag (RFC 3066); nearly always empty.
        language: &'a [u8],
    },
    /// Lets the other side send so many bytes more (section 5.2).
    WindowAdjust {
        /// The receiver's number.
        recipient: u32,
        /// How many.
        bytes: u32,
    },
    /// Bytes of the channel (section 5.2).
    Data {
        /// The receiver's number.
        recipient: u32,
        /// The bytes.
        data: &'a [u8],
    },
    /// Bytes of another stream of the channel (section 5.2).
    ExtendedData {
        /// The receiver's number.
        recipient: u32,
        /// Which stream: [`STDERR`], or another.
        stream: u32,
        /// The bytes.
        data: &'a [u8],
    },
    /// No more data will come from this side (section 5.3).
    Eof {
        /// The receiver's number.
        recipient: u32,
    },
    /// Nothing more will come from this side on the channel (section 5.3).
    Close {
        /// The receiver's number.
        recipient: u32,
    },
    /// Asks something of a channel (section 5.4).
    ChannelRequest {
        /// The receiver's number.
        recipient: u32,
        /// Whether success or failure must be answered, in order.
        want_reply: bool,
        /// What is asked.
        request: Request<'a>,
    },
    /// Answers the channel's oldest request that wants a reply (section 5.4).
    ChannelSuccess {
        /// The receiver's number.
        recipient: u32,
    },
    /// Answers the channel's oldest request that wants a reply (section 5.4).
    ChannelFailure {
        /// The receiver's number.
        recipient: u32,
    },
}

impl<'a> Message<'a> {
    /// Reads one message from a packet's payload.
    ///
    /// # Errors
    /// The number is not of the connection protocol, or the layout is not that number's.
    pub fn parse(payload: &'a [u8]) -> Result<Self, MessageError> {
        let (&number, body) = payload.split_first().ok_or(MessageError::Empty)?;
        let name = name_of(number).ok_or(MessageError::UnknownNumber(number))?;
        let mut r = Reader::new(name, body);
        let message = match number {
            number::GLOBAL_REQUEST => Message::GlobalRequest {
                name: r.name("request name")?,
                want_reply: r.boolean("want reply")?,
                data: r.rest(),
            },
            number::REQUEST_SUCCESS => Message::RequestSuccess { data: r.rest() },
            number::REQUEST_FAILURE => {
                r.rest();
                Message::RequestFailure
            }
            number::CHANNEL_OPEN => Message::ChannelOpen {
                kind: r.name("channel type")?,
                sender: r.u32("sender channel")?,
                window: r.u32("initial window size")?,
                max_packet: r.u32("maximum packet size")?,
                data: r.rest(),
            },
            number::CHANNEL_OPEN_CONFIRMATION => Message::ChannelOpenConfirmation {
                recipient: r.u32("recipient channel")?,
                sender: r.u32("sender channel")?,
                window: r.u32("initial window size")?,
                max_packet: r.u32("maximum packet size")?,
                data: r.rest(),
            },
            number::CHANNEL_OPEN_FAILURE => Message::ChannelOpenFailure {
                recipient: r.u32("recipient channel")?,
                reason: r.u32("reason code")?,
                // Old servers leave these two out; nothing is judged by them.
                description: if r.is_empty() { b"" } else { r.string("description")? },
                language: if r.is_empty() { b"" } else { r.string("language tag")? },
            },
            number::CHANNEL_WINDOW_ADJUST => Message::WindowAdjust {
                recipient: r.u32("recipient channel")?,
                bytes: r.u32("bytes to add")?,
            },
            number::CHANNEL_DATA => {
                Message::Data { recipient: r.u32("recipient channel")?, data: r.string("data")? }
            }
            number::CHANNEL_EXTENDED_DATA => Message::ExtendedData {
                recipient: r.u32("recipient channel")?,
                stream: r.u32("data type code")?,
                data: r.string("data")?,
            },
            number::CHANNEL_EOF => Message::Eof { recipient: r.u32("recipient channel")? },
            number::CHANNEL_CLOSE => Message::Close { recipient: r.u32("recipient channel")? },
            number::CHANNEL_REQUEST => {
                let recipient = r.u32("recipient channel")?;
                let name = r.name("request type")?;
                let want_reply = r.boolean("want reply")?;
                Message::ChannelRequest { recipient, want_reply, request: Request::parse(name, r.rest())? }
            }
            number::CHANNEL_SUCCESS => Message::ChannelSuccess { recipient: r.u32("recipient channel")? },
            number::CHANNEL_FAILURE => Message::ChannelFailure { recipient: r.u32("recipient channel")? },
            other => return Err(MessageError::UnknownNumber(other)),
        };
        r.end()?;
        Ok(message)
    }

    /// Appends the message as a packet's payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.number());
        match *self {
            Message::GlobalRequest { name, want_reply, data } => {
                put_string(out, name);
                out.push(u8::from(want_reply));
                out.extend_from_slice(data);
            }
            Message::RequestSuccess { data } => out.extend_from_slice(data),
            Message::RequestFailure => {}
            Message::ChannelOpen { kind, sender, window, max_packet, data } => {
                put_string(out, kind);
                put_u32(out, sender);
                put_u32(out, window);
                put_u32(out, max_packet);
                out.extend_from_slice(data);
            }
            Message::ChannelOpenConfirmation { recipient, sender, window, max_packet, data } => {
                put_u32(out, recipient);
                put_u32(out, sender);
                put_u32(out, window);
                put_u32(out, max_packet);
                out.extend_from_slice(data);
            }
            Message::ChannelOpenFailure { recipient, reason, description, language } => {
                put_u32(out, recipient);
                put_u32(out, reason);
                put_string(out, description);
                put_string(out, language);
            }
            Message::WindowAdjust { recipient, bytes } => {
                put_u32(out, recipient);
                put_u32(out, bytes);
            }
            Message::Data { recipient, data } => {
                put_u32(out, recipient);
                put_string(out, data);
            }
            Message::ExtendedData { recipient, stream, data } => {
                put_u32(out, recipient);
                put_u32(out, stream);
                put_string(out, data);
            }
            Message::ChannelRequest { recipient, want_reply, request } => {
                put_u32(out, recipient);
                put_string(out, request.name());
                out.push(u8::from(want_reply));
                request.encode(out);
            }
            Message::Eof { recipient }
            | Message::Close { recipient }
            | Message::ChannelSuccess { recipient }
            | Message::ChannelFailure { recipient } => put_u32(out, recipient),
        }
    }

    /// The message as a payload of its own.
    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.encode(&mut out);
        out
    }

    /// The message's number (RFC 4254, section 9).
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Message::GlobalRequest { .. } => number::GLOBAL_REQUEST,
            Message::RequestSuccess { .. } => number::REQUEST_SUCCESS,
            Message::RequestFailure => number::REQUEST_FAILURE,
            Message::ChannelOpen { .. } => number::CHANNEL_OPEN,
            Message::ChannelOpenConfirmation { .. } => number::CHANNEL_OPEN_CONFIRMATION,
            Message::ChannelOpenFailure { .. } => number::CHANNEL_OPEN_FAILURE,
            Message::WindowAdjust { .. } => number::CHANNEL_WINDOW_ADJUST,
            Message::Data { .. } => number::CHANNEL_DATA,
            Message::ExtendedData { .. } => number::CHANNEL_EXTENDED_DATA,
            Message::Eof { .. } => number::CHANNEL_EOF,
            Message::Close { .. } => number::CHANNEL_CLOSE,
            Message::ChannelRequest { .. } => number::CHANNEL_REQUEST,
            Message::ChannelSuccess { .. } => number::CHANNEL_SUCCESS,
            Message::ChannelFailure { .. } => number::CHANNEL_FAILURE,
        }
    }

    /// The message's name in RFC 4254, without `SSH_MSG_`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(self.number()).unwrap_or("?")
    }

    /// The channel number that the message is addressed to; `None` for global ones and CHANNEL_OPEN.
    #[must_use]
    pub fn recipient(&self) -> Option<u32> {
        match *self {
            Message::GlobalRequest { .. }
            | Message::RequestSuccess { .. }
            | Message::RequestFailure
            | Message::ChannelOpen { .. } => None,
            Message::ChannelOpenConfirmation { recipient, .. }
            | Message::ChannelOpenFailure { recipient, .. }
            | Message::WindowAdjust { recipient, .. }
            | Message::Data { recipient, .. }
            | Message::ExtendedData { recipient, .. }
            | Message::Eof { recipient }
            | Message::Close { recipient }
            | Message::ChannelRequest { recipient, .. }
            | Message::ChannelSuccess { recipient }
            | Message::ChannelFailure { recipient } => Some(recipient),
        }
    }

    /// Whether OpenSSH says it to its like only, and waits for no answer (its PROTOCOL, sections 2.1 and 2.2).
    #[must_use]
    pub fn is_for_openssh_only(&self) -> bool {
        matches!(
            self,
            Message::ChannelRequest { want_reply: false, request: Request::EndOfWrite, .. }
                | Message::GlobalRequest { want_reply: false, name: b"no-more-sessions@openssh.com", .. }
        )
    }

    /// Whether it answers a CHANNEL_OPEN.
    #[must_use]
    pub fn answers_open(&self) -> bool {
        matches!(self, Message::ChannelOpenConfirmation { .. } | Message::ChannelOpenFailure { .. })
    }

    /// Bytes that the message takes from its receiver's window: those of data, of any stream.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        match self {
            Message::Data { data, .. } | Message::ExtendedData { data, .. } => data.len(),
            _ => 0,
        }
    }
}

/// Whether a packet with this number belongs to the connection protocol (RFC 4250, section 4.1.2).
#[must_use]
pub fn is_connection_protocol(number: u8) -> bool {
    (80..=127).contains(&number)
}

/// Writes another recipient channel into a payload whose message has one, in place.
///
/// # Errors
/// The payload is too short to have a recipient.
pub(crate) fn set_recipient(payload: &mut [u8], recipient: u32) -> Result<(), MessageError> {
    wire::overwrite_u32(payload, 1, recipient)
}

/// Writes sender channel and maximum packet into a CHANNEL_OPEN whose type has `kind_bytes` bytes.
///
/// # Errors
/// The payload is too short to be one.
pub(crate) fn set_open(
    payload: &mut [u8],
    kind_bytes: usize,
    sender: u32,
    max_packet: u32,
) -> Result<(), MessageError> {
    wire::overwrite_u32(payload, 5 + kind_bytes, sender)?;
    wire::overwrite_u32(payload, 5 + kind_bytes + 8, max_packet)
}

/// Writes recipient, sender channel and maximum packet into a CHANNEL_OPEN_CONFIRMATION.
///
/// # Errors
/// The payload is too short to be one.
pub(crate) fn set_confirmation(
    payload: &mut [u8],
    recipient: u32,
    sender: u32,
    max_packet: u32,
) -> Result<(), MessageError> {
    wire::overwrite_u32(payload, 1, recipient)?;
    wire::overwrite_u32(payload, 5, sender)?;
    wire::overwrite_u32(payload, 13, max_packet)
}

fn name_of(number: u8) -> Option<&'static str> {
    Some(match number {
        number::GLOBAL_REQUEST => "GLOBAL_REQUEST",
        number::REQUEST_SUCCESS => "REQUEST_SUCCESS",
        number::REQUEST_FAILURE => "REQUEST_FAILURE",
        number::CHANNEL_OPEN => "CHANNEL_OPEN",
        number::CHANNEL_OPEN_CONFIRMATION => "CHANNEL_OPEN_CONFIRMATION",
        number::CHANNEL_OPEN_FAILURE => "CHANNEL_OPEN_FAILURE",
        number::CHANNEL_WINDOW_ADJUST => "CHANNEL_WINDOW_ADJUST",
        number::CHANNEL_DATA => "CHANNEL_DATA",
        number::CHANNEL_EXTENDED_DATA => "CHANNEL_EXTENDED_DATA",
        number::CHANNEL_EOF => "CHANNEL_EOF",
        number::CHANNEL_CLOSE => "CHANNEL_CLOSE",
        number::CHANNEL_REQUEST => "CHANNEL_REQUEST",
        number::CHANNEL_SUCCESS => "CHANNEL_SUCCESS",
        number::CHANNEL_FAILURE => "CHANNEL_FAILURE",
        _ => return None,
    })
}
