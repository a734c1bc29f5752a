//! The client's side: we prove to a target that we hold the key of the session's certificate.
//!
//! [`start`] → [`ExpectServiceAccept`] → [`ExpectVerdict`] → [`Accepted`]. The certificate is signed with at once,
//! without asking first whether it would do (RFC 4252 section 7 allows it): one round trip less.

use super::server::Number;
use super::{METHOD_PUBLICKEY, SERVICE_CONNECTION, SERVICE_USERAUTH, message};
use crate::ssh::field::{Fields, put_string};
use crate::ssh::transport::packet::PAYLOAD_MAX;
use russh::keys::signature::Signer;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};
use zeroize::Zeroizing;

/// Messages of a target, banners and the like, until we give up on it.
pub const MESSAGES_MAX: u32 = 64;

/// What is passed on of a target's banners, in bytes and in all; the rest is cut. sshd has a limit of its own only for
/// what a packet holds.
pub const TARGET_BANNER_BYTES_MAX: usize = PAYLOAD_MAX;

/// Longest message of a target that is looked at.
pub const MESSAGE_BYTES_MAX: usize = PAYLOAD_MAX;

/// The key of one session: made for it, kept in memory only, wiped when dropped.
pub struct SessionKey(Ed25519Keypair);

impl SessionKey {
    /// Makes one from the system's random numbers.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system has none.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| NoRandomness)?;
        Ok(Self(Ed25519Keypair::from_seed(&seed)))
    }

    /// What is to be certified.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(KeyData::Ed25519(self.0.public), "")
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SessionKey")
    }
}

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers: no key can be made")]
pub struct NoRandomness;

/// Why a target didn't let us in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetFault {
    /// It doesn't trust the certificate, or doesn't know the login: it never says which.
    #[error(
        "the target refused Custody's certificate for login {login:?} (it offers: {offered}): it does not trust \
         Custody's target CA, has no such login, or knows no certificates, as dropbear and tinyssh: see `custody node \
         enroll`"
    )]
    Refused {
        /// The login that was asked for.
        login: String,
        /// The methods that it lists.
        offered: String,
    },
    /// It doesn't take keys at all.
    #[error(
        "the target offers only {offered}, no public keys: set `PubkeyAuthentication yes` in its sshd_config, \
         see `custody node enroll`"
    )]
    NoPublicKeys {
        /// The methods that it lists.
        offered: String,
    },
    /// It took the certificate and wants more, which a proxy can't give.
    #[error(
        "the target accepted the certificate but also wants {offered}: remove `AuthenticationMethods` for Custody's \
         connections in its sshd_config"
    )]
    WantsMore {
        /// The methods that it lists.
        offered: String,
    },
    /// It ended the connection.
    #[error("the target ended the connection during login (code {code}): {text:?}")]
    Left {
        /// RFC 4253 section 11.1
        code: u32,
        /// Its text, cut to 256 bytes.
        text: String,
    },
    /// It sent what has no place here.
    #[error("the target sent message {got} during login, expected {expected}")]
    Unexpected {
        /// The message's number.
        got: Number,
        /// What would have been right.
        expected: &'static str,
    },
    /// It sent what can't be read.
    #[error("the target sent a malformed {what} during login")]
    Malformed {
        /// Which message.
        what: &'static str,
    },
    /// It sent too much.
    #[error("the target sent more than {limit} {what} during login")]
    TooMuch {
        /// The limit.
        limit: usize,
        /// Of what.
        what: &'static str,
    },
    /// Ours: the certificate is for another key, or can't be encoded or signed with.
    #[error("session's certificate can't be used: {0}")]
    Credential(&'static str),
}

/// What we log in with.
#[derive(Debug)]
pub struct Credential {
    /// The session's key.
    pub key: SessionKey,
    /// The target CA's certificate for it.
    pub certificate: Certificate,
}

/// Starts: the SERVICE_REQUEST to send, and the state that awaits its answer. `session_id` is the first exchange
/// hash, `login` the account on the target.
///
/// # Errors
/// [`TargetFault::Credential`] if the certificate is for another key.
pub fn start(
    session_id: &[u8],
    login: &str,
    credential: Credential,
) -> Result<(Vec<u8>, ExpectServiceAccept), TargetFault> {
    if *credential.certificate.public_key() != KeyData::Ed25519(credential.key.0.public) {
        return Err(TargetFault::Credential("it is for another key"));
    }
    let mut send = vec![message::SERVICE_REQUEST];
    put_string(&mut send, SERVICE_USERAUTH);
    let next = ExpectServiceAccept {
        session_id: session_id.to_vec(),
        login: login.to_owned(),
        credential,
        messages: 0,
    };
    Ok((send, next))
}

/// Awaits SERVICE_ACCEPT.
#[must_use]
#[derive(Debug)]
pub struct ExpectServiceAccept {
    session_id: Vec<u8>,
    login: String,
    credential: Credential,
    messages: u32,
}

/// What a message led to before the target took up authentication.
#[must_use]
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, for some milliseconds")]
pub enum ServiceStep {
    /// Send the signed request and go on.
    Accepted {
        /// USERAUTH_REQUEST with the signature.
        send: Vec<u8>,
        /// Awaits the verdict.
        next: ExpectVerdict,
    },
    /// Nothing happened.
    Waiting(ExpectServiceAccept),
}

impl ExpectServiceAccept {
    /// Takes one message.
    ///
    /// # Errors
    /// [`TargetFault`]: close the connection.
    pub fn handle(mut self, payload: &[u8]) -> Result<ServiceStep, TargetFault> {
        count(&mut self.messages, payload)?;
        let mut fields = Fields::new(payload);
        match fields.byte() {
            Some(message::SERVICE_ACCEPT) => {
                if fields.string() != Some(SERVICE_USERAUTH) {
                    return Err(TargetFault::Malformed { what: "SERVICE_ACCEPT" });
                }
                let send = signed_request(&self.session_id, &self.login, &self.credential)?;
                Ok(ServiceStep::Accepted {
                    send,
                    next: ExpectVerdict {
                        login: self.login,
                        messages: self.messages,
                        banner_bytes_left: TARGET_BANNER_BYTES_MAX,
                    },
                })
            }
            Some(message::DISCONNECT) => Err(left(fields)),
            Some(number) if message::is_transport_noise(number) => Ok(ServiceStep::Waiting(self)),
            got => Err(TargetFault::Unexpected { got: Number(got), expected: "SERVICE_ACCEPT" }),
        }
    }
}

/// Awaits SUCCESS or FAILURE, and passes banners on.
#[must_use]
#[derive(Debug)]
pub struct ExpectVerdict {
    login: String,
    messages: u32,
    banner_bytes_left: usize,
}

/// What a message led to.
#[must_use]
#[derive(Debug)]
pub enum Step {
    /// The target's text for the person, as it is, perhaps with control characters in it: show it through
    /// [`banners`](super::banners).
    Banner {
        /// At most [`TARGET_BANNER_BYTES_MAX`] bytes, those of the banners before it included.
        text: String,
        /// Awaits the verdict still.
        next: ExpectVerdict,
    },
    /// Nothing happened.
    Waiting(ExpectVerdict),
    /// We are in.
    Accepted(Accepted),
}

impl ExpectVerdict {
    /// Takes one message.
    ///
    /// # Errors
    /// [`TargetFault`]: close the connection; its text is for the person too.
    pub fn handle(mut self, payload: &[u8]) -> Result<Step, TargetFault> {
        count(&mut self.messages, payload)?;
        let mut fields = Fields::new(payload);
        match fields.byte() {
            Some(message::USERAUTH_SUCCESS) => Ok(Step::Accepted(Accepted { login: self.login })),
            Some(message::USERAUTH_FAILURE) => Err(self.refused(fields)),
            Some(message::USERAUTH_BANNER) => {
                let text = fields.string().ok_or(TargetFault::Malformed { what: "USERAUTH_BANNER" })?;
                let text = text.get(..self.banner_bytes_left).unwrap_or(text);
                self.banner_bytes_left -= text.len();
                Ok(Step::Banner { text: String::from_utf8_lossy(text).into_owned(), next: self })
            }
            Some(message::DISCONNECT) => Err(left(fields)),
            Some(number) if message::is_transport_noise(number) => Ok(Step::Waiting(self)),
            got => Err(TargetFault::Unexpected {
                got: Number(got),
                expected: "USERAUTH_SUCCESS or USERAUTH_FAILURE",
            }),
        }
    }

    fn refused(self, mut fields: Fields<'_>) -> TargetFault {
        let (Some(methods), Some(partial)) = (fields.string(), fields.boolean()) else {
            return TargetFault::Malformed { what: "USERAUTH_FAILURE" };
        };
        let takes_keys = methods.split(|byte| *byte == b',').any(|name| name == METHOD_PUBLICKEY);
        let offered =
            String::from_utf8_lossy(methods.get(..256).unwrap_or(methods)).escape_debug().to_string();
        match (partial, takes_keys) {
            (true, _) => TargetFault::WantsMore { offered },
            (false, true) => TargetFault::Refused { login: self.login, offered },
            (false, false) => TargetFault::NoPublicKeys { offered },
        }
    }
}

/// The proof that the target let us in: made by its USERAUTH_SUCCESS alone.
#[must_use]
#[derive(Debug)]
pub struct Accepted {
    login: String,
}

impl Accepted {
    /// The account on the target.
    pub fn login(&self) -> &str {
        &self.login
    }
}

/// USERAUTH_REQUEST with the method `publickey` and its signature (RFC 4252 section 7).
fn signed_request(session_id: &[u8], login: &str, credential: &Credential) -> Result<Vec<u8>, TargetFault> {
    let blob = credential.certificate.to_bytes();
    let blob = blob.map_err(|_| TargetFault::Credential("it can't be encoded"))?;
    let mut request = vec![message::USERAUTH_REQUEST];
    put_string(&mut request, login.as_bytes());
    put_string(&mut request, SERVICE_CONNECTION);
    put_string(&mut request, METHOD_PUBLICKEY);
    request.push(1);
    put_string(&mut request, b"ssh-ed25519-cert-v01@openssh.com");
    put_string(&mut request, &blob);
    let mut signed = Vec::with_capacity(session_id.len() + request.len() + 4);
    put_string(&mut signed, session_id);
    signed.extend_from_slice(&request);
    let signature: Signature =
        credential.key.0.try_sign(&signed).map_err(|_| TargetFault::Credential("its key can't sign"))?;
    let signature = Vec::try_from(signature);
    let signature = signature.map_err(|_| TargetFault::Credential("its signature can't be encoded"))?;
    put_string(&mut request, &signature);
    Ok(request)
}

fn left(mut fields: Fields<'_>) -> TargetFault {
    let code = fields.uint32().unwrap_or(0);
    let text = fields.string().unwrap_or_default();
    TargetFault::Left { code, text: String::from_utf8_lossy(text.get(..256).unwrap_or(text)).into_owned() }
}

fn count(messages: &mut u32, payload: &[u8]) -> Result<(), TargetFault> {
    *messages = messages.saturating_add(1);
    if *messages > MESSAGES_MAX {
        return Err(TargetFault::TooMuch { limit: MESSAGES_MAX as usize, what: "messages" });
    }
    if payload.len() > MESSAGE_BYTES_MAX {
        return Err(TargetFault::TooMuch { limit: MESSAGE_BYTES_MAX, what: "bytes in one message" });
    }
    Ok(())
}
