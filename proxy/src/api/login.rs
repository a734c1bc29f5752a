//! From a password to certificates of some hours. They leave once `login.succeeded` and `certificate.issued` are durable;
//! whoever fails learns nothing but that he did.

use super::error::ApiError;
use super::identity::{Peer, source};
use super::{Api, whole};
use crate::ca::ssh::{IssuedSsh, LoginRequest, Permission};
use crate::ca::x509::check_signing_request;
use crate::login::prove::Unproved;
use crate::ssh::certificate::check_key;
use axum::Json;
use axum::extract::{Request, State as Shared};
use custody_core::event::certificate::{Authority, Issued};
use custody_core::event::login::{Attempt, Failed, Method, Succeeded};
use custody_core::event::{Actor, Draft, EventData, EventId, Outcome, Person, Source, Target, Timestamp};
use russh::keys::PublicKey;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The same for every failure, whatever its reason.
const WRONG: &str = "the user name or the password is wrong";
/// What the log says of a person who proved himself and went away with nothing.
const NOT_ISSUED: &str = "no certificate could be issued";
/// The longest user name that is looked at, in bytes.
const USER_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user: String,
    #[serde(deserialize_with = "secret")]
    password: Zeroizing<String>,
    ssh_public_key: String,
    x509_request: String,
}

/// A text that is wiped when it is no longer needed.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// What a person gets.
#[derive(Serialize)]
pub struct LoggedIn {
    user: String,
    roles: Vec<String>,
    ssh_certificate: String,
    x509_certificate: String,
    valid_until: Timestamp,
    authorities: PublicParts,
    ssh_address: String,
}

/// The public parts of all authorities and of the log.
#[derive(Serialize)]
pub struct PublicParts {
    client_ssh: String,
    target_ssh: String,
    host_ssh: String,
    server_x509: String,
    client_x509: String,
    origin: String,
    /// The newest key that signs the log's checkpoints: the one to pin.
    log_key: String,
    /// All that sign now, the oldest first: more than one while they are rotated.
    log_keys: Vec<String>,
    ssh_address: String,
}

/// `GET /v1/authorities`
pub async fn authorities(Shared(api): Shared<Arc<Api>>) -> Result<Json<PublicParts>, ApiError> {
    public_parts(&api).map(Json)
}

fn public_parts(api: &Api) -> Result<PublicParts, ApiError> {
    let context = &api.context;
    let authorities = &context.authorities;
    let line = |key: PublicKey| key.to_openssh().map_err(|error| ApiError::failed("wrote a key", error));
    let log_keys = context.replica.read(|state| state.log().map(|log| log.keys.clone()).unwrap_or_default());
    Ok(PublicParts {
        client_ssh: line(authorities.ssh_client.public_key())?,
        target_ssh: line(authorities.ssh_target.public_key())?,
        host_ssh: line(authorities.ssh_host.public_key())?,
        server_x509: authorities.x509_server.pem().to_owned(),
        client_x509: authorities.x509_client.pem().to_owned(),
        origin: context.log.origin().to_owned(),
        log_key: log_keys.last().cloned().unwrap_or_else(|| context.log.verifier_key().to_string()),
        log_keys,
        ssh_address: context.ssh_address.clone(),
    })
}

/// `POST /v1/login`
pub async fn login(Shared(api): Shared<Arc<Api>>, request: Request) -> Result<Json<LoggedIn>, ApiError> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().cloned();
    let peer = peer.ok_or_else(|| ApiError::failed("looked who asks", "the listener named no peer"))?;
    let source = source(peer.address, &parts.headers);
    let body = Zeroizing::new(whole(body).await?.to_vec());
    // A parser's message could quote the password.
    let mut asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        ApiError::Invalid(format!(
            "the login isn't {{user, password, ssh_public_key, x509_request}}: {place}"
        ))
    })?;
    let ssh_key = PublicKey::from_openssh(asked.ssh_public_key.trim())
        .map_err(|_| ApiError::Invalid("ssh_public_key is no OpenSSH public key".to_owned()))?;
    let signing_request = CertificateSigningRequestDer::from_pem_slice(asked.x509_request.as_bytes())
        .map_err(|_| ApiError::Invalid("x509_request is no PKCS#10 request in PEM".to_owned()))?;
    if asked.user.len() > USER_BYTES_MAX {
        return Err(ApiError::Invalid(format!("a user name has at most {USER_BYTES_MAX} bytes")));
    }
    // Before the password: what is refused after it would tell, without an event, that it was the right one.
    check_key(ssh_key.key_data())
        .map_err(|refusal| ApiError::Invalid(format!("ssh_public_key: {refusal}")))?;
    check_signing_request(&signing_request)
        .map_err(|why| ApiError::Invalid(format!("x509_request: {why}")))?;
    let user = asked.user;
    let password = Zeroizing::new(std::mem::take(&mut *asked.password).into_bytes());
    let proved = match api.context.passwords.prove(&user, password, peer.address.ip()).await {
        Ok(proved) => proved,
        Err(unproved) => return Err(failed(&api, unproved, source).await?),
    };
    let roles = proved.roles().to_vec();

    // The certificates are made first and leave last: between them stands the evidence.
    let succeeded = Draft::new(person(&user, &roles), Succeeded { method: Method::Password });
    let certified = match certify(&api, &user, ssh_key, &signing_request, succeeded.id) {
        Ok(certified) => certified,
        Err(error) => {
            tell_failed(&api, Some(user), NOT_ISSUED, source).await?;
            return Err(error);
        }
    };
    let about = About { user: &user, roles: &roles, source: &source, login: succeeded.id };
    let succeeded = succeeded.source(source.clone()).target(about.target()).outcome(Outcome::Success);
    let Certified { ssh_line, x509_pem, valid_until, told_ssh, told_x509 } = certified;
    let issued = vec![about.told(told_ssh), about.told(told_x509)];
    let (_succeeded, issued) = api.context.producer.append((succeeded, issued)).await?;
    if let Some(last) = issued.last() {
        api.context.replica.at_least(last.index()).await?;
    }
    Ok(Json(LoggedIn {
        ssh_certificate: ssh_line,
        x509_certificate: x509_pem,
        valid_until,
        authorities: public_parts(&api)?,
        ssh_address: api.context.ssh_address.clone(),
        user,
        roles,
    }))
}

/// Says in the log why it failed, and gives what the person is told.
async fn failed(api: &Api, unproved: Unproved, source: Source) -> Result<ApiError, ApiError> {
    let (claimed_user, reason) = match unproved {
        Unproved::Wrong { claimed_user, reason } => (claimed_user, reason),
        Unproved::Limited { seconds } => return Ok(ApiError::Limited { seconds }),
        Unproved::Failed(error) => return Ok(ApiError::failed("verified a password", error)),
    };
    tell_failed(api, claimed_user, reason, source).await?;
    Ok(ApiError::Unproved(WRONG))
}

async fn tell_failed(
    api: &Api,
    claimed_user: Option<String>,
    reason: &str,
    source: Source,
) -> Result<(), ApiError> {
    let failed = Failed { claimed_user, method: Attempt::Password, reason: reason.to_owned() };
    let draft = Draft::new(Actor::system("api"), failed).source(source).outcome(Outcome::Failure);
    let _durable = api.context.producer.append(draft).await?;
    Ok(())
}

fn person(user: &str, roles: &[String]) -> Actor {
    Actor::Person(Person {
        certificate: None,
        identity_provider: "local".to_owned(),
        mfa: false,
        roles: roles.to_vec(),
        user: user.to_owned(),
    })
}

/// Both certificates of a login, and what the log is told of them.
struct Certified {
    ssh_line: String,
    x509_pem: String,
    valid_until: Timestamp,
    told_ssh: Issued,
    told_x509: Issued,
}

/// Makes them. The keys were looked at before, so what fails here fails on this side.
fn certify(
    api: &Api,
    user: &str,
    public_key: PublicKey,
    signing_request: &[u8],
    login: EventId,
) -> Result<Certified, ApiError> {
    let (now, valid_seconds) = (api.now().seconds(), api.context.login_seconds);
    let failed = |error: crate::ca::IssueError| ApiError::failed("issued a certificate", error);
    let request = LoginRequest {
        public_key,
        user: user.to_owned(),
        key_id: login.to_string(),
        valid_seconds,
        source_addresses: Vec::new(),
        // What a person may do is for policy to say, at the moment when it is done.
        permissions: Permission::ALL.to_vec(),
    };
    let authorities = &api.context.authorities;
    let ssh = authorities.ssh_client.issue(now, &request).map_err(failed)?;
    let x509 = authorities.x509_client.issue(now, signing_request, user, valid_seconds).map_err(failed)?;
    let told_x509 = x509
        .told(Authority::ClientX509)
        .map_err(|error| ApiError::failed("read its own certificate", error))?;
    let ssh_line =
        ssh.certificate.to_openssh().map_err(|error| ApiError::failed("wrote a certificate", error))?;
    Ok(Certified {
        ssh_line,
        valid_until: Timestamp::from_seconds(x509.not_after.min(ssh.valid_before.saturating_sub(1))),
        told_ssh: told_ssh(&ssh, user),
        told_x509,
        x509_pem: x509.pem,
    })
}

/// What all events of one login have in common.
struct About<'a> {
    user: &'a str,
    roles: &'a [String],
    source: &'a Source,
    login: EventId,
}

impl About<'_> {
    fn target(&self) -> Target {
        Target { kind: "user".to_owned(), name: self.user.to_owned(), ..Target::default() }
    }

    fn told<D: EventData>(&self, data: D) -> Draft<D> {
        Draft::new(person(self.user, self.roles), data)
            .cause(self.login)
            .source(self.source.clone())
            .target(self.target())
            .outcome(Outcome::Success)
    }
}

fn told_ssh(issued: &IssuedSsh, user: &str) -> Issued {
    Issued {
        authority: Authority::ClientSsh,
        key: issued.key_fingerprint.clone(),
        principals: issued.principals.clone(),
        serial: issued.serial.to_string(),
        subject: user.to_owned(),
        valid_from: Timestamp::from_seconds(issued.valid_after),
        // OpenSSH names the first second that is no longer valid.
        valid_until: Timestamp::from_seconds(issued.valid_before.saturating_sub(1)),
    }
}
