//! Who reads events: a person by certificate, or a service account by a token that it shows with each request.
//!
//! The token's hash lies in the secret store under `service:NAME`, by a version that the log knows.

use super::error::ApiError;
use super::identity::{Caller, Peer, source};
use super::reading::Asks;
use super::refused::{Refused, Why, refuse};
use super::{Api, blocking};
use crate::login::token::{self, Minted};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use custody_core::event::{Actor, Source, Timestamp};
use custody_core::policy::{Circumstances, Request, What};
use custody_core::state::State;
use custody_core::state::locks::Subject;
use custody_core::state::services::Token;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

const PREFIX: &str = "custody~";
const WRONG: &str = "that token is of no service account here, or it was replaced: `custody service rotate`";
const RUN_OUT: &str = "the service account's token has run out: `custody service rotate`";

/// A fresh token for the service account `name`.
pub(super) fn mint(name: &str) -> Result<Minted, ApiError> {
    token::mint(PREFIX, name).ok_or_else(|| ApiError::failed("made a token", "no random bytes"))
}

/// Whose secret it is in the secret store: no user's name has a colon.
pub(super) fn secret_owner(name: &str) -> String {
    format!("service:{name}")
}

/// What stands behind `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A service account whose token was right.
#[derive(Clone, Debug)]
pub(super) struct Service {
    name: String,
    token: Token,
    source: Source,
    address: SocketAddr,
}

/// Who reads events.
#[derive(Clone, Debug)]
pub(super) enum Subscriber {
    /// Somebody with a certificate.
    Person(Box<Caller>),
    /// A program with a token.
    Service(Box<Service>),
}

impl Subscriber {
    /// What is decided about.
    pub fn what(&self) -> What {
        match self {
            Self::Person(_) => What::ReadLog,
            Self::Service(_) => What::ReadEvents,
        }
    }

    /// Whether what proved who it is still does, and policy still lets it read. Tells nothing.
    pub fn may_go_on(&self, api: &Api) -> Result<(), String> {
        let now = api.now();
        let proved = api.context.replica.read(|state| match self {
            Self::Person(caller) => caller.still(state, now),
            Self::Service(service) => admit(state, &service.name, service.token, now),
        });
        let proved = proved.map_err(|error| match error {
            ApiError::Denied(reason) => reason,
            other => other.to_string(),
        });
        proved.and_then(|()| api.may(self, self.what()))
    }
}

impl Asks for Subscriber {
    fn actor(&self) -> Actor {
        match self {
            Self::Person(caller) => caller.actor(),
            Self::Service(service) => Actor::system(&secret_owner(&service.name)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Person(caller) => caller.shown.user.clone(),
            Self::Service(service) => secret_owner(&service.name),
        }
    }

    fn source(&self) -> &Source {
        match self {
            Self::Person(caller) => &caller.source,
            Self::Service(service) => &service.source,
        }
    }

    fn request(&self, what: What, now: Timestamp) -> Request {
        match self {
            Self::Person(caller) => caller.request(what, now),
            Self::Service(service) => Request {
                user: service.name.clone(),
                what,
                session: None,
                circumstances: Circumstances {
                    certificate_seconds: now.seconds().saturating_sub(service.token.set.seconds()),
                    mfa: false,
                    source: service.address.ip(),
                    time: now,
                },
            },
        }
    }
}

impl FromRequestParts<Arc<Api>> for Subscriber {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Some(token) = bearer(&parts.headers).map(|token| Zeroizing::new(token.to_owned())) else {
            let caller = Caller::from_request_parts(parts, api).await?;
            return Ok(Self::Person(Box::new(caller)));
        };
        let peer = parts.extensions.get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| ApiError::failed("looked who asks", "the listener named no peer"))?;
        let source = source(peer.address, &parts.headers);
        match proved(api, &token).await? {
            Ok((name, token)) => {
                Ok(Self::Service(Box::new(Service { name, token, source, address: peer.address })))
            }
            Err(refused) => Err(refuse(api, refused, source).await),
        }
    }
}

/// The service account whose token this is, and which of its tokens; or why it proves nothing.
async fn proved(api: &Api, token: &str) -> Result<Result<(String, Token), Refused>, ApiError> {
    let refused =
        |name: Option<String>, why| Ok(Err(Refused { name, why, answer: ApiError::Unproved(WRONG) }));
    let Some(name) = token::claimed(PREFIX, token).map(str::to_owned) else {
        return refused(None, Why::Unknown);
    };
    let (tokens, was_known) = api.context.replica.read(|state| {
        let service = state.services().get(&name);
        (service.map(|service| service.tokens().collect::<Vec<Token>>()), state.services().knows(&name))
    });
    let Some(tokens) = tokens else {
        return if was_known { refused(Some(name), Why::Removed) } else { refused(None, Why::Unknown) };
    };
    let (secrets, shown, owner) = (Arc::clone(&api.context.secrets), token::hash(token), secret_owner(&name));
    let right = blocking("looked up a token", move || {
        for token in tokens {
            let stored = secrets.get(&owner, token.version)?;
            let is_right =
                |stored: &str| verify_slices_are_equal(stored.as_bytes(), shown.as_bytes()).is_ok();
            if stored.is_some_and(|stored| is_right(&stored)) {
                return Ok(Some(token));
            }
        }
        Ok::<_, crate::login::secrets::SecretError>(None)
    });
    let right = right.await?.map_err(|error| ApiError::failed("looked up a token", error))?;
    let Some(token) = right else { return refused(Some(name), Why::Wrong) };
    let now = api.now();
    let admitted = api.context.replica.read(|state| admit(state, &name, token, now));
    let Err(answer) = admitted else { return Ok(Ok((name, token))) };
    let why = match &answer {
        ApiError::Denied(_) => Why::Locked(token.version),
        ApiError::Unproved(RUN_OUT) => Why::RunOut(token.version),
        // It was replaced or removed just now.
        _ => Why::Wrong,
    };
    Ok(Err(Refused { name: Some(name), why, answer }))
}

/// Whether a token that was right counts: it is one of the service account's, hasn't run out, and no lock is on it.
fn admit(state: &State, name: &str, token: Token, now: Timestamp) -> Result<(), ApiError> {
    let service = state.services().get(name).ok_or(ApiError::Unproved(WRONG))?;
    let counts = service.tokens().find(|other| other.version == token.version);
    let counts = counts.ok_or(ApiError::Unproved(WRONG))?;
    if !counts.counts(now) {
        return Err(ApiError::Unproved(RUN_OUT));
    }
    let subject = Subject { user: name, roles: Some(&service.roles), node: None, login: None, session: None };
    match state.locks().matching(&subject, now) {
        Some((lock, why)) => Err(ApiError::Denied(format!("locked by {lock}: {}", why.reason))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_token_names_its_service_account_and_is_never_the_same() {
        let (one, two) = (mint("siem-1.x").unwrap(), mint("siem-1.x").unwrap());
        assert_eq!(token::claimed(PREFIX, &one.token), Some("siem-1.x"));
        assert!(one.token != two.token && one.hash != two.hash && one.hash == token::hash(&one.token));
        assert!(one.token.len() > 50 && !one.hash.contains(&*one.token));
        for wrong in
            ["", "custody~", "custody~~x", "custody~SIEM~x", "custody~a b~x", "siem~x", "custody~siem"]
        {
            assert_eq!(token::claimed(PREFIX, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_bearer_is_read_whatever_its_case() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        assert_eq!(bearer(&with("bEARER  x ")), Some("x"));
        for wrong in ["Basic eDp5", "Bearer", ""] {
            assert_eq!(bearer(&with(wrong)), None, "{wrong}");
        }
    }
}
