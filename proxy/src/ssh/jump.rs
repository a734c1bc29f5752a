//! `ssh -J PROXY LOGIN@NODE`: a proved person's connection that names no node carries further connections, each in a
//! channel of its own and each to one node. Such a connection is an SSH session within, and comes in by the same
//! entrance as any other: it is proved, decided and told there. Nothing else leads anywhere from here.

use super::accept::Entrance;
use super::message::forward::{Opening, Spot};
use super::message::{Message, MessageError, open_failure};
use super::socket::{LegSocket, SocketError};
use super::stream::Stream;
use super::transport::error::Error as LegError;
use super::transport::leg::Leg;
use super::transport::reason;
use futures_util::FutureExt as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// Channels of one connection at once; each may be a session.
const CHANNELS_MAX: usize = 64;
/// Bytes of a channel that may be on their way to us, as OpenSSH's.
const WINDOW: u32 = 2 << 20;
/// Most bytes of data in a message, either way.
const PACKET: u32 = 32 << 10;
/// Bytes that may wait to be written to the person before nothing more is read.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// How long a connection may lead nowhere.
const IDLE: Duration = Duration::from_secs(600);
/// How often keys' age, idleness and buffers are looked at.
const TICK: Duration = Duration::from_secs(10);
/// What the person is told who asks for anything else.
const USE: &str =
    "custody: say which account at which node: ssh LOGIN+NODE@PROXY, or ssh -J PROXY LOGIN@NODE";

/// Why it ended.
#[derive(Debug, thiserror::Error)]
enum JumpError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("{0}")]
    Misbehaved(&'static str),
    #[error("it led nowhere for {} minutes", IDLE.as_secs() / 60)]
    Idle,
}

impl From<LegError> for JumpError {
    fn from(error: LegError) -> Self {
        Self::Socket(error.into())
    }
}

/// A connection within.
struct Channel {
    /// The person's number for it.
    peer: u32,
    /// What came for the node; none once no more will.
    input: Option<DuplexStream>,
    /// Bytes that the person may still send: `input` has room for as many.
    granted: u32,
    /// Bytes that the person takes.
    window: Arc<Semaphore>,
    /// Whether we have said that it is over.
    closed: bool,
}

/// What happens within.
enum Within {
    /// Bytes for the person.
    Data(u32, Vec<u8>),
    /// No more will come for the person.
    Eof(u32),
    /// So many bytes of the person's were taken.
    Taken(u32, usize),
    /// Neither side says anything more.
    Over(u32),
}

struct Jump<'a> {
    from: SocketAddr,
    entrance: &'a Arc<Entrance>,
    channels: BTreeMap<u32, Channel>,
    next: u32,
    within: mpsc::Sender<Within>,
}

/// Serves a proved person until the connection ends, and every connection within with it.
pub async fn serve(mut socket: LegSocket, from: SocketAddr, entrance: &Arc<Entrance>) {
    let (within, mut happened) = mpsc::channel(16);
    let mut jump = Jump { from, entrance, channels: BTreeMap::new(), next: 0, within };
    let Err(error) = jump.run(&mut socket, &mut happened).await;
    tracing::debug!(%from, "a connection to the proxy itself ended: {error}");
    // A peer that is gone can't be told.
    let _gone = socket.leg.disconnect(reason::BY_APPLICATION, &format!("custody: {error}"));
    let _late = tokio::time::timeout(Duration::from_secs(2), socket.flush()).await;
}

impl Jump<'_> {
    async fn run(
        &mut self,
        socket: &mut LegSocket,
        happened: &mut mpsc::Receiver<Within>,
    ) -> Result<std::convert::Infallible, JumpError> {
        let mut tick = tokio::time::interval(TICK);
        let mut used = Instant::now();
        // What came right behind the login was kept.
        socket.hear_kept(|payload, answers| self.hear(payload, answers))?;
        loop {
            let room = socket.leg.output().len() < OUTPUT_BYTES_MAX;
            // Until its KEXINIT a peer may go on asking for answers.
            let exchanges = socket.leg.in_exchange() && !socket.leg.awaits_kexinit();
            let may_read = room || exchanges;
            let (may_say, has_output) = (room && socket.leg.can_send(), !socket.leg.output().is_empty());
            tokio::select! {
                writable = socket.stream.writable(), if has_output => writable.map_err(SocketError::from)?,
                readable = socket.stream.readable(), if may_read => {
                    readable.map_err(SocketError::from)?;
                    socket.hear(|payload, answers| self.hear(payload, answers))?;
                }
                Some(within) = happened.recv(), if may_say => self.happened(&mut socket.leg, within)?,
                _ = tick.tick() => {
                    if !self.channels.is_empty() {
                        used = Instant::now();
                    } else if used.elapsed() > IDLE {
                        return Err(JumpError::Idle);
                    }
                    if socket.leg.wants_rekey(socket.now()) {
                        socket.leg.start_rekey()?;
                    }
                }
            }
            socket.write().map_err(SocketError::from)?;
        }
    }

    /// A message of the person's.
    fn hear(&mut self, payload: &[u8], answers: &mut Vec<Vec<u8>>) -> Result<(), JumpError> {
        let message = match Message::parse(payload) {
            Ok(message) => message,
            // RFC 4253, 11.4: as the relay does.
            Err(MessageError::UnknownNumber(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut say = |message: &Message<'_>| answers.push(message.to_payload());
        match message {
            Message::GlobalRequest { want_reply, .. } => {
                if want_reply {
                    say(&Message::RequestFailure);
                }
            }
            Message::ChannelOpen { kind, sender, window, max_packet, data } => {
                say(&match self.open(kind, sender, (window, max_packet), data) {
                    Ok(id) => Message::ChannelOpenConfirmation {
                        recipient: sender,
                        sender: id,
                        window: WINDOW,
                        max_packet: PACKET,
                        data: b"",
                    },
                    Err((reason, line)) => Message::ChannelOpenFailure {
                        recipient: sender,
                        reason,
                        description: line.as_bytes(),
                        language: b"",
                    },
                });
            }
            Message::WindowAdjust { recipient, bytes } => {
                let window = &self.channel(recipient)?.window;
                if window.available_permits() + bytes as usize > u32::MAX as usize {
                    return Err(JumpError::Misbehaved("a window of more than 4 GiB"));
                }
                window.add_permits(bytes as usize);
            }
            Message::Data { recipient, data } => self.channel(recipient)?.take(data)?,
            // There is no such stream in a connection within.
            Message::ExtendedData { recipient, .. } | Message::ChannelSuccess { recipient } => {
                self.channel(recipient).map(drop)?;
            }
            Message::Eof { recipient } => self.channel(recipient)?.input = None,
            Message::Close { recipient } => {
                let channel = self.channel(recipient)?;
                if !channel.closed {
                    say(&Message::Close { recipient: channel.peer });
                }
                self.channels.remove(&recipient);
            }
            Message::ChannelRequest { recipient, want_reply, .. } => {
                let peer = self.channel(recipient)?.peer;
                if want_reply {
                    say(&Message::ChannelFailure { recipient: peer });
                }
            }
            Message::RequestSuccess { .. }
            | Message::RequestFailure
            | Message::ChannelOpenConfirmation { .. }
            | Message::ChannelOpenFailure { .. }
            | Message::ChannelFailure { .. } => {
                return Err(JumpError::Misbehaved("an answer to what was never asked"));
            }
        }
        Ok(())
    }

    fn channel(&mut self, id: u32) -> Result<&mut Channel, JumpError> {
        self.channels.get_mut(&id).ok_or(JumpError::Misbehaved("a message for a channel that isn't open"))
    }

    /// Lets a connection to a node in; our number for it, or why not.
    fn open(
        &mut self,
        kind: &[u8],
        peer: u32,
        (window, max_packet): (u32, u32),
        data: &[u8],
    ) -> Result<u32, (u32, &'static str)> {
        let Ok(Some(Opening::Direct { to: Spot::Tcp { host, .. }, .. })) = Opening::parse(kind, data) else {
            return Err((open_failure::ADMINISTRATIVELY_PROHIBITED, USE));
        };
        let Some(node) = std::str::from_utf8(host).ok().and_then(super::preamble::node) else {
            return Err((open_failure::ADMINISTRATIVELY_PROHIBITED, "custody: that is no name of a node"));
        };
        let too_many = (open_failure::RESOURCE_SHORTAGE, "custody: too many connections: try again later");
        if self.channels.len() >= CHANNELS_MAX || max_packet == 0 {
            return Err(too_many);
        }
        let (stream, far) = Stream::pair().map_err(|_| too_many)?;
        if !self.entrance.enter(stream, self.from, Some(node.to_owned())) {
            return Err(too_many);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let (input, came) = tokio::io::duplex(WINDOW as usize);
        let window = Arc::new(Semaphore::new(window as usize));
        let packet = max_packet.min(PACKET) as usize;
        tokio::spawn(carry(id, far, came, (Arc::clone(&window), packet), self.within.clone()));
        let channel = Channel { peer, input: Some(input), granted: WINDOW, window, closed: false };
        self.channels.insert(id, channel);
        Ok(id)
    }

    /// Something within. What is of a channel that is gone is of no interest.
    fn happened(&mut self, leg: &mut Leg, within: Within) -> Result<(), JumpError> {
        let (Within::Data(id, _) | Within::Eof(id) | Within::Taken(id, _) | Within::Over(id)) = within;
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| !channel.closed) else {
            return Ok(());
        };
        let recipient = channel.peer;
        let message = match &within {
            Within::Data(_, data) => Message::Data { recipient, data },
            Within::Eof(_) => Message::Eof { recipient },
            Within::Over(_) => {
                channel.closed = true;
                channel.input = None;
                Message::Close { recipient }
            }
            Within::Taken(_, count) => {
                let bytes = u32::try_from(*count).unwrap_or(u32::MAX);
                channel.granted = channel.granted.saturating_add(bytes);
                Message::WindowAdjust { recipient, bytes }
            }
        };
        Ok(leg.send(&message.to_payload())?)
    }
}

impl Channel {
    fn take(&mut self, data: &[u8]) -> Result<(), JumpError> {
        let left = u32::try_from(data.len()).ok().and_then(|count| self.granted.checked_sub(count));
        self.granted = left.ok_or(JumpError::Misbehaved("more data than the window takes"))?;
        match &mut self.input {
            Some(input) => {
                // There is room, so it need not wait, also not to be fair to other tasks.
                match tokio::task::unconstrained(input.write_all(data)).now_or_never() {
                    // If the node's side is gone, its end is on its way.
                    Some(Ok(()) | Err(_)) => Ok(()),
                    None => Err(JumpError::Misbehaved("more data than there is room for")),
                }
            }
            // Ours to end, and the person hasn't heard it yet.
            None if self.closed => Ok(()),
            None => Err(JumpError::Misbehaved("data behind the end of a channel")),
        }
    }
}

/// Carries a channel's bytes both ways until the session within is gone: its leg closes both directions at once.
async fn carry(
    id: u32,
    far: UnixStream,
    mut came: DuplexStream,
    (window, packet): (Arc<Semaphore>, usize),
    within: mpsc::Sender<Within>,
) {
    let (mut from_node, mut to_node) = far.into_split();
    let inwards = async {
        let mut buffer = vec![0; PACKET as usize];
        while let Ok(count @ 1..) = came.read(&mut buffer).await {
            let bytes = buffer.get(..count).unwrap_or_default();
            if to_node.write_all(bytes).await.is_err() || within.send(Within::Taken(id, count)).await.is_err()
            {
                break;
            }
        }
        // The session within hears that the person is gone, and ends.
        let _gone = to_node.shutdown().await;
        std::future::pending::<()>().await;
    };
    let outwards = async {
        let mut buffer = vec![0; packet];
        loop {
            // Nobody else takes permits: what is available stays so.
            let Ok(some) = window.acquire().await else { break };
            drop(some);
            let room = window.available_permits().min(packet);
            let read = from_node.read(buffer.get_mut(..room).unwrap_or_default()).await;
            let Ok(count @ 1..) = read else { break };
            window.forget_permits(count);
            let data = buffer.get(..count).unwrap_or_default().to_vec();
            if within.send(Within::Data(id, data)).await.is_err() {
                break;
            }
        }
        // If nobody hears it any more, the connection is gone.
        let _gone = within.send(Within::Eof(id)).await;
    };
    tokio::select! {
        () = outwards => {}
        () = inwards => {}
    }
    let _gone = within.send(Within::Over(id)).await;
}
