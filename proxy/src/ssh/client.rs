//! The person's side up to the proof: preamble, key exchange, user authentication. Nothing here knows who exists.

use super::admission::Refused;
use super::authenticate::server;
use super::certificate::TrustedAuthorities;
use super::preamble::{self, PreambleError};
use super::socket::{Heard, LegSocket, SocketError};
use super::stream::Stream;
use super::transport::error::Error as LegError;
use super::transport::leg::{Leg, ServerConfig};
use super::transport::reason;
use custody_core::clock::Clock;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

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
        /// The last refusal before, if a certificate or a method was refused.
        denied: Option<server::Denied>,
    },
    /// The client left after it was refused.
    #[error("refused: {0}")]
    Refused(server::Denied),
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
    authorities: Arc<TrustedAuthorities>,
    clock: Arc<dyn Clock>,
) -> Result<Client, ClientError> {
    let leg = Leg::server(config).map_err(SocketError::from)?;
    let mut socket = LegSocket::new(stream, leg, Arc::clone(&clock))?;
    // A client may wait for our version before it says anything.
    socket.flush().await?;
    let node = match node {
        Some(node) => Some(node),
        None => preamble::read(&socket.stream).await?,
    };

    let mut expect: Option<Expect> = None;
    let mut last_denied = None;
    let outcome = socket
        .converse(|leg, heard| -> Result<Option<Box<server::Proved>>, ClientError> {
            let payload = match heard {
                Heard::Ready => {
                    let session_id = leg.session_id().map(|id| id.to_vec()).unwrap_or_default();
                    let connection = server::Connection {
                        session_id,
                        source: from.ip(),
                        host_key: leg.own_host_key().map(|(_, blob)| blob.to_vec()),
                        authorities: Arc::clone(&authorities),
                    };
                    expect = Some(Expect::Service(server::ExpectServiceRequest::new(connection)));
                    return Ok(None);
                }
                Heard::HostKey(_) => return Ok(None),
                Heard::Message(payload) => payload,
            };
            let now = clock.wall().0 / 1_000_000_000;
            match step(leg, expect.take(), &payload, now) {
                Ok(Stepped::Proved(proved)) => Ok(Some(proved)),
                Ok(Stepped::Next { next, denied }) => {
                    expect = Some(next);
                    last_denied = denied.or(last_denied.take());
                    Ok(None)
                }
                Err(fault) => {
                    leg.disconnect(reason::NO_MORE_AUTH_METHODS_AVAILABLE, outward(&fault))
                        .map_err(SocketError::from)?;
                    Err(ClientError::Fault { fault, denied: last_denied.take() })
                }
            }
        })
        .await;
    match outcome {
        Ok(proved) => Ok(Client { socket, proved, node }),
        Err(ClientError::Socket(error)) => match last_denied {
            Some(denied) => Err(ClientError::Refused(denied)),
            None => Err(error.into()),
        },
        Err(error) => Err(error),
    }
}

enum Stepped {
    Proved(Box<server::Proved>),
    Next { next: Expect, denied: Option<server::Denied> },
}

fn step(
    leg: &mut Leg,
    expect: Option<Expect>,
    payload: &[u8],
    now: u64,
) -> Result<Stepped, server::ServerFault> {
    let (send, next, denied) = match expect {
        Some(Expect::Service(state)) => match state.handle(payload)? {
            server::ServiceStep::Accepted { send, next } => (Some(send), Expect::Request(next), None),
            server::ServiceStep::Waiting(state) => (None, Expect::Service(state), None),
        },
        Some(Expect::Request(state)) => match state.handle(payload, now)? {
            server::Step::Continue { send, next, denied } => (send, Expect::Request(next), denied),
            server::Step::Proved(proved) => return Ok(Stepped::Proved(proved)),
        },
        None => return Err(server::ServerFault::ClientLeft),
    };
    if let Some(send) = send {
        // What can't be sent shows at the next read or write.
        leg.send(&send).map_err(|_| server::ServerFault::ClientLeft)?;
    }
    Ok(Stepped::Next { next, denied })
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
