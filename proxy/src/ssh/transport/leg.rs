//! One side of the relay: version, key exchange, then messages, and key exchange again when keys are old.
//!
//! The owner reads bytes from its socket and takes events out of them; messages lie decrypted in its own read
//! buffer, may be changed there (channel numbers) and go straight into the other leg:
//!
//! ```text
//! let n = socket.try_read(&mut buffer)?;
//! let mut incoming = Incoming::new(&mut buffer[..n], now);
//! while let Some(event) = leg.next(&mut incoming)? {
//!     if let Event::Message(payload) = event {
//!         other.send(payload)?;
//!     }
//! }
//! let written = other_socket.try_write(other.output())?;
//! other.wrote(written);
//! ```
//!
//! **For the owner.** Don't read a leg while the other one's [`Leg::can_send`] is false or its output is large, nor
//! while its own is. A leg in key exchange itself is read whatever the other one does, but only once its peer's KEXINIT
//! is there: before that ([`Leg::awaits_kexinit`]) a peer sends whatever its windows allow, behind it nothing but the
//! exchange. Start a rekey of one's own ([`Leg::start_rekey`]) on one leg at a time: two of them could each wait for
//! room in the other.
//!
//! Its buffers are the thread's ([`room`]): a leg that waits, with nothing to write and no part of a packet, keeps
//! nothing but its keys.

mod exchange;
mod room;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::cipher::Cipher;
use super::derive::ExchangeHash;
use super::error::{ApiMisuse, Error, PeerMisbehaved, printable};
use super::host_key::{HostKey, HostKeyAlgorithm, HostKeyOffered};
use super::kex::KexAlgorithm;
use super::mac::Mac;
use super::negotiate::Role;
use super::packet::{Opened, PAYLOAD_MAX, Rx, Tx};
use super::version::{OURS, VersionReader};
use super::wire::{Put, Reader};
use super::{number, quirk, rekey};

use exchange::Awaits;

/// Bytes that may wait for the end of a key exchange: one read of the other leg (128 KiB), which isn't read
/// while this one can't send, a message of the largest size, and what the owner says by itself.
pub const HELD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that may arrive while the host key isn't judged: an honest server only sends NEWKEYS and EXT_INFO.
pub const UNREAD_BYTES_MAX: usize = 256 * 1024;
/// Key exchanges before authentication: a login needs one; each costs us some 0.2 ms of computing.
pub const EXCHANGES_BEFORE_LOGIN_MAX: u32 = 16;
/// Packets before authentication, key exchanges included: a login with a full agent needs some fifty.
pub const PACKETS_BEFORE_LOGIN_MAX: u32 = 1_000;
/// Signature algorithms of user keys, as EXT_INFO tells them to clients (RFC 8308 section 3.1): they choose RSA's
/// hash by it. What a login may name is decided in [`authenticate`](crate::ssh::authenticate).
pub const USER_SIGNATURE_ALGORITHMS: [&str; 8] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Extensions looked at in one SSH_MSG_EXT_INFO.
const EXTENSIONS_MAX: u32 = 64;

/// What the server side of a leg is.
pub struct ServerConfig {
    /// Host keys, favourite first.
    pub host_keys: Vec<HostKey>,
    /// Host keys that come into use later: clients are told them, and shown none of them.
    pub upcoming_host_keys: Vec<HostKey>,
    /// Key exchange methods, favourite first.
    pub kex: Vec<KexAlgorithm>,
    /// Ciphers, favourite first.
    pub ciphers: Vec<Cipher>,
    /// MACs for the ciphers that need one, favourite first.
    pub macs: Vec<Mac>,
    /// When we renew keys by ourselves.
    pub rekey: rekey::Policy,
}

impl ServerConfig {
    /// With everything that a client should be offered, if nothing is known of clients.
    #[must_use]
    pub fn new(host_keys: Vec<HostKey>) -> Self {
        Self {
            host_keys,
            upcoming_host_keys: Vec::new(),
            kex: KexAlgorithm::MODERN.to_vec(),
            ciphers: Cipher::ALL.to_vec(),
            macs: Mac::OVER_ENCRYPTED.to_vec(),
            rekey: rekey::Policy::default(),
        }
    }
}

/// What the client side of a leg is.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Host key algorithms that are taken, favourite first ([`HostKeyAlgorithm::pinned_first`]).
    pub host_keys: Vec<HostKeyAlgorithm>,
    /// Key exchange methods, favourite first.
    pub kex: Vec<KexAlgorithm>,
    /// Ciphers, favourite first.
    pub ciphers: Vec<Cipher>,
    /// MACs for the ciphers that need one, favourite first.
    pub macs: Vec<Mac>,
    /// When we renew keys by ourselves.
    pub rekey: rekey::Policy,
}

impl ClientConfig {
    /// With everything that we can do.
    #[must_use]
    pub fn new(host_keys: Vec<HostKeyAlgorithm>) -> Self {
        Self {
            host_keys,
            kex: KexAlgorithm::ALL.to_vec(),
            ciphers: Cipher::ALL.to_vec(),
            macs: Mac::ALL.to_vec(),
            rekey: rekey::Policy::default(),
        }
    }
}

/// Bytes that were read from a peer, with the time at which they were: the duration since any fixed moment of
/// the owner's choice, the same for all calls on a leg.
pub struct Incoming<'a> {
    bytes: &'a mut [u8],
    at: usize,
    now: Duration,
}

impl<'a> Incoming<'a> {
    /// All of `bytes` is still to be looked at.
    #[must_use]
    pub fn new(bytes: &'a mut [u8], now: Duration) -> Self {
        Self { bytes, at: 0, now }
    }

    fn rest(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.at..).unwrap_or_default()
    }
}

/// What a leg tells its owner.
#[derive(Debug)]
pub enum Event<'e> {
    /// (Client.) The target's host key, its signature checked. Nothing goes on until
    /// [`Leg::accept_host_key`] or [`Leg::refuse_host_key`] is called.
    HostKey(Box<HostKeyOffered>),
    /// The first key exchange is done; messages may be sent.
    Ready,
    /// A message of the layers above: SERVICE_REQUEST or SERVICE_ACCEPT (5, 6), 50 to 79, and, once
    /// [`Leg::set_authenticated`] was called, 80 to 127. Never empty. It may be changed in place.
    Message(&'e mut [u8]),
}

/// One side of the relay. See the module's documentation.
pub struct Leg {
    side: Side,
    rx: Rx,
    tx: Tx,
    awaits: Awaits,
    peer_version: Result<Vec<u8>, VersionReader>,
    session_id: Option<ExchangeHash>,
    /// Both sides announced strict key exchange.
    strict: bool,
    /// (Server.) The client prefers chacha20-poly1305 and lacks strict key exchange.
    without_chacha: bool,
    /// The client takes EXT_INFO.
    peer_ext_info: bool,
    ready: bool,
    authenticated: bool,
    closed: bool,
    exchanges: u32,
    packets_before_login: u32,
    /// (Client.) Host key that the owner accepted.
    host_key: Option<Vec<u8>>,
    /// (Server.) What the first exchange was signed with.
    own_host_key: Option<HostKeyAlgorithm>,
    server_sig_algs: Option<Vec<String>>,
    now: Duration,
    keys_since: Duration,
    /// Start of a packet that hasn't come whole, and what lies behind it.
    partial: Vec<u8>,
    partial_at: usize,
    /// Sealed packets that are to be written.
    out: Vec<u8>,
    out_at: usize,
    /// Payloads that wait for the end of a key exchange, each after its length.
    held: Vec<u8>,
}

enum Side {
    Server(Arc<ServerConfig>),
    Client(Box<ClientConfig>),
}

/// An event, before anything is borrowed for it.
enum Found {
    HostKey(Box<HostKeyOffered>),
    Ready,
    Message,
}

/// Where an opened packet lies.
enum Place {
    Incoming,
    Partial,
}

impl Leg {
    /// The side towards a user's client. Its output holds our version at once, our KEXINIT once the client's version
    /// is there.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Self::new(Side::Server(config))
    }

    /// The side towards a target's sshd. Its output holds our version and KEXINIT at once.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn client(config: ClientConfig) -> Result<Self, Error> {
        Self::new(Side::Client(Box::new(config)))
    }

    fn new(side: Side) -> Result<Self, Error> {
        let role = if matches!(side, Side::Server(_)) { Role::Server } else { Role::Client };
        let mut leg = Self {
            side,
            rx: Rx::default(),
            tx: Tx::default(),
            awaits: Awaits::Nothing,
            peer_version: Err(VersionReader::new(role)),
            session_id: None,
            strict: false,
            without_chacha: false,
            peer_ext_info: false,
            ready: false,
            authenticated: false,
            closed: false,
            exchanges: 0,
            packets_before_login: 0,
            host_key: None,
            own_host_key: None,
            server_sig_algs: None,
            now: Duration::ZERO,
            keys_since: Duration::ZERO,
            partial: Vec::new(),
            partial_at: 0,
            out: Vec::new(),
            out_at: 0,
            held: Vec::new(),
        };
        leg.out.extend_from_slice(OURS.as_bytes());
        leg.out.extend_from_slice(b"\r\n");
        if role == Role::Client {
            leg.send_kexinit()?;
        }
        Ok(leg)
    }

    /// The next event in `incoming`; `None` once all of it was used (the leg keeps what isn't a whole packet).
    ///
    /// # Errors
    /// Why the leg ended. It is closed then, and a farewell may be in its output.
    pub fn next<'e>(&'e mut self, incoming: &'e mut Incoming<'_>) -> Result<Option<Event<'e>>, Error> {
        let found = self.advance(incoming).inspect_err(|error| self.fail(error))?;
        Ok(match found {
            None => None,
            Some((Found::Ready, ..)) => Some(Event::Ready),
            Some((Found::HostKey(offered), ..)) => Some(Event::HostKey(offered)),
            Some((Found::Message, Place::Incoming, range)) => {
                incoming.bytes.get_mut(range).map(Event::Message)
            }
            Some((Found::Message, Place::Partial, range)) => self.partial.get_mut(range).map(Event::Message),
        })
    }

    fn advance(
        &mut self,
        incoming: &mut Incoming<'_>,
    ) -> Result<Option<(Found, Place, Range<usize>)>, Error> {
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        self.now = incoming.now;
        if let Err(reader) = &mut self.peer_version {
            let (taken, version) = reader.read(incoming.rest())?;
            incoming.at += taken;
            let Some(version) = version else { return Ok(None) };
            // Who may lack strict key exchange speaks first: its KEXINIT is answered with ours.
            let answers = quirk::may_lack_strict_exchange(&version);
            self.peer_version = Ok(version);
            if matches!(self.side, Side::Server(_)) && !answers {
                self.send_kexinit()?;
            }
        }
        loop {
            if matches!(self.awaits, Awaits::Verdict(..)) {
                return self.keep_unread(incoming).map(|()| None);
            }
            let Some((place, opened)) = self.open_next(incoming)? else { return Ok(None) };
            let found = match place {
                Place::Incoming => {
                    let payload = incoming.bytes.get(opened.payload.clone()).unwrap_or_default();
                    self.dispatch(payload, opened.sequence)?
                }
                Place::Partial => {
                    let partial = std::mem::take(&mut self.partial);
                    let payload = partial.get(opened.payload.clone()).unwrap_or_default();
                    let found = self.dispatch(payload, opened.sequence);
                    self.partial = partial;
                    found?
                }
            };
            if let Some(found) = found {
                return Ok(Some((found, place, opened.payload)));
            }
        }
    }

    /// Opens the next packet, in `incoming` where it lies there whole, else in `partial`.
    fn open_next(&mut self, incoming: &mut Incoming<'_>) -> Result<Option<(Place, Opened)>, Error> {
        if self.partial_at >= self.partial.len() {
            self.forget_partial();
            let at = incoming.at;
            if let Some(mut opened) = self.rx.open(incoming.rest())? {
                opened.payload = opened.payload.start + at..opened.payload.end + at;
                incoming.at += opened.consumed;
                return Ok(Some((Place::Incoming, opened)));
            }
            self.keep_rest(incoming);
            return Ok(None);
        }
        self.partial.drain(..self.partial_at);
        self.partial_at = 0;
        loop {
            let needed = self.rx.total_len(&self.partial)?.unwrap_or(super::cipher::LENGTH_LEN);
            if self.partial.len() < needed {
                let rest = incoming.rest();
                let more = rest.len().min(needed - self.partial.len());
                if more == 0 {
                    return Ok(None);
                }
                self.partial.extend_from_slice(rest.get(..more).unwrap_or_default());
                incoming.at += more;
            } else if let Some(opened) = self.rx.open(&mut self.partial)? {
                self.partial_at = opened.consumed;
                return Ok(Some((Place::Partial, opened)));
            }
        }
    }

    /// Keeps what of `incoming` wasn't looked at for the next call of [`Leg::next`]: for an owner who stops between
    /// two messages, e.g. to wait for something before it goes on.
    ///
    /// # Errors
    /// [`ApiMisuse::UnreadTooMuch`].
    pub fn keep(&mut self, incoming: &mut Incoming<'_>) -> Result<(), Error> {
        self.partial.drain(..std::mem::take(&mut self.partial_at).min(self.partial.len()));
        self.keep_unread(incoming)
    }

    fn keep_rest(&mut self, incoming: &mut Incoming<'_>) {
        let rest = incoming.rest();
        if self.partial.capacity() == 0 && !rest.is_empty() {
            self.partial = room::take(&room::PARTIAL);
        }
        self.partial.extend_from_slice(rest);
        incoming.at = incoming.bytes.len();
    }

    fn forget_partial(&mut self) {
        room::give_back(&room::PARTIAL, std::mem::take(&mut self.partial));
        self.partial_at = 0;
    }

    fn keep_unread(&mut self, incoming: &mut Incoming<'_>) -> Result<(), Error> {
        self.keep_rest(incoming);
        if self.partial.len() > UNREAD_BYTES_MAX {
            return Err(ApiMisuse::UnreadTooMuch { max: UNREAD_BYTES_MAX }.into());
        }
        Ok(())
    }

    fn dispatch(&mut self, payload: &[u8], sequence: u32) -> Result<Option<Found>, Error> {
        let number = payload.first().copied().unwrap_or_default();
        if number == number::DISCONNECT {
            return Err(disconnected(payload));
        }
        if !self.authenticated {
            self.packets_before_login = self.packets_before_login.saturating_add(1);
            if self.packets_before_login > PACKETS_BEFORE_LOGIN_MAX {
                return Err(PeerMisbehaved::TooManyPackets { max: PACKETS_BEFORE_LOGIN_MAX }.into());
            }
        }
        // OpenSSH's PROTOCOL section 1.10: nothing but the exchange itself, until the first NEWKEYS.
        if self.strict && !self.ready && !(number::KEXINIT..=number::KEX_LAST).contains(&number) {
            return Err(PeerMisbehaved::StrictKex { got: number }.into());
        }
        match number {
            number::KEXINIT..=number::KEX_LAST => self.exchange(number, payload, sequence),
            number::IGNORE | number::DEBUG | number::UNIMPLEMENTED => Ok(None),
            number::EXT_INFO => {
                self.between_exchanges(number)?;
                self.ext_info(payload)?;
                Ok(None)
            }
            number::SERVICE_REQUEST
            | number::SERVICE_ACCEPT
            | number::USERAUTH_FIRST..=number::CONNECTION_LAST => {
                self.between_exchanges(number)?;
                if number >= 80 && !self.authenticated {
                    return Err(PeerMisbehaved::Unexpected {
                        expect: "the end of authentication",
                        got: number,
                    }
                    .into());
                }
                Ok(Some(Found::Message))
            }
            _ => {
                let mut reply = Vec::with_capacity(5);
                reply.put_byte(number::UNIMPLEMENTED);
                reply.put_uint32(sequence);
                self.seal(&reply)?;
                Ok(None)
            }
        }
    }

    fn ext_info(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut read = || {
            let mut reader = Reader::new(payload);
            reader.byte()?;
            for _ in 0..reader.uint32()?.min(EXTENSIONS_MAX) {
                let (name, value) = (reader.string()?, reader.string()?);
                if name == b"server-sig-algs" && matches!(self.side, Side::Client(_)) {
                    let mut list = Vec::new();
                    list.put_string(value);
                    let names = Reader::new(&list).name_list()?;
                    self.server_sig_algs = Some(names.iter().map(str::to_owned).collect());
                }
            }
            Ok(())
        };
        read().map_err(|source| PeerMisbehaved::Malformed { message: "SSH_MSG_EXT_INFO", source }.into())
    }

    /// (Client.) The host key is the right one: go on. Call [`Leg::next`] again afterwards, with an empty
    /// [`Incoming`] if there is nothing new: what came meanwhile was kept. A peer that is known may send packets as
    /// large as after the login, for a banner.
    ///
    /// # Errors
    /// [`ApiMisuse::NoHostKeyPending`], [`Error::Crypto`].
    pub fn accept_host_key(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.awaits, Awaits::Nothing) {
            Awaits::Verdict(derived, host_key) => {
                self.host_key = Some(host_key);
                self.rx.allow_large();
                self.go_over(*derived)
            }
            other => {
                self.awaits = other;
                Err(ApiMisuse::NoHostKeyPending.into())
            }
        }
    }

    /// (Client.) The host key is wrong: the leg ends, a farewell is in its output. Gives the error that says so.
    pub fn refuse_host_key(&mut self) -> Error {
        let error = Error::HostKeyRefused;
        self.fail(&error);
        error
    }

    /// Sends a message of the layers above (5, 6, 50 to 127), or lets it wait for the end of a key exchange.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`], [`PeerMisbehaved::KeyExhausted`], [`Error::Crypto`].
    pub fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        let number = payload.first().copied().unwrap_or_default();
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        if !matches!(number, number::SERVICE_REQUEST | number::SERVICE_ACCEPT | 50..=number::CONNECTION_LAST)
        {
            return Err(ApiMisuse::NotOurs { got: number }.into());
        }
        if payload.len() > PAYLOAD_MAX {
            return Err(ApiMisuse::TooLong { got: payload.len(), max: PAYLOAD_MAX }.into());
        }
        if !self.ready {
            return Err(ApiMisuse::NotReady.into());
        }
        if self.can_send() {
            return self.seal(payload);
        }
        if self.held.len() + 4 + payload.len() > HELD_BYTES_MAX {
            return Err(ApiMisuse::HeldTooMuch { max: HELD_BYTES_MAX }.into());
        }
        self.held.put_string(payload);
        Ok(())
    }

    /// Sends an SSH_MSG_IGNORE with `data`, also while keys are exchanged.
    ///
    /// # Errors
    /// As [`Leg::send`].
    pub fn send_ignore(&mut self, data: &[u8]) -> Result<(), Error> {
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        if !self.ready {
            return Err(ApiMisuse::NotReady.into());
        }
        let mut message = Vec::with_capacity(5 + data.len());
        message.put_byte(number::IGNORE);
        message.put_string(data);
        self.seal(&message)
    }

    /// Says goodbye and ends the leg; its output is still to be written.
    ///
    /// # Errors
    /// [`ApiMisuse::Closed`] if it has ended already, [`Error::Crypto`].
    pub fn disconnect(&mut self, reason: u32, text: &str) -> Result<(), Error> {
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        self.closed = true;
        self.awaits = Awaits::Nothing;
        let mut message = Vec::with_capacity(13 + text.len());
        message.put_byte(number::DISCONNECT);
        message.put_uint32(reason);
        message.put_string(text.as_bytes());
        message.put_string(b""); // language
        self.seal(&message)
    }

    fn fail(&mut self, error: &Error) {
        if let Some((reason, text)) = error.farewell() {
            // Whether the farewell can be said changes nothing: the leg ends with the error it has.
            drop(self.disconnect(reason, text));
        }
        self.closed = true;
        self.awaits = Awaits::Nothing;
        self.held = Vec::new();
        self.partial = Vec::new();
        self.partial_at = 0;
    }

    /// Whether our keys are old and a rekey could be started now.
    #[must_use]
    pub fn wants_rekey(&self, now: Duration) -> bool {
        let policy = match &self.side {
            Side::Server(config) => config.rekey,
            Side::Client(config) => config.rekey,
        };
        let idle = self.ready && !self.closed && matches!(self.awaits, Awaits::Nothing);
        idle && policy.due(self.tx.usage(), self.rx.usage(), now.saturating_sub(self.keys_since))
    }

    /// Starts a key exchange by ourselves; does nothing while one runs. See the module's documentation on
    /// when not to.
    ///
    /// # Errors
    /// [`ApiMisuse::Closed`], [`ApiMisuse::NotReady`], [`Error::Crypto`].
    pub fn start_rekey(&mut self) -> Result<(), Error> {
        match self.awaits {
            _ if self.closed => Err(ApiMisuse::Closed.into()),
            _ if !self.ready => Err(ApiMisuse::NotReady.into()),
            Awaits::Nothing => self.send_kexinit(),
            _ => Ok(()),
        }
    }

    fn seal(&mut self, payload: &[u8]) -> Result<(), Error> {
        if self.out.capacity() == 0 {
            self.out = room::take(&room::OUT);
        }
        self.tx.seal(payload, &mut self.out)
    }

    /// What is to be written to the peer.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.out.get(self.out_at..).unwrap_or_default()
    }

    /// That the first `count` bytes of the output were written.
    pub fn wrote(&mut self, count: usize) {
        self.out_at = self.out_at.saturating_add(count).min(self.out.len());
        if self.out_at == self.out.len() {
            room::give_back(&room::OUT, std::mem::take(&mut self.out));
            self.out_at = 0;
        } else if self.out_at > self.out.len() / 2 {
            // A slow peer: don't let the written front grow.
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
    }

    /// Bytes of buffers that the leg holds now.
    #[must_use]
    pub fn buffered_capacity(&self) -> usize {
        self.partial.capacity() + self.out.capacity() + self.held.capacity()
    }

    /// That the peer has logged in: packets may be large now, and messages from 80 on are let through. To be
    /// called when USERAUTH_SUCCESS was sent (server) or has come (client), before the next [`Leg::next`].
    pub fn set_authenticated(&mut self) {
        self.authenticated = true;
        self.rx.allow_large();
    }

    /// Whether the leg has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The session id (RFC 4253 section 7.2), what user authentication signs; from the first exchange on.
    #[must_use]
    pub fn session_id(&self) -> Option<&[u8]> {
        self.session_id.as_ref().map(ExchangeHash::as_bytes)
    }

    /// Whether the peer says that it is OpenSSH.
    #[must_use]
    pub fn peer_is_openssh(&self) -> bool {
        self.peer_version.as_ref().is_ok_and(|line| quirk::is_openssh(line))
    }

    /// The peer's version line as one may print it.
    #[must_use]
    pub fn peer_version(&self) -> Option<String> {
        self.peer_version.as_ref().ok().map(|line| printable(line))
    }

    /// (Client.) Signature algorithms of user keys that the target takes, if it told (RFC 8308 section 3.1).
    #[must_use]
    pub fn server_sig_algs(&self) -> Option<&[String]> {
        self.server_sig_algs.as_deref()
    }

    /// (Server.) The host key of ours that the first exchange showed: how it signed, and its blob (K_S).
    #[must_use]
    pub fn own_host_key(&self) -> Option<(HostKeyAlgorithm, &[u8])> {
        let (Side::Server(config), Some(algorithm)) = (&self.side, self.own_host_key) else { return None };
        config.host_keys.iter().find_map(|key| key.blob(algorithm)).map(|blob| (algorithm, blob))
    }

    /// How many key exchanges were started, the first included.
    #[must_use]
    pub fn exchanges(&self) -> u32 {
        self.exchanges
    }
}

fn disconnected(payload: &[u8]) -> Error {
    let read = || {
        let mut reader = Reader::new(payload);
        reader.byte()?;
        Ok((reader.uint32()?, reader.string()?))
    };
    match read() {
        Ok((reason, text)) => Error::PeerDisconnected { reason, text: printable(text) },
        Err(source) => PeerMisbehaved::Malformed { message: "SSH_MSG_DISCONNECT", source }.into(),
    }
}

#[cfg(test)]
#[path = "leg_tests.rs"]
mod tests;
