//! How a session's connection to its node is watched: it is opened once the node's agent waits for it, and used once the
//! node's kernel has seen it come in.

use super::Session;
use crate::ingest::agents::{Agents, Expecting, Unwatched};
use custody_core::event::node::Agent;
use custody_core::ingest::message::Expected;
use custody_core::policy::networks::Reach;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// What is to be watched, and by whom.
pub struct Watch {
    /// The agents of watched nodes.
    pub agents: Arc<Agents>,
    /// What the node's record demands.
    pub demand: Agent,
    /// What the session may reach, run and touch on the node: only an agent can hold it to that.
    pub reach: Reach,
    /// Why the node's kernel couldn't keep files from the session, as its agent has said of it.
    pub no_paths: Option<String>,
    /// The session.
    pub session: Arc<Session>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The node can't be reached.
    #[error(transparent)]
    Unreachable(#[from] io::Error),
    /// It can be reached, and not watched.
    #[error(transparent)]
    Unwatched(#[from] Unwatched),
    /// Nobody could hold the session to its restrictions.
    #[error(
        "the session is restricted in what it may do, and {0} has no agent that could hold it to that: have one join, or lift the restriction"
    )]
    Unrestrained(String),
    /// The node's kernel can't do what a restriction takes.
    #[error(
        "the session is kept from some files, and {node} can't keep files from being opened: {why}; have the restriction lifted, or that changed"
    )]
    NoPaths {
        /// The node.
        node: String,
        /// What it lacks.
        why: String,
    },
}

/// A connection to a node.
pub struct Watched {
    /// The connection.
    pub stream: TcpStream,
    /// The agent waits for it; nobody does where nobody needs to watch.
    pub expecting: Option<Expecting>,
}

impl Watch {
    /// Whether the session can't be without an agent.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.demand == Agent::Required || self.reach != Reach::default()
    }

    /// Opens the connection to `address` (host and port).
    ///
    /// # Errors
    /// See [`WatchError`].
    pub async fn connect(&self, address: &str) -> Result<Watched, WatchError> {
        let node = &self.session.target.name;
        let no_paths = self.no_paths.as_ref().filter(|_| !self.reach.files.deny_paths.is_empty());
        if let Some(why) = no_paths.filter(|_| self.demand != Agent::None) {
            return Err(WatchError::NoPaths { node: node.clone(), why: why.clone() });
        }
        if self.demand == Agent::None {
            if self.is_required() {
                return Err(WatchError::Unrestrained(node.clone()));
            }
            return Ok(Watched { stream: TcpStream::connect(address).await?, expecting: None });
        }
        let mut last = None;
        for to in lookup_host(address).await? {
            match self.connect_to(node, to).await {
                Err(WatchError::Unreachable(error)) => last = Some(error),
                done => return done,
            }
        }
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        Err(last.unwrap_or_else(unknown).into())
    }

    async fn connect_to(&self, node: &str, to: SocketAddr) -> Result<Watched, WatchError> {
        // Bound before it is connected: the agent must know both ends before the kernel sees them.
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(source_towards(to)?)?;
        let expected = Expected {
            actor: self.session.actor.clone(),
            from: socket.local_addr()?,
            login: self.session.target.login.as_ref().map(ToString::to_string).unwrap_or_default(),
            reach: self.reach.clone(),
            session: self.session.id,
            to,
        };
        let expecting = match self.agents.expect(node, expected).await {
            Ok(expecting) => Some(expecting),
            Err(unwatched) if self.is_required() => return Err(unwatched.into()),
            Err(unwatched) => {
                tracing::warn!(session = %self.session.id, "the session goes unwatched: {unwatched}");
                None
            }
        };
        Ok(Watched { stream: socket.connect(to).await?, expecting })
    }
}

/// The address that this machine has towards another one, and port 0; a link-local one with its interface.
fn source_towards(to: SocketAddr) -> io::Result<SocketAddr> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    // Nothing is sent: the kernel only looks for the way.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?;
    let mut source = socket.local_addr()?;
    source.set_port(0);
    Ok(source)
}
