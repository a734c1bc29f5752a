//! The server's side: a person's client proves that it holds the key of a certificate of ours, or that its person
//! knows a user's password.
//!
//! `ExpectServiceRequest` → `ExpectRequest` → [`Proved`] → [`Authenticated`]. [`Proved`] is not yet told to the
//! client: the caller decides and appends its events first, then calls [`Proved::accept`] or [`Proved::refuse`].
//! Where passwords are asked for, `ExpectRequest` → `ExpectAnswers` → [`Claim`], which only a [`ByPassword`] turns
//! into a [`Proved`].
//! Nothing here looks up a user, so nothing here can tell who exists: every refusal is the same message after the
//! same work.

use super::method::{SignatureFault, method, verify};
use super::{
    METHOD_INTERACTIVE, METHOD_PUBLICKEY, SERVICE_CONNECTION, SERVICE_USERAUTH, interactive, message,
};
use crate::login::prove::ByPassword;
use crate::ssh::certificate::{
    LoginCertificate, Refusal, TrustedAuthorities, check_user_certificate, parse_certificate,
};
use crate::ssh::field::{Fields, put_string};
use std::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Refused requests until the connection ends. A client offers each key of its agent, so OpenSSH's 6 is few.
pub const REFUSALS_MAX: u32 = 20;

/// Messages of any kind until the connection ends, refused or not: questions about keys that are never followed by
/// a signature cost us work too.
pub const MESSAGES_MAX: u32 = 100;

/// Longest user name, `login+node`, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 512;

/// Longest message that is looked at: a certificate of the largest size with its signature, and some.
pub const MESSAGE_BYTES_MAX: usize = 35_000;

/// What the machine knows of the connection. The transport gives it after the first key exchange.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The session identifier: the first exchange hash (RFC 4253 section 7.2). Signatures are bound to it.
    pub session_id: Vec<u8>,
    /// Where the client comes from, for `source-address`.
    pub source: IpAddr,
    /// The host key blob that the key exchange showed (K_S). If given, `publickey-hostbound-v00@openssh.com` is
    /// taken too: the client then signs which server it means.
    pub host_key: Option<Vec<u8>>,
    /// Whose certificates are believed.
    pub authorities: Arc<TrustedAuthorities>,
    /// Whether people without a certificate are asked for name and password.
    pub asks_passwords: bool,
}

/// Why one request was refused: for the log, the client hears the same for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Another method than `publickey`. (`none` is how a client asks what there is, and no refusal.)
    #[error("method {method:?} isn't offered: log in with `custody login` and use the certificate")]
    Method {
        /// Its name, cut to 64 bytes.
        method: String,
    },
    /// A plain key, or an algorithm that isn't taken.
    #[error("algorithm {algorithm:?} isn't accepted: only certificates are, see `custody login`")]
    Algorithm {
        /// Its name, cut to 64 bytes.
        algorithm: String,
    },
    /// The certificate.
    #[error("certificate refused: {0}")]
    Certificate(#[from] Refusal),
    /// The signature.
    #[error("certificate is right, but {0}")]
    Signature(#[from] SignatureFault),
    /// The host-bound method with another host key than ours: the client was talked to by somebody between.
    #[error("the client signed for another host key than ours: somebody may be between")]
    HostKey,
    /// Answers to other questions than were asked.
    #[error("the client gave other than two answers")]
    Answers,
    /// Name and password, which the caller has verified and recorded.
    #[error("the user name or the password is wrong")]
    Password,
    /// The caller's decision, after the signature was right.
    #[error("refused by decision")]
    Decision,
}

impl Denied {
    /// The one of two refusals that says more of why a client didn't get in. Clients try all that they have: after a
    /// certificate that has run out its plain key, which never had a chance.
    #[must_use]
    pub fn more_telling(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if earlier.closeness() > self.closeness() => earlier,
            _ => self,
        }
    }

    /// How near the client came.
    fn closeness(&self) -> u8 {
        match self {
            Self::Method { .. } => 0,
            Self::Algorithm { .. } => 1,
            Self::Answers => 2,
            Self::Password => 3,
            Self::Certificate(_) => 4,
            Self::Signature(_) => 5,
            Self::HostKey => 6,
            Self::Decision => 7,
        }
    }
}

/// Why a connection can't go on. `Display` is for the log; [`ServerFault::disconnect`] makes the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFault {
    /// A message that has no place here. `expected` names what has.
    #[error("client sent message {got} before it was authenticated, expected {expected}")]
    Unexpected {
        /// Its number, `None` if it was empty.
        got: Number,
        /// What would have been right.
        expected: &'static str,
    },
    /// A message whose fields can't be read.
    #[error("client sent a malformed {what}")]
    Malformed {
        /// Which.
        what: &'static str,
    },
    /// More than a limit allows.
    #[error("client sent more than {limit} {what}")]
    TooMuch {
        /// The limit.
        limit: usize,
        /// Of what.
        what: &'static str,
    },
    /// A service that we don't have.
    #[error("client asked for service {service:?}, there is only ssh-connection by ssh-userauth")]
    Service {
        /// Its name, cut to 64 bytes.
        service: String,
    },
    /// The client ended the connection.
    #[error("client disconnected before it was authenticated")]
    ClientLeft,
}

/// A message number, or none in an empty payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub Option<u8>);

impl std::fmt::Display for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(number) => write!(formatter, "{number}"),
            None => formatter.write_str("without a number"),
        }
    }
}

impl ServerFault {
    /// The SSH_MSG_DISCONNECT to send before closing, or `None` if the client has already left.
    pub fn disconnect(&self) -> Option<Vec<u8>> {
        // RFC 4253 section 11.1
        let (code, text): (u32, &str) = match self {
            Self::Unexpected { .. } | Self::Malformed { .. } => (2, "protocol error"),
            Self::TooMuch { .. } => (14, "too many authentication failures"),
            Self::Service { .. } => (7, "service not available"),
            Self::ClientLeft => return None,
        };
        let mut payload = vec![message::DISCONNECT];
        payload.extend_from_slice(&code.to_be_bytes());
        put_string(&mut payload, text.as_bytes());
        put_string(&mut payload, b"");
        Some(payload)
    }
}

/// What a message led to.
#[must_use]
#[derive(Debug)]
pub enum Step {
    /// Send `send`, if any, and wait on.
    Continue {
        /// A payload to send.
        send: Option<Vec<u8>>,
        /// Awaits the next message.
        next: ExpectRequest,
        /// Set if a request was refused.
        denied: Option<Denied>,
    },
    /// Send the questions and wait for their answers.
    Asks {
        /// INFO_REQUEST.
        send: Vec<u8>,
        /// Awaits the answers.
        next: ExpectAnswers,
    },
    /// A right signature by a certificate that passed all checks. The client has not been answered.
    Proved(Box<Proved>),
}

/// Awaits SSH_MSG_SERVICE_REQUEST for `ssh-userauth`.
#[must_use]
#[derive(Debug)]
pub struct ExpectServiceRequest {
    connection: Connection,
    messages: u32,
}

impl ExpectServiceRequest {
    /// The start: nothing has been heard from the client.
    pub fn new(connection: Connection) -> Self {
        Self { connection, messages: 0 }
    }

    /// Takes one message: with the request, the SERVICE_ACCEPT to send and the next state; with a message that
    /// means nothing here (IGNORE, DEBUG …), itself again.
    ///
    /// # Errors
    /// [`ServerFault`]: send its [`disconnect`](ServerFault::disconnect) and close.
    pub fn handle(mut self, payload: &[u8]) -> Result<ServiceStep, ServerFault> {
        count(&mut self.messages, payload)?;
        let mut fields = Fields::new(payload);
        match fields.byte() {
            Some(message::SERVICE_REQUEST) => {
                let service = fields.string().filter(|_| fields.is_empty());
                let service = service.ok_or(ServerFault::Malformed { what: "SERVICE_REQUEST" })?;
                if service != SERVICE_USERAUTH {
                    return Err(ServerFault::Service { service: shown(service) });
                }
                let mut send = vec![message::SERVICE_ACCEPT];
                put_string(&mut send, SERVICE_USERAUTH);
                let next =
                    ExpectRequest { connection: self.connection, messages: self.messages, refusals: 0 };
                Ok(ServiceStep::Accepted { send, next })
            }
            Some(message::DISCONNECT) => Err(ServerFault::ClientLeft),
            Some(number) if message::is_transport_noise(number) => Ok(ServiceStep::Waiting(self)),
            got => Err(ServerFault::Unexpected { got: Number(got), expected: "SERVICE_REQUEST" }),
        }
    }
}

/// What a message led to before user authentication began.
#[must_use]
#[derive(Debug)]
pub enum ServiceStep {
    /// Send the payload and go on.
    Accepted {
        /// SERVICE_ACCEPT.
        send: Vec<u8>,
        /// Awaits requests.
        next: ExpectRequest,
    },
    /// Nothing happened.
    Waiting(ExpectServiceRequest),
}

/// Awaits SSH_MSG_USERAUTH_REQUEST.
#[must_use]
#[derive(Debug)]
pub struct ExpectRequest {
    connection: Connection,
    messages: u32,
    refusals: u32,
}

impl ExpectRequest {
    /// Takes one message at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`ServerFault`]: send its [`disconnect`](ServerFault::disconnect) and close.
    pub fn handle(mut self, payload: &[u8], now: u64) -> Result<Step, ServerFault> {
        count(&mut self.messages, payload)?;
        match payload.first().copied() {
            Some(message::USERAUTH_REQUEST) => self.request(payload, now),
            Some(message::DISCONNECT) => Err(ServerFault::ClientLeft),
            Some(number) if message::is_transport_noise(number) => {
                Ok(Step::Continue { send: None, next: self, denied: None })
            }
            got => Err(ServerFault::Unexpected { got: Number(got), expected: "USERAUTH_REQUEST" }),
        }
    }

    fn request(self, payload: &[u8], now: u64) -> Result<Step, ServerFault> {
        let request = Request::read(payload).ok_or(ServerFault::Malformed { what: "USERAUTH_REQUEST" })?;
        if request.user_name.len() > USER_NAME_BYTES_MAX {
            return Err(ServerFault::TooMuch { limit: USER_NAME_BYTES_MAX, what: "bytes of user name" });
        }
        if request.service != SERVICE_CONNECTION {
            return Err(ServerFault::Service { service: shown(request.service) });
        }
        let offer = match &request.method {
            // Not counted as a refusal: RFC 4252 section 5.2 makes it the question which methods there are.
            RequestMethod::None => {
                return Ok(Step::Continue { send: Some(self.failure()), next: self, denied: None });
            }
            RequestMethod::Interactive if self.connection.asks_passwords => {
                let user_name = request.user_name.to_vec();
                let next = ExpectAnswers { user_name, awaiting: self };
                return Ok(Step::Asks { send: interactive::request(), next });
            }
            RequestMethod::Interactive => {
                return self.deny(Denied::Method { method: shown(METHOD_INTERACTIVE) });
            }
            RequestMethod::Other(method) => {
                return self.deny(Denied::Method { method: shown(method) });
            }
            RequestMethod::PublicKey(offer) => offer,
        };
        let (method, certificate) = match self.check_offer(offer, now) {
            Ok(checked) => checked,
            Err(denied) => return self.deny(denied),
        };
        let Some(signature) = offer.signature else {
            let mut send = vec![message::USERAUTH_PK_OK];
            put_string(&mut send, offer.algorithm);
            put_string(&mut send, offer.blob);
            return Ok(Step::Continue { send: Some(send), next: self, denied: None });
        };
        // RFC 4252 section 7: the session identifier, then the request as sent up to the signature.
        let mut signed = Vec::with_capacity(self.connection.session_id.len() + payload.len());
        put_string(&mut signed, &self.connection.session_id);
        signed.extend_from_slice(request.up_to_signature);
        if let Err(fault) = verify(&method, &certificate, &signed, signature) {
            return self.deny(fault.into());
        }
        let user_name = request.user_name.to_vec();
        let proof = Proof::Certificate(Box::new(certificate));
        Ok(Step::Proved(Box::new(Proved { user_name, proof, awaiting: self })))
    }

    fn check_offer(
        &self,
        offer: &Offer<'_>,
        now: u64,
    ) -> Result<(super::method::Method, LoginCertificate), Denied> {
        let method =
            method(offer.algorithm).ok_or_else(|| Denied::Algorithm { algorithm: shown(offer.algorithm) })?;
        if Fields::new(offer.blob).string() != Some(method.blob_type) {
            return Err(Refusal::Malformed("of another type than the request names").into());
        }
        if let Some(host_key) = offer.host_key
            && self.connection.host_key.as_deref() != Some(host_key)
        {
            return Err(match self.connection.host_key {
                Some(_) => Denied::HostKey,
                None => Denied::Method { method: shown(METHOD_HOSTBOUND) },
            });
        }
        let certificate = parse_certificate(offer.blob)?;
        let Connection { authorities, source, .. } = &self.connection;
        Ok((method, check_user_certificate(&certificate, authorities, now, *source)?))
    }

    fn deny(mut self, denied: Denied) -> Result<Step, ServerFault> {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals > REFUSALS_MAX {
            return Err(ServerFault::TooMuch { limit: REFUSALS_MAX as usize, what: "refused requests" });
        }
        Ok(Step::Continue { send: Some(self.failure()), next: self, denied: Some(denied) })
    }

    /// USERAUTH_FAILURE that lists what is offered, without partial success (RFC 4252 section 5.1).
    fn failure(&self) -> Vec<u8> {
        let mut offered = METHOD_PUBLICKEY.to_vec();
        if self.connection.asks_passwords {
            offered.push(b',');
            offered.extend_from_slice(METHOD_INTERACTIVE);
        }
        let mut payload = vec![message::USERAUTH_FAILURE];
        put_string(&mut payload, &offered);
        payload.push(0);
        payload
    }
}

/// Awaits SSH_MSG_USERAUTH_INFO_RESPONSE.
#[must_use]
#[derive(Debug)]
pub struct ExpectAnswers {
    user_name: Vec<u8>,
    awaiting: ExpectRequest,
}

/// What a message led to while answers were awaited.
#[must_use]
#[derive(Debug)]
pub enum AnswerStep {
    /// The answers, to be verified.
    Claimed(Box<Claim>),
    /// The client asked for another method instead (RFC 4256 section 3.1), or gave no answers.
    Instead(Step),
    /// Nothing happened.
    Waiting(ExpectAnswers),
}

impl ExpectAnswers {
    /// Takes one message at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`ServerFault`]: send its [`disconnect`](ServerFault::disconnect) and close.
    pub fn handle(mut self, payload: &[u8], now: u64) -> Result<AnswerStep, ServerFault> {
        match payload.first().copied() {
            Some(message::USERAUTH_INFO_RESPONSE) => {
                count(&mut self.awaiting.messages, payload)?;
                let answers = interactive::response(payload);
                let answers = answers.ok_or(ServerFault::Malformed { what: "USERAUTH_INFO_RESPONSE" })?;
                let Some(interactive::Answers { user, password }) = answers else {
                    return self.awaiting.deny(Denied::Answers).map(AnswerStep::Instead);
                };
                let Self { user_name, awaiting } = self;
                Ok(AnswerStep::Claimed(Box::new(Claim { user_name, user, password, awaiting })))
            }
            Some(message::USERAUTH_REQUEST) => self.awaiting.handle(payload, now).map(AnswerStep::Instead),
            Some(message::DISCONNECT) => Err(ServerFault::ClientLeft),
            Some(number) if message::is_transport_noise(number) => {
                count(&mut self.awaiting.messages, payload)?;
                Ok(AnswerStep::Waiting(self))
            }
            got => Err(ServerFault::Unexpected { got: Number(got), expected: "USERAUTH_INFO_RESPONSE" }),
        }
    }
}

/// Who a client's person says he is, and the password that he typed: nothing is proved.
#[must_use]
pub struct Claim {
    user_name: Vec<u8>,
    user: String,
    password: Zeroizing<Vec<u8>>,
    awaiting: ExpectRequest,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Claim").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Claim {
    /// Who he says he is: any text.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password; afterwards it is gone from here.
    pub fn take_password(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.password)
    }

    /// The claim was true. The client has not been answered.
    pub fn proved(self, by: ByPassword) -> Proved {
        Proved { user_name: self.user_name, proof: Proof::Password(by), awaiting: self.awaiting }
    }

    /// It was not, and that is recorded: the step to go on with.
    ///
    /// # Errors
    /// [`ServerFault::TooMuch`] when this was one refusal too many.
    pub fn refuse(self) -> Result<Step, ServerFault> {
        self.awaiting.deny(Denied::Password)
    }
}

/// By what a client proved who its person is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A certificate that passed all checks, with a right signature by its key.
    Certificate(Box<LoginCertificate>),
    /// A password.
    Password(ByPassword),
}

/// A client that proved who its person is. It hasn't been told.
///
/// Only a right signature or a right password makes one.
#[must_use]
#[derive(Debug)]
pub struct Proved {
    user_name: Vec<u8>,
    proof: Proof,
    awaiting: ExpectRequest,
}

impl Proved {
    /// The user name as the client gave it, `login+node`: any bytes.
    pub fn user_name(&self) -> &[u8] {
        &self.user_name
    }

    /// By what.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Lets the client in: the USERAUTH_SUCCESS to send, and the proof. To be called when the login's events are
    /// durable.
    pub fn accept(self) -> (Vec<u8>, Authenticated) {
        let authenticated = Authenticated { user_name: self.user_name, proof: self.proof };
        (vec![message::USERAUTH_SUCCESS], authenticated)
    }

    /// Turns the client away though its signature is right (locked, no such node, the log takes nothing …): the
    /// step to go on with.
    ///
    /// # Errors
    /// [`ServerFault::TooMuch`] when this was one refusal too many.
    pub fn refuse(self) -> Result<Step, ServerFault> {
        self.awaiting.deny(Denied::Decision)
    }
}

/// The proof that a client was let in: made by [`Proved::accept`] alone.
#[must_use]
#[derive(Debug)]
pub struct Authenticated {
    user_name: Vec<u8>,
    proof: Proof,
}

impl Authenticated {
    /// The user name as the client gave it, `login+node`: any bytes.
    pub fn user_name(&self) -> &[u8] {
        &self.user_name
    }

    /// By what.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }
}

const METHOD_HOSTBOUND: &[u8] = b"publickey-hostbound-v00@openssh.com";

/// USERAUTH_REQUEST as it was sent.
struct Request<'a> {
    user_name: &'a [u8],
    service: &'a [u8],
    method: RequestMethod<'a>,
    /// The message up to the signature field.
    up_to_signature: &'a [u8],
}

enum RequestMethod<'a> {
    None,
    PublicKey(Offer<'a>),
    Interactive,
    Other(&'a [u8]),
}

struct Offer<'a> {
    algorithm: &'a [u8],
    blob: &'a [u8],
    /// OpenSSH PROTOCOL section 3.1: the host key that a host-bound request names.
    host_key: Option<&'a [u8]>,
    signature: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(payload);
        fields.byte()?;
        let user_name = fields.string()?;
        let service = fields.string()?;
        let name = fields.string()?;
        let mut up_to_signature = payload;
        let method = if name == METHOD_PUBLICKEY || name == METHOD_HOSTBOUND {
            let has_signature = fields.boolean()?;
            let algorithm = fields.string()?;
            let blob = fields.string()?;
            let host_key = if name == METHOD_HOSTBOUND { Some(fields.string()?) } else { None };
            let signature = if has_signature { Some(fields.string()?) } else { None };
            if !fields.is_empty() {
                return None;
            }
            if let Some(signature) = signature {
                let end = payload.len().checked_sub(signature.len())?.checked_sub(4)?;
                up_to_signature = payload.get(..end)?;
            }
            RequestMethod::PublicKey(Offer { algorithm, blob, host_key, signature })
        } else if name == b"none" {
            RequestMethod::None
        } else if name == METHOD_INTERACTIVE {
            // A language tag, which RFC 4256 deprecates, and submethods, of which we have one.
            let (_language, _submethods) = (fields.string()?, fields.string()?);
            RequestMethod::Interactive
        } else {
            // What other methods carry (a password, perhaps) isn't even read.
            RequestMethod::Other(name)
        };
        Some(Self { user_name, service, method, up_to_signature })
    }
}

fn count(messages: &mut u32, payload: &[u8]) -> Result<(), ServerFault> {
    *messages = messages.saturating_add(1);
    if *messages > MESSAGES_MAX {
        return Err(ServerFault::TooMuch { limit: MESSAGES_MAX as usize, what: "messages" });
    }
    if payload.len() > MESSAGE_BYTES_MAX {
        return Err(ServerFault::TooMuch { limit: MESSAGE_BYTES_MAX, what: "bytes in one message" });
    }
    Ok(())
}

/// A peer's name for the log: at most 64 bytes of it.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned()
}
