//! Appending over the network: what an agent and the `log` role say to each other, and how an agent signs.
//!
//! One connection within mutual TLS, begun by the agent; frames both ways ([`frame`]), each a message ([`message`]). The
//! agent sends its events in batches, in the order of their numbers, each batch signed with the node's key
//! ([`signature`]); the log acknowledges what is durable. The other way come the sessions that are about to be opened to
//! the node. What isn't acknowledged is sent again after the next connect: the log takes each number once. What it would never take
//! ends the connection, and the agent hears why ([`message::encode_refusal`]).

pub mod frame;
pub mod halves;
pub mod message;
pub mod signature;

/// What an agent asks for by ALPN (RFC 7301) on the port of the API. Its number rises with what the log may ask of an agent, since
/// one that doesn't know a kind of restriction couldn't hold sessions to it.
pub const PROTOCOL: &[u8] = b"custody-ingest/3";

/// How often each side says that it is there, in milliseconds, where it has nothing else to say.
pub const ALIVE_MILLISECONDS: u64 = 1_000;

/// After how long a silence the other side counts as gone, in milliseconds.
pub const SILENCE_MILLISECONDS_MAX: u64 = 5_000;
