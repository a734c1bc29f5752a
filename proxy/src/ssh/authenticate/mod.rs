//! Both sides of SSH user authentication (RFC 4252), as state machines over messages: no sockets, no clock.
//!
//! [`server`] is what a person's client speaks to: it takes certificates of our client authorities and, where that is
//! configured, a user's name and password. [`client`] is what speaks to a target: it shows the session's certificate. Both are fed the payloads that
//! the transport has decrypted, one message a call, and give the payloads to send. A state is a type named by what
//! it awaits and is used up by [`handle`](server::ExpectRequest::handle); a success is a type that only a valid
//! signature makes.

pub mod client;
mod interactive;
mod method;
pub mod server;

pub use method::SignatureFault;

/// Message numbers of RFC 4250 section 4.1.2 that these machines read or write.
mod message {
    pub(super) const DISCONNECT: u8 = 1;
    pub(super) const IGNORE: u8 = 2;
    pub(super) const UNIMPLEMENTED: u8 = 3;
    pub(super) const DEBUG: u8 = 4;
    pub(super) const SERVICE_REQUEST: u8 = 5;
    pub(super) const SERVICE_ACCEPT: u8 = 6;
    /// RFC 8308
    pub(super) const EXT_INFO: u8 = 7;
    pub(super) const USERAUTH_REQUEST: u8 = 50;
    pub(super) const USERAUTH_FAILURE: u8 = 51;
    pub(super) const USERAUTH_SUCCESS: u8 = 52;
    pub(super) const USERAUTH_BANNER: u8 = 53;
    pub(super) const USERAUTH_PK_OK: u8 = 60;
    /// RFC 4256 section 5: the same number, in another method.
    pub(super) const USERAUTH_INFO_REQUEST: u8 = 60;
    pub(super) const USERAUTH_INFO_RESPONSE: u8 = 61;

    /// What the transport may let through at any time and means nothing here (RFC 4253 section 11, RFC 8308).
    pub(super) fn is_transport_noise(number: u8) -> bool {
        matches!(number, IGNORE | UNIMPLEMENTED | DEBUG | EXT_INFO)
    }
}

const SERVICE_USERAUTH: &[u8] = b"ssh-userauth";
const SERVICE_CONNECTION: &[u8] = b"ssh-connection";
const METHOD_PUBLICKEY: &[u8] = b"publickey";
const METHOD_INTERACTIVE: &[u8] = b"keyboard-interactive";

/// Longest piece of a target's banner, in bytes: every client takes packets of 35,000 (RFC 4253 section 6.1).
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// A target's text for the person, character by character as it came, in as many USERAUTH_BANNER (RFC 4252 section 5.4)
/// as it takes. Only control characters but tab, line feed and carriage return become `?`, so that no text can drive a
/// terminal.
pub fn banners(text: &str) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut piece = String::new();
    for character in text.chars() {
        if piece.len() + character.len_utf8() > PIECE_BYTES_MAX {
            payloads.push(payload(&piece));
            piece.clear();
        }
        let harmless = !character.is_control() || matches!(character, '\t' | '\n' | '\r');
        piece.push(if harmless { character } else { '?' });
    }
    payloads.push(payload(&piece));
    payloads
}

fn payload(text: &str) -> Vec<u8> {
    let mut payload = vec![message::USERAUTH_BANNER];
    super::field::put_string(&mut payload, text.as_bytes());
    super::field::put_string(&mut payload, b"");
    payload
}

#[cfg(test)]
mod tests;
