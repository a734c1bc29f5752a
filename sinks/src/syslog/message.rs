//! Messages of RFC 5424, and the frames of RFC 5425.

use crate::format::is_one_line;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::event::hex::to_hex;
use custody_core::mapping::{Logged, Severity};

/// RFC 5424, 6: the longest names.
pub const HOSTNAME_BYTES_MAX: usize = 255;
/// What a frame adds, about.
const FRAME_BYTES: usize = 8;
const MSGID_BYTES_MAX: usize = 32;

/// What all messages of a sink have in common.
pub struct Header {
    pub facility: u8,
    pub enterprise: u32,
    pub hostname: String,
    pub origin: String,
    /// The longest message, without its frame.
    pub bytes_max: usize,
}

impl Header {
    /// A message with `body`, which is cut at a character where the whole would be too long. Then its length and its
    /// SHA-256 stand in the structured data beside the index, so that the log can be asked for the rest.
    pub fn message(
        &self,
        logged: &Logged<'_>,
        (kind, how_bad): (&str, Severity),
        redacted: bool,
        body: &[u8],
    ) -> Vec<u8> {
        let encoded;
        let (text, is_text) = match str::from_utf8(body) {
            // What has line ends in it is no event, and would be two messages for a receiver that counts lines.
            Ok(text) if is_one_line(text) => (text, true),
            _ => {
                encoded = STANDARD.encode(body);
                (encoded.as_str(), false)
            }
        };
        let priority = u32::from(self.facility) * 8 + severity(how_bad);
        let appended = logged.appended.to_string();
        let mut message = format!(
            "<{priority}>1 {} {} custody - {} [custody@{} origin=\"{}\" index=\"{}\" leaf=\"{}\" appended=\"{appended}\"",
            timestamp(&appended),
            self.hostname,
            message_id(kind),
            self.enterprise,
            value(&self.origin),
            logged.index,
            to_hex(&logged.leaf.0),
        );
        if redacted {
            message.push_str(" redacted=\"true\"");
        }
        if !is_text {
            message.push_str(" encoding=\"base64\"");
        }
        // The bracket and the blank behind it.
        let room = self.bytes_max.saturating_sub(message.len() + 2);
        if text.len() <= room {
            message.reserve(text.len() + 2 + FRAME_BYTES);
            message.push_str("] ");
            message.push_str(text);
            return message.into_bytes();
        }
        let hash = to_hex(digest(&SHA256, text.as_bytes()).as_ref());
        message.push_str(&format!(" length=\"{}\" sha256=\"{hash}\"] ", text.len()));
        let room = self.bytes_max.saturating_sub(message.len());
        let (beginning, _) = text.split_at(text.floor_char_boundary(room));
        message.push_str(beginning);
        message.into_bytes()
    }
}

/// RFC 5425, 4.3: the length in decimal digits, a blank, the message.
pub fn frame(mut message: Vec<u8>) -> Vec<u8> {
    let length = format!("{} ", message.len());
    message.splice(0..0, length.into_bytes());
    message
}

/// The host in an origin, which is a URL without its scheme.
pub fn hostname(origin: &str) -> String {
    let host = origin.split('/').next().unwrap_or_default();
    let mut host: String = host.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    host.truncate(HOSTNAME_BYTES_MAX);
    if host.is_empty() { "-".to_owned() } else { host }
}

/// RFC 5424's PRINTUSASCII.
pub fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// RFC 5424, table 2. None of ours makes a system unusable.
const fn severity(severity: Severity) -> u32 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    }
}

/// RFC 5424, 6.2.3 takes six digits of a second; the structured data have all nine.
fn timestamp(appended: &str) -> String {
    match (appended.get(..26), appended.get(26..)) {
        (Some(micros), Some(rest)) if rest.len() == 4 && rest.ends_with('Z') => format!("{micros}Z"),
        _ => "-".to_owned(),
    }
}

/// The event's type as MSGID.
fn message_id(kind: &str) -> String {
    let id: String = kind.chars().filter(char::is_ascii_graphic).take(MSGID_BYTES_MAX).collect();
    if id.is_empty() { "-".to_owned() } else { id }
}

/// RFC 5424, 6.3.3: PARAM-VALUE.
fn value(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(if c.is_control() { ' ' } else { c });
    }
    escaped
}
