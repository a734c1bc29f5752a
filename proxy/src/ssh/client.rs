//! The person's side up to the proof: preamble, key exchange, user authentication. Nothing here knows who exists.

use super::admission::Refused;
use super::authenticate::{self, server};
use super::preamble::{self, PreambleError};
use super::socket::{Heard, LegSocket, SocketError};
use super::stream::Stream;
use super::transport::error::Error as LegError;
use super::transport::leg::{Leg, ServerConfig};
use super::transport::reason;
use crate::login::prove::{ByPassword, Unproved};
use crate::session::{Access, open};
use custody_core::event::login::{Attempt, Failed};
use custody_core::log::ProducerError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A client that proved who its person is, and waits to hear whether he may come in.
pub struct Client {
    /// Its leg and socket.
    pub socket: LegSocket,
    /// The proof; what answers the client is made of it.
    pub proved: Box<server::Proved>,
    /// The node that is meant, if the way here or the preamble named it.
    pub node: Option<String>,
}

impl Client {
    /// Whether nobody named a node: `ssh -J` comes so, and names one for each connection that it carries.
    #[must_use]
    pub fn is_jump(&self) -> bool {
        self.node.is_none() && !self.proved.user_name().contains(&b'+')
    }
}

/// Why a client got no further.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection or the transport.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// User authentication.
    #[error("{fault}")]
    Fault {
        /// What ended it.
        fault: server::ServerFault,
        /// Why it was refused before, if it was.
        denied: Option<server::Denied>,
    },
    /// The client left after it was refused.
    #[error("refused: {0}")]
    Refused(server::Denied),
    /// A login failed, and the log doesn't take that.
    #[error("the audit log takes no evidence, so nothing can be done: tell your administrator")]
    NoEvidence(#[source] ProducerError),
    /// A first line that is neither SSH nor a preamble.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
}

impl ClientError {
    /// As what it is counted.
    #[must_use]
    pub fn refused(&self) -> Refused {
        use server::ServerFault;
        match self {
            Self::Socket(SocketError::Leg(error)) => match error {
                LegError::PeerDisconnected { .. } => Refused::Left,
                LegError::PeerIncompatible(_) => Refused::Incompatible,
                _ => Refused::Protocol,
            },
            Self::Socket(SocketError::Closed | SocketError::Io(_)) => Refused::Left,
            Self::Fault { fault: ServerFault::TooMuch { .. }, .. } | Self::Refused(_) => {
                Refused::Authentication
            }
            Self::Fault { fault: ServerFault::ClientLeft, denied } => {
                if denied.is_some() {
                    Refused::Authentication
                } else {
                    Refused::Left
                }
            }
            Self::Preamble(PreambleError::Io(_) | PreambleError::Closed) => Refused::Left,
            Self::NoEvidence(_) => Refused::Authentication,
            Self::Fault { .. } | Self::Preamble(PreambleError::Wrong { .. }) => Refused::Protocol,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error.into())
    }
}

/// What one waits for in user authentication.
enum Expect {
    Service(server::ExpectServiceRequest),
    Request(server::ExpectRequest),
    Answers(server::ExpectAnswers),
}

/// Speaks with a client until its person is proved. Which `node` is meant is known already, or the client says it.
///
/// # Errors
/// See [`ClientError`]; the client was told what it may know.
pub async fn welcome(
    stream: Stream,
    from: SocketAddr,
    node: Option<String>,
    config: Arc<ServerConfig>,
    access: &Access,
) -> Result<Client, ClientError> {
    let leg = Leg::server(config).map_err(SocketError::from)?;
    let mut socket = LegSocket::new(stream, leg, Arc::clone(&access.clock))?;
    // A client may wait for our version before it says anything.
    socket.flush().await?;
    let node = match node {
        Some(node) => Some(node),
        None => preamble::read(&socket.stream).await?,
    };

    let mut login = Login { from, access, expect: None, denied: None };
    loop {
        let shown = match socket.converse(|leg, heard| login.hear(leg, heard)).await {
            Ok(shown) => shown,
            Err(ClientError::Socket(error)) => {
                return Err(login.denied.map_or(error.into(), ClientError::Refused));
            }
            Err(error) => return Err(error),
        };
        let mut claim = match shown {
            Shown::Proved(proved) => return Ok(Client { socket, proved, node }),
            Shown::Claimed(claim) => claim,
        };
        let stepped = match login.verify(&mut claim).await? {
            Ok(by) => return Ok(Client { socket, proved: Box::new(claim.proved(by)), node }),
            Err(line) => {
                if let Some(line) = line {
                    for banner in authenticate::banners(&format!("{line}\r\n")) {
                        socket.leg.send(&banner).map_err(SocketError::from)?;
                    }
                }
                claim.refuse().and_then(|step| took(&mut socket.leg, step))
            }
        };
        // A step behind a refusal shows nothing.
        let _nothing = login.went(&mut socket.leg, stepped)?;
    }
}

/// User authentication as it goes on.
struct Login<'a> {
    from: SocketAddr,
    access: &'a Access,
    expect: Option<Expect>,
    denied: Option<server::Denied>,
}

/// What a client has shown.
enum Shown {
    /// Who its person is.
    Proved(Box<server::Proved>),
    /// A name and a password.
    Claimed(Box<server::Claim>),
}

enum Stepped {
    Shown(Shown),
    Next { next: Expect, denied: Option<server::Denied> },
}

impl Login<'_> {
    fn hear(&mut self, leg: &mut Leg, heard: Heard) -> Result<Option<Shown>, ClientError> {
        let payload = match heard {
            Heard::Ready => {
                let session_id = leg.session_id().map(|id| id.to_vec()).unwrap_or_default();
                let connection = server::Connection {
                    session_id,
                    source: self.from.ip(),
                    host_key: leg.own_host_key().map(|(_, blob)| blob.to_vec()),
                    authorities: Arc::clone(&self.access.client_authorities),
                    asks_passwords: self.access.passwords.is_some(),
                };
                self.expect = Some(Expect::Service(server::ExpectServiceRequest::new(connection)));
                return Ok(None);
            }
            Heard::HostKey(_) => return Ok(None),
            // Perhaps a password.
            Heard::Message(payload) => Zeroizing::new(payload),
        };
        let now = self.access.clock.wall().0 / 1_000_000_000;
        let stepped = step(leg, self.expect.take(), &payload, now);
        self.went(leg, stepped)
    }

    fn went(
        &mut self,
        leg: &mut Leg,
        stepped: Result<Stepped, server::ServerFault>,
    ) -> Result<Option<Shown>, ClientError> {
        match stepped {
            Ok(Stepped::Shown(shown)) => Ok(Some(shown)),
            Ok(Stepped::Next { next, denied }) => {
                self.expect = Some(next);
                if let Some(denied) = denied {
                    self.denied = Some(denied.more_telling(self.denied.take()));
                }
                Ok(None)
            }
            Err(fault) => {
                leg.disconnect(reason::NO_MORE_AUTH_METHODS_AVAILABLE, outward(&fault))
                    .map_err(SocketError::from)?;
                Err(ClientError::Fault { fault, denied: self.denied.take() })
            }
        }
    }

    /// Verifies a claim; a wrong one is in the log before the client hears that it was, with the line for its person,
    /// if there is one.
    async fn verify(
        &self,
        claim: &mut server::Claim,
    ) -> Result<Result<ByPassword, Option<String>>, ClientError> {
        let Some(passwords) = &self.access.passwords else { return Ok(Err(None)) };
        let password = claim.take_password();
        let (claimed_user, reason) = match passwords.prove(claim.user(), password, self.from.ip()).await {
            Ok(by) => return Ok(Ok(by)),
            Err(limited @ Unproved::Limited { .. }) => return Ok(Err(Some(limited.to_string()))),
            Err(Unproved::Wrong { claimed_user, reason }) => (claimed_user, reason),
            Err(Unproved::Failed(error)) => {
                tracing::error!(from = %self.from, "{error}");
                return Ok(Err(Some("your password can't be verified now: try again later".to_owned())));
            }
        };
        let failed = Failed { claimed_user, method: Attempt::KeyboardInteractive, reason: reason.to_owned() };
        open::refused(self.access, self.from, failed).await.map_err(ClientError::NoEvidence)?;
        Ok(Err(None))
    }
}

fn step(
    leg: &mut Leg,
    expect: Option<Expect>,
    payload: &[u8],
    now: u64,
) -> Result<Stepped, server::ServerFault> {
    let waiting = |next| Ok(Stepped::Next { next, denied: None });
    match expect {
        Some(Expect::Service(state)) => match state.handle(payload)? {
            server::ServiceStep::Accepted { send, next } => {
                say(leg, &send)?;
                waiting(Expect::Request(next))
            }
            server::ServiceStep::Waiting(state) => waiting(Expect::Service(state)),
        },
        Some(Expect::Request(state)) => took(leg, state.handle(payload, now)?),
        Some(Expect::Answers(state)) => match state.handle(payload, now)? {
            server::AnswerStep::Claimed(claim) => Ok(Stepped::Shown(Shown::Claimed(claim))),
            server::AnswerStep::Instead(step) => took(leg, step),
            server::AnswerStep::Waiting(state) => waiting(Expect::Answers(state)),
        },
        None => Err(server::ServerFault::ClientLeft),
    }
}

fn took(leg: &mut Leg, step: server::Step) -> Result<Stepped, server::ServerFault> {
    match step {
        server::Step::Continue { send, next, denied } => {
            if let Some(send) = send {
                say(leg, &send)?;
            }
            Ok(Stepped::Next { next: Expect::Request(next), denied })
        }
        server::Step::Asks { send, next } => {
            say(leg, &send)?;
            Ok(Stepped::Next { next: Expect::Answers(next), denied: None })
        }
        server::Step::Proved(proved) => Ok(Stepped::Shown(Shown::Proved(proved))),
    }
}

/// What can't be sent shows at the next read or write.
fn say(leg: &mut Leg, payload: &[u8]) -> Result<(), server::ServerFault> {
    leg.send(payload).map_err(|_| server::ServerFault::ClientLeft)
}

/// What a client is told: never why.
fn outward(fault: &server::ServerFault) -> &'static str {
    match fault {
        server::ServerFault::TooMuch { .. } => "too many authentication failures",
        server::ServerFault::Service { .. } => "service not available",
        _ => "protocol error",
    }
}

/// Splits what the client calls itself into the account at the target and the node: `login+node`, or `login` alone
/// where something else named the node. The last `+` counts, since an account's name may have one.
#[must_use]
pub fn login_and_node(user_name: &[u8], preamble: Option<&str>) -> Option<(String, String)> {
    let name = std::str::from_utf8(user_name).ok()?;
    let (login, node) = match preamble {
        Some(node) => (name, node),
        None => name.rsplit_once('+')?,
    };
    let node = preamble::node(node)?;
    let plain = |text: &str| !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
    plain(login).then(|| (login.to_owned(), node.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_last_plus() {
        let split = |name: &str, node| login_and_node(name.as_bytes(), node);
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(split("root+web-1", None), pair("root", "web-1"));
        assert_eq!(split("a+b+web-1.custody", None), pair("a+b", "web-1"));
        assert_eq!(split("root", Some("web-1")), pair("root", "web-1"));
        for bad in ["root", "+web-1", "root+", "ro\not+web-1", "root+we b"] {
            assert_eq!(split(bad, None), None, "{bad}");
        }
        assert_eq!(login_and_node(b"ro\xffot+web-1", None), None);
    }
}
