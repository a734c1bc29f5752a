//! The SSH transport (RFC 4253) and nothing else, for both roles: server towards the user's client,
//! client towards the target's sshd.
//!
//! It does no I/O: bytes, and the time, are passed in; bytes to be sent are taken out. [`leg::Leg`] is one side
//! of the relay; below it lie, in the order in which a byte passes them, [`packet`] (binary packets),
//! [`cipher`] and [`mac`], [`negotiate`] (KEXINIT), [`kex`] (key exchange), [`derive`] (exchange hash and keys),
//! [`host_key`] (who the server is) and [`rekey`] (when keys are old). What comes out is a message of the layers
//! above, 50 to 127, and service requests; what peers do wrong is an [`error::Error`] that says who is to blame.
//!
//! Strict key exchange is always offered, and where the peer lacks it chacha20-poly1305 is neither offered, as far as
//! that can be known ([`quirk`]), nor taken: Terrapin (CVE-2023-48795) then has nothing to cut, since GCM's counter
//! doesn't depend on sequence numbers.

pub mod cipher;
mod ctr_mac;
pub mod derive;
pub mod error;
pub mod host_key;
mod kem;
pub mod kex;
pub mod leg;
pub mod mac;
pub mod negotiate;
pub mod packet;
pub mod quirk;
pub mod rekey;
pub mod version;
pub mod wire;

/// Message numbers of the transport layer (RFC 4250 section 4.1.2, RFC 5656 section 7.1, RFC 8308).
pub mod number {
    #![allow(missing_docs)] // the names are the RFCs'
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const KEX_LAST: u8 = 49;
    pub const USERAUTH_FIRST: u8 = 50;
    pub const CONNECTION_LAST: u8 = 127;
}

/// Reason codes of SSH_MSG_DISCONNECT (RFC 4250 section 4.2.2) that this proxy sends.
pub mod reason {
    #![allow(missing_docs)] // the names are the RFC's
    pub const HOST_NOT_ALLOWED_TO_CONNECT: u32 = 1;
    pub const PROTOCOL_ERROR: u32 = 2;
    pub const KEY_EXCHANGE_FAILED: u32 = 3;
    pub const MAC_ERROR: u32 = 5;
    pub const SERVICE_NOT_AVAILABLE: u32 = 7;
    pub const PROTOCOL_VERSION_NOT_SUPPORTED: u32 = 8;
    pub const HOST_KEY_NOT_VERIFIABLE: u32 = 9;
    pub const CONNECTION_LOST: u32 = 10;
    pub const BY_APPLICATION: u32 = 11;
    pub const NO_MORE_AUTH_METHODS_AVAILABLE: u32 = 14;
}
