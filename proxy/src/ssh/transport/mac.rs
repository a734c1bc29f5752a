//! Message authentication codes, for the one cipher mode that doesn't authenticate by itself: HMAC over SHA-2
//! (RFC 6668) as encrypt-then-MAC (OpenSSH's PROTOCOL section 1.9), so that nothing is decrypted before it was
//! authenticated.

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA512, Key};

/// Longest MAC and MAC key, bytes.
pub const MAC_LEN_MAX: usize = 64;

/// A MAC that can be negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mac {
    /// hmac-sha2-256-etm@openssh.com
    HmacSha256Etm,
    /// hmac-sha2-512-etm@openssh.com
    HmacSha512Etm,
}

impl Mac {
    /// All of them, in our order of preference.
    pub const ALL: [Self; 2] = [Self::HmacSha256Etm, Self::HmacSha512Etm];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256Etm => "hmac-sha2-256-etm@openssh.com",
            Self::HmacSha512Etm => "hmac-sha2-512-etm@openssh.com",
        }
    }

    /// Bytes of its key, and of what it makes (RFC 6668 section 2).
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(self) -> usize {
        match self {
            Self::HmacSha256Etm => 32,
            Self::HmacSha512Etm => 64,
        }
    }

    pub(super) fn key(self, bytes: &[u8; MAC_LEN_MAX]) -> Key {
        let algorithm = match self {
            Self::HmacSha256Etm => HMAC_SHA256,
            Self::HmacSha512Etm => HMAC_SHA512,
        };
        Key::new(algorithm, bytes.get(..self.len()).unwrap_or_default())
    }
}
