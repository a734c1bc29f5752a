//! The target's side: connect with leave, check who answers, log in with the session's certificate.

use super::authenticate::client as login;
use super::certificate::{TrustedAuthorities, check_host_certificate};
use super::socket::{Heard, LegSocket, SocketError};
use super::stream::Stream;
use super::transport::host_key::{HostKeyAlgorithm, HostKeyOffered, PublicKeyOrCertificate};
use super::transport::leg::{ClientConfig, Leg};
use crate::ca::{CertifyError, SessionCertifier, ssh::Permission, ssh::SessionRequest};
use crate::ingest::agents::Seen;
use crate::session::watch::{Watch, WatchError, Watched};
use custody_core::clock::Clock;
use custody_core::event::{EventId, SessionId};
use custody_core::policy::permit::{Connect, Permit};
use russh::keys::ssh_key::{Certificate, Fingerprint, HashAlg, PublicKey};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a session's certificate is good for, in seconds: it is used within the next moments, once.
const CERTIFICATE_SECONDS: u64 = 120;
/// How long a target may take to be connected and logged in to.
const TARGET_TIMEOUT: Duration = Duration::from_secs(20);

/// How the node's host key is known.
#[derive(Clone, Debug)]
pub struct HostTrust {
    /// The one key that counts, where one is pinned.
    pub pinned: Option<PublicKey>,
    /// Else: whose host certificates for the node's name count.
    pub authorities: Arc<TrustedAuthorities>,
}

/// A target that let us in.
pub struct Target {
    /// Its leg and socket.
    pub socket: LegSocket,
    /// The event that announced the connection.
    pub announced: EventId,
    /// Fingerprint of its host key.
    pub host_key: String,
    /// `certificate` or `pinned`.
    pub host_proof: &'static str,
    /// Serial number of the session's certificate.
    pub serial: u64,
    /// Its identification line.
    pub version: String,
    /// Texts that it shows to people before login.
    pub banners: Vec<String>,
    /// The node's agent watches, as long as this lives.
    pub seen: Option<Seen>,
}

/// Why a target can't be used. `Display` is for the person, too.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No connection.
    #[error("{name} ({address}) can't be reached: {cause}")]
    Unreachable {
        /// The node.
        name: String,
        /// Its address.
        address: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It can be reached, and can't be watched as it must be.
    #[error(transparent)]
    Unwatched(WatchError),
    /// It took too long.
    #[error("{name} ({address}) didn't answer within {} seconds", TARGET_TIMEOUT.as_secs())]
    Timeout {
        /// The node.
        name: String,
        /// Its address.
        address: String,
    },
    /// Something else answers there, or its key has changed.
    #[error("{name} shows a host key that isn't trusted ({refused}): nothing was sent to it")]
    HostKey {
        /// The node.
        name: String,
        /// Expected and got.
        refused: HostKeyRefusal,
    },
    /// It broke the connection or the protocol.
    #[error("{name} ended the connection before login: {cause}")]
    Broken {
        /// The node.
        name: String,
        /// How.
        cause: SocketError,
    },
    /// It didn't let us in.
    #[error("{name}: {fault}")]
    Refused {
        /// The node.
        name: String,
        /// Why.
        fault: login::TargetFault,
    },
    /// There is no certificate for the session.
    #[error("the session got no certificate: {0}")]
    Certificate(#[from] CertifyError),
    /// The system has no randomness.
    #[error("{0}")]
    Randomness(#[from] login::NoRandomness),
    /// The permit is for something without an address: a mistake in this program.
    #[error("the decision names no address to connect to: report this")]
    NoAddress,
}

/// Expected and got.
#[derive(Clone, Debug, thiserror::Error)]
#[error("expected {expected}, got {got}: {reason}")]
pub struct HostKeyRefusal {
    /// What would have been trusted.
    pub expected: String,
    /// The fingerprint that was shown.
    pub got: String,
    /// Why it isn't trusted.
    pub reason: String,
}

/// What `connect` needs besides leave.
pub struct Means<'a> {
    /// How the node's host key is known.
    pub trust: &'a HostTrust,
    /// How the connection is watched.
    pub watch: &'a Watch,
    /// Who certifies the session's key; `certificate.issued` is durable when it answers.
    pub certifier: &'a dyn SessionCertifier,
    /// The addresses that the target sees us come from.
    pub source_addresses: &'a [IpAddr],
    /// What the person's own certificate permits.
    pub permissions: Vec<Permission>,
    /// The one command that the person's certificate lets run.
    pub force_command: Option<&'a str>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// Connects to the permit's target, checks its host key, and logs in. The permit is used up.
///
/// # Errors
/// See [`TargetError`]: the target is as if we had never been there, but for a login that it refused.
pub async fn connect(permit: Permit<Connect>, means: Means<'_>) -> Result<Target, TargetError> {
    let target = permit.target();
    let name = target.name.clone();
    let address = target.address.clone().ok_or(TargetError::NoAddress)?;
    match tokio::time::timeout(TARGET_TIMEOUT, reach(&permit, &name, &address, means)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TargetError::Timeout { name, address }),
    }
}

async fn reach(
    permit: &Permit<Connect>,
    name: &str,
    address: &str,
    means: Means<'_>,
) -> Result<Target, TargetError> {
    let unreachable =
        |cause| TargetError::Unreachable { name: name.to_owned(), address: address.to_owned(), cause };
    let Watched { stream, expecting } = means.watch.connect(address).await.map_err(|error| match error {
        WatchError::Unreachable(cause) => unreachable(cause),
        unwatched => TargetError::Unwatched(unwatched),
    })?;
    let order = match &means.trust.pinned {
        Some(key) => HostKeyAlgorithm::pinned_first(&key.algorithm()),
        None => HostKeyAlgorithm::all(),
    };
    let broken = |cause: SocketError| TargetError::Broken { name: name.to_owned(), cause };
    let leg = Leg::client(ClientConfig::new(order)).map_err(SocketError::from).map_err(broken)?;
    let mut socket =
        LegSocket::new(Stream::Tcp(stream), leg, Arc::clone(&means.clock)).map_err(unreachable)?;

    let offered = socket
        .converse(|_, heard| -> Result<_, SocketError> {
            Ok(match heard {
                Heard::HostKey(offered) => Some(offered),
                Heard::Ready | Heard::Message(_) => None,
            })
        })
        .await
        .map_err(broken)?;
    let now = means.clock.wall().0 / 1_000_000_000;
    let host = match judge(&offered, means.trust, name, now) {
        Ok(host) => host,
        Err(refused) => {
            let _refused = socket.leg.refuse_host_key();
            // It is refused either way; the farewell is a courtesy.
            let _farewell = socket.flush().await;
            return Err(TargetError::HostKey { name: name.to_owned(), refused });
        }
    };
    socket.leg.accept_host_key().map_err(SocketError::from).map_err(broken)?;
    socket
        .converse(|_, heard| -> Result<_, SocketError> { Ok(matches!(heard, Heard::Ready).then_some(())) })
        .await
        .map_err(broken)?;

    // Its server has read what we said by now, so the node's kernel knows whose process it is. Nobody logs in before the
    // log holds the agent's word for that.
    let seen = match expecting {
        None => None,
        Some(expecting) => match expecting.seen().await {
            Ok(seen) => Some(seen),
            Err(unseen) if means.watch.is_required() => return Err(TargetError::Unwatched(unseen.into())),
            Err(unseen) => {
                tracing::warn!("a session to {name} goes unwatched: {unseen}");
                None
            }
        },
    };

    let key = login::SessionKey::generate()?;
    let account = permit.target().login.as_ref().map(ToString::to_string).unwrap_or_default();
    let request = SessionRequest {
        public_key: key.public_key(),
        login: account.clone(),
        session: permit.session().map(|s: SessionId| s.to_string()).unwrap_or_default(),
        valid_seconds: CERTIFICATE_SECONDS,
        source_addresses: means.source_addresses.to_vec(),
        permissions: means.permissions.clone(),
        force_command: means.force_command.map(str::to_owned),
    };
    let issued = means.certifier.certify(&request).await?;
    let serial = issued.serial;
    let credential = login::Credential { key, certificate: issued.certificate };
    let banners = log_in(&mut socket, &account, credential, name).await?;
    Ok(Target {
        announced: permit.announced(),
        host_key: host.fingerprint.to_string(),
        host_proof: host.proof,
        serial,
        version: socket.leg.peer_version().unwrap_or_default(),
        banners,
        seen,
        socket,
    })
}

async fn log_in(
    socket: &mut LegSocket,
    account: &str,
    credential: login::Credential,
    name: &str,
) -> Result<Vec<String>, TargetError> {
    #[expect(clippy::large_enum_variant, reason = "there is one, for some milliseconds")]
    enum Expect {
        Service(login::ExpectServiceAccept),
        Verdict(login::ExpectVerdict),
    }
    enum Failed {
        Socket(SocketError),
        Fault(login::TargetFault),
    }
    impl From<SocketError> for Failed {
        fn from(error: SocketError) -> Self {
            Self::Socket(error)
        }
    }
    let refused = |fault| TargetError::Refused { name: name.to_owned(), fault };
    let broken = |cause: SocketError| TargetError::Broken { name: name.to_owned(), cause };
    let session_id = socket.leg.session_id().map(|id| id.to_vec()).unwrap_or_default();
    let (hello, state) = login::start(&session_id, account, credential).map_err(refused)?;
    socket.leg.send(&hello).map_err(SocketError::from).map_err(broken)?;
    let mut expect = Some(Expect::Service(state));
    let mut banners = Vec::new();
    let outcome = socket
        .converse(|leg, heard| -> Result<Option<login::Accepted>, Failed> {
            let Heard::Message(payload) = heard else { return Ok(None) };
            expect = match expect.take() {
                Some(Expect::Service(state)) => match state.handle(&payload).map_err(Failed::Fault)? {
                    login::ServiceStep::Accepted { send, next } => {
                        leg.send(&send).map_err(SocketError::from)?;
                        Some(Expect::Verdict(next))
                    }
                    login::ServiceStep::Waiting(state) => Some(Expect::Service(state)),
                },
                Some(Expect::Verdict(state)) => match state.handle(&payload).map_err(Failed::Fault)? {
                    login::Step::Banner { text, next } => {
                        banners.push(text);
                        Some(Expect::Verdict(next))
                    }
                    login::Step::Waiting(state) => Some(Expect::Verdict(state)),
                    login::Step::Accepted(accepted) => {
                        leg.set_authenticated();
                        return Ok(Some(accepted));
                    }
                },
                None => None,
            };
            Ok(None)
        })
        .await;
    match outcome {
        Ok(_accepted) => Ok(banners),
        Err(Failed::Fault(fault)) => Err(refused(fault)),
        Err(Failed::Socket(cause)) => Err(broken(cause)),
    }
}

/// A host key that is trusted.
struct Trusted {
    fingerprint: Fingerprint,
    proof: &'static str,
}

/// A node's certificate begins with the node's own name.
fn is_first_name(certificate: &Certificate, name: &str) -> bool {
    certificate.valid_principals().first().is_some_and(|first| first.eq_ignore_ascii_case(name))
}

/// Whether what was shown is the node: the pinned key if one is pinned, else a certificate for its name.
fn judge(
    offered: &HostKeyOffered,
    trust: &HostTrust,
    name: &str,
    now: u64,
) -> Result<Trusted, HostKeyRefusal> {
    let key = match &offered.key {
        PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data().clone(),
        PublicKeyOrCertificate::Certificate(certificate) => certificate.public_key().clone(),
    };
    let fingerprint = key.fingerprint(HashAlg::Sha256);
    let refusal = |expected: String, reason: &str| HostKeyRefusal {
        expected,
        got: fingerprint.to_string(),
        reason: reason.to_owned(),
    };
    if let Some(pinned) = &trust.pinned {
        return if *pinned.key_data() == key {
            Ok(Trusted { fingerprint, proof: "pinned" })
        } else {
            let expected = pinned.fingerprint(HashAlg::Sha256).to_string();
            Err(refusal(
                expected,
                "another key is pinned for this node; if it was changed on purpose, add the node anew",
            ))
        };
    }
    let expected = || format!("a certificate of the host CA for {name}");
    match &offered.key {
        PublicKeyOrCertificate::Certificate(certificate) => {
            match check_host_certificate(certificate, &trust.authorities, &[name.to_owned()], now) {
                // Those that were issued for another node may name its address's host too, which can be this node's name.
                Ok(_) if !is_first_name(certificate, name) => {
                    Err(refusal(expected(), "the certificate was issued for another node"))
                }
                Ok(_) => Ok(Trusted { fingerprint, proof: "certificate" }),
                Err(why) => Err(refusal(expected(), &why.to_string())),
            }
        }
        PublicKeyOrCertificate::PublicKey { .. } => Err(refusal(
            expected(),
            "it carries no certificate: run `custody node enroll`, or pin its key with `custody node add --host-key`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Authorities;
    use crate::ca::ssh::HostRequest;
    use crate::ca::store::FileKeyStore;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_certificate_is_the_nodes_for_which_it_was_issued() {
        let scratch = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(&scratch.path().join("keys")).unwrap();
        let all = Authorities::open(Arc::new(store), &scratch.path().join("published"), NOW).unwrap();
        let request = HostRequest {
            public_key: login::SessionKey::generate().unwrap().public_key(),
            // As it was issued once: the last is the host of the node's address, which whoever adds it chooses.
            names: ["staging-x", "staging-x.custody", "prod-db"].map(str::to_owned).to_vec(),
            key_id: "node-1".to_owned(),
            valid_seconds: 3600,
        };
        let certificate = all.ssh_host.issue(NOW, &request).unwrap().certificate;
        let authorities = Arc::new(TrustedAuthorities::new([&all.ssh_host.public_key()]));
        let trust = HostTrust { pinned: None, authorities };
        let offered = HostKeyOffered {
            algorithm: HostKeyAlgorithm::all()[0],
            blob: certificate.to_bytes().unwrap(),
            key: PublicKeyOrCertificate::Certificate(certificate),
        };
        assert_eq!(judge(&offered, &trust, "staging-x", NOW).ok().unwrap().proof, "certificate");
        for other in ["prod-db", "staging-x.custody"] {
            let refused = judge(&offered, &trust, other, NOW).err().unwrap();
            assert!(refused.reason.contains("issued for another node"), "{refused}");
        }
        let unnamed = judge(&offered, &trust, "web-1", NOW).err().unwrap();
        assert!(unnamed.reason.contains("not for"), "{unnamed}");
    }
}
