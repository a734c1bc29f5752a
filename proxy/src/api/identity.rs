//! Who asks: a client certificate becomes a user whom the state still knows.

use super::Api;
use super::error::ApiError;
use crate::ca::x509::sole_common_name;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use custody_core::event::certificate::Authority;
use custody_core::event::{Actor, ByteString, Person, SessionId, Source, Timestamp};
use custody_core::policy::{Circumstances, Request, What};
use custody_core::state::State;
use custody_core::state::locks::Subject;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How much of what a client calls itself is kept, in bytes.
const CLIENT_BYTES_MAX: usize = 256;

const NO_CERTIFICATE: &str = "no client certificate was shown: log in with `custody login`";
const BAD_CERTIFICATE: &str = "the client certificate isn't one that this server knows: log in again";
const RUN_OUT: &str = "the client certificate has run out: log in again";
const NO_USER: &str = "the certificate's user doesn't exist any more";

/// The other end of a connection: put into each of its requests by the listener.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it proved to hold, verified against the client CA by the handshake.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What a client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The user.
    pub user: String,
    /// Serial number, decimal, as `certificate.issued` has it.
    pub serial: String,
    /// First second of validity, since 1970.
    pub valid_from: u64,
    /// Last second of validity, since 1970.
    pub valid_until: u64,
}

/// A person whose identity is proved and who is still somebody.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the certificate says.
    pub shown: Shown,
    /// Roles of this moment, sorted.
    pub roles: Vec<String>,
    /// Where from.
    pub source: Source,
    address: SocketAddr,
}

impl Caller {
    /// On whose behalf events are.
    pub fn actor(&self) -> Actor {
        Actor::Person(Person {
            certificate: Some(self.shown.serial.clone()),
            identity_provider: "local".to_owned(),
            mfa: false,
            roles: self.roles.clone(),
            user: self.shown.user.clone(),
        })
    }

    /// Whether the certificate still proves somebody whom the state knows.
    pub(super) fn still(&self, state: &State, now: Timestamp) -> Result<(), ApiError> {
        if now.seconds() > self.shown.valid_until {
            return Err(ApiError::Unproved(RUN_OUT));
        }
        admit(state, &self.shown, now).map(drop)
    }

    /// The request that policy decides about, at `now`.
    pub fn request(&self, what: What, now: Timestamp) -> Request {
        Request {
            user: self.shown.user.clone(),
            what,
            session: None::<SessionId>,
            circumstances: Circumstances {
                certificate_seconds: now.seconds().saturating_sub(self.shown.valid_from),
                mfa: false,
                source: self.address.ip(),
                time: now,
            },
        }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>().ok_or(ApiError::Unproved(NO_CERTIFICATE))?;
        let der = peer.certificate.as_ref().ok_or(ApiError::Unproved(NO_CERTIFICATE))?;
        let shown = read_certificate(der).ok_or(ApiError::Unproved(BAD_CERTIFICATE))?;
        let now = api.now();
        // The handshake looked at the dates when the connection began, and connections live long.
        if now.seconds() > shown.valid_until {
            return Err(ApiError::Unproved(RUN_OUT));
        }
        let roles = api.context.replica.read(|state| admit(state, &shown, now))?;
        Ok(Self { shown, roles, source: source(peer.address, &parts.headers), address: peer.address })
    }
}

/// Where a request comes from.
pub fn source(address: SocketAddr, headers: &HeaderMap) -> Source {
    let client = headers.get(USER_AGENT).map(|value| ByteString::cut(value.as_bytes(), CLIENT_BYTES_MAX));
    Source { address: address.ip().to_string(), client, port: address.port() }
}

/// The user's roles, if the log knows the certificate, the user exists and no lock is on him.
fn admit(state: &State, shown: &Shown, now: Timestamp) -> Result<Vec<String>, ApiError> {
    let issued = state.certificates().with_serial(Authority::ClientX509, &shown.serial);
    if issued.is_none_or(|certificate| certificate.subject != shown.user) {
        return Err(ApiError::Unproved(BAD_CERTIFICATE));
    }
    let user = state.users().get(&shown.user).ok_or(ApiError::Unproved(NO_USER))?;
    let subject =
        Subject { user: &shown.user, roles: Some(&user.roles), node: None, login: None, session: None };
    match state.locks().matching(&subject, now) {
        Some((name, lock)) => Err(ApiError::Denied(format!("locked by {name}: {}", lock.reason))),
        None => Ok(user.roles.iter().cloned().collect()),
    }
}

/// Reads what a verified certificate says.
fn read_certificate(der: &CertificateDer<'_>) -> Option<Shown> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let user = sole_common_name(&certificate)?;
    let seconds = |time: i64| u64::try_from(time).ok();
    rest.is_empty().then_some(Shown {
        user,
        serial: serial_decimal(certificate.raw_serial())?,
        valid_from: seconds(certificate.validity().not_before.timestamp())?,
        valid_until: seconds(certificate.validity().not_after.timestamp())?,
    })
}

/// A serial number of at most 16 bytes, big-endian, as decimal digits.
fn serial_decimal(bytes: &[u8]) -> Option<String> {
    let bytes = match bytes {
        [0, rest @ ..] => rest,
        all => all,
    };
    if bytes.len() > 16 {
        return None;
    }
    let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Some(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_decimal() {
        assert_eq!(serial_decimal(&[0, 255, 1]).as_deref(), Some("65281"));
        assert_eq!(serial_decimal(&[0xff; 16]).as_deref(), Some("340282366920938463463374607431768211455"));
        assert_eq!(serial_decimal(&[1; 17]), None);
        assert_eq!(serial_decimal(&[]).as_deref(), Some("0"));
    }

    #[test]
    fn rubbish_is_no_certificate() {
        assert_eq!(read_certificate(&CertificateDer::from(vec![])), None);
        assert_eq!(read_certificate(&CertificateDer::from(vec![0x30; 600])), None);
    }
}
