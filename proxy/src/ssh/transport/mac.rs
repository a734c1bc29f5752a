//! Message authentication codes, for the one cipher mode that doesn't authenticate by itself: HMAC over SHA-2
//! (RFC 6668) as encrypt-then-MAC (OpenSSH's PROTOCOL section 1.9), so that nothing is decrypted before it was
//! authenticated; and over the clear packet, as RFC 4253 section 6.4 has it, for peers that know no other: libssh2 before
//! 1.11 (`curl sftp://` of Debian 12), SSH.NET and Twisted as clients, dropbear and appliances as targets.

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
    /// hmac-sha2-256
    HmacSha256,
    /// hmac-sha2-512
    HmacSha512,
}

impl Mac {
    /// All of them, in our order of preference.
    pub const ALL: [Self; 4] = [Self::HmacSha256Etm, Self::HmacSha512Etm, Self::HmacSha256, Self::HmacSha512];

    /// Those over what is encrypted, in our order of preference.
    pub const OVER_ENCRYPTED: [Self; 2] = [Self::HmacSha256Etm, Self::HmacSha512Etm];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256Etm => "hmac-sha2-256-etm@openssh.com",
            Self::HmacSha512Etm => "hmac-sha2-512-etm@openssh.com",
            Self::HmacSha256 => "hmac-sha2-256",
            Self::HmacSha512 => "hmac-sha2-512",
        }
    }

    /// Whether it is over what is encrypted, with the length in the clear; else over the clear packet, and the length is
    /// encrypted, too.
    #[must_use]
    pub fn is_over_encrypted(self) -> bool {
        matches!(self, Self::HmacSha256Etm | Self::HmacSha512Etm)
    }

    /// Bytes of its key, and of what it makes (RFC 6668 section 2).
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(self) -> usize {
        match self {
            Self::HmacSha256Etm | Self::HmacSha256 => 32,
            Self::HmacSha512Etm | Self::HmacSha512 => 64,
        }
    }

    pub(super) fn key(self, bytes: &[u8; MAC_LEN_MAX]) -> Key {
        let algorithm = match self {
            Self::HmacSha256Etm | Self::HmacSha256 => HMAC_SHA256,
            Self::HmacSha512Etm | Self::HmacSha512 => HMAC_SHA512,
        };
        Key::new(algorithm, bytes.get(..self.len()).unwrap_or_default())
    }
}
