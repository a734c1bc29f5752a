//! How a leg exchanges keys (RFC 4253 section 7): what it awaits, and what each message of the exchange does.

use super::super::cipher::{Cipher, Opener, Sealer};
use super::super::derive::{self, Direction, ExchangeHash, Transcript};
use super::super::error::{ApiMisuse, Error, PeerIncompatible, PeerMisbehaved};
use super::super::host_key::{HostKey, HostKeyAlgorithm, HostKeyOffered};
use super::super::kex::{self, ClientEphemeral, SharedSecret};
use super::super::negotiate::{Agreed, KexInit, Proposal, Role, agree};
use super::super::number;
use super::super::quirk;
use super::super::version::OURS;
use super::super::wire::{Put, Reader, WireError};
use super::{EXCHANGES_BEFORE_LOGIN_MAX, Found, Leg, Side, USER_SIGNATURE_ALGORITHMS};

/// What a leg waits for in its key exchange.
pub(super) enum Awaits {
    /// No exchange runs.
    Nothing,
    /// Our KEXINIT is out.
    PeerKexInit { ours: Vec<u8> },
    /// (Server.)
    EcdhInit(Box<Exchange>),
    /// (Client.)
    EcdhReply(Box<Exchange>, Box<ClientEphemeral>, Vec<u8>),
    /// (Client.) The owner's verdict on the host key.
    Verdict(Box<Derived>, Vec<u8>),
    /// Our NEWKEYS is out.
    NewKeys(Box<Opener>),
}

/// An exchange after both KEXINITs.
pub(super) struct Exchange {
    agreed: Agreed,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    drop_guess: bool,
}

/// New keys that aren't in use yet.
pub(super) struct Derived {
    sealer: Sealer,
    opener: Opener,
}

impl Leg {
    /// Whether a message would go out at once; false before the first exchange is done, while keys are exchanged
    /// (from our KEXINIT to our NEWKEYS), and after the end.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.ready && !self.closed && matches!(self.awaits, Awaits::Nothing | Awaits::NewKeys(_))
    }

    /// Whether a key exchange runs: from either side's KEXINIT to the peer's NEWKEYS.
    #[must_use]
    pub fn in_exchange(&self) -> bool {
        !self.closed && !matches!(self.awaits, Awaits::Nothing)
    }

    /// Whether our KEXINIT is out and the peer's isn't here. Until it is, messages of the layers above may come as
    /// ever; from then on to its NEWKEYS they are refused.
    #[must_use]
    pub fn awaits_kexinit(&self) -> bool {
        !self.closed && matches!(self.awaits, Awaits::PeerKexInit { .. })
    }

    /// RFC 4253 section 7.1: after its KEXINIT a peer sends nothing of the layers above until its NEWKEYS.
    pub(super) fn between_exchanges(&self, got: u8) -> Result<(), Error> {
        match self.awaits {
            Awaits::Nothing | Awaits::PeerKexInit { .. } if self.ready => Ok(()),
            _ => Err(PeerMisbehaved::Unexpected { expect: "the key exchange to end", got }.into()),
        }
    }

    pub(super) fn exchange(
        &mut self,
        number: u8,
        payload: &[u8],
        sequence: u32,
    ) -> Result<Option<Found>, Error> {
        let dropped = match &mut self.awaits {
            Awaits::EcdhInit(exchange) | Awaits::EcdhReply(exchange, ..) => {
                std::mem::take(&mut exchange.drop_guess)
            }
            _ => false,
        };
        if dropped && number != number::KEXINIT && number != number::NEWKEYS {
            return Ok(None);
        }
        match (std::mem::replace(&mut self.awaits, Awaits::Nothing), number) {
            (Awaits::Nothing, number::KEXINIT) => {
                if self.session_id.is_none() {
                    self.without_chacha = !KexInit::decode(payload)?.is_strict_client();
                }
                self.send_kexinit()?;
                self.exchange(number, payload, sequence)
            }
            (Awaits::PeerKexInit { ours }, number::KEXINIT) => {
                self.take_kexinit(ours, payload, sequence)?;
                Ok(None)
            }
            (Awaits::EcdhInit(exchange), number::KEX_ECDH_INIT) => {
                self.take_ecdh_init(&exchange, payload)?;
                Ok(None)
            }
            (Awaits::EcdhReply(exchange, ephemeral, public), number::KEX_ECDH_REPLY) => {
                self.take_ecdh_reply(&exchange, *ephemeral, &public, payload)
            }
            (Awaits::NewKeys(opener), number::NEWKEYS) => {
                if payload.len() > 1 {
                    let source = WireError::TrailingBytes { count: payload.len() - 1 };
                    return Err(PeerMisbehaved::Malformed { message: "SSH_MSG_NEWKEYS", source }.into());
                }
                self.rx.new_keys(*opener, self.strict);
                self.keys_since = self.now;
                let first = !std::mem::replace(&mut self.ready, true);
                Ok(first.then_some(Found::Ready))
            }
            (awaits, _) => Err(PeerMisbehaved::Unexpected { expect: awaits.describe(), got: number }.into()),
        }
    }

    fn take_kexinit(&mut self, ours: Vec<u8>, payload: &[u8], sequence: u32) -> Result<(), Error> {
        let first = self.session_id.is_none();
        if !self.authenticated && self.exchanges > EXCHANGES_BEFORE_LOGIN_MAX {
            return Err(PeerMisbehaved::TooManyExchanges { max: EXCHANGES_BEFORE_LOGIN_MAX }.into());
        }
        let agreed = agree(&self.proposal(), &KexInit::decode(payload)?)?;
        if first {
            self.strict = agreed.peer_strict;
            self.peer_ext_info = agreed.peer_ext_info;
            if self.strict && sequence != 0 {
                return Err(PeerMisbehaved::StrictKex { got: number::KEXINIT }.into());
            }
        }
        let ciphers = [agreed.to_server.cipher, agreed.to_client.cipher];
        if !self.strict && ciphers.contains(&Cipher::ChaCha20Poly1305) {
            return Err(PeerIncompatible::Terrapin.into());
        }
        let exchange =
            Box::new(Exchange { agreed, ours, theirs: payload.to_vec(), drop_guess: agreed.drop_guess });
        self.awaits = match self.side {
            Side::Server(_) => Awaits::EcdhInit(exchange),
            Side::Client(_) => {
                let (ephemeral, public) = kex::client_start(agreed.kex)?;
                let mut message = Vec::with_capacity(5 + public.len());
                message.put_byte(number::KEX_ECDH_INIT);
                message.put_string(&public);
                self.seal(&message)?;
                Awaits::EcdhReply(exchange, Box::new(ephemeral), public)
            }
        };
        Ok(())
    }

    /// (Server.) The client's public value: answer, sign, and go over to new keys for what we send.
    fn take_ecdh_init(&mut self, exchange: &Exchange, payload: &[u8]) -> Result<(), Error> {
        let read = || {
            let mut reader = Reader::new(payload);
            reader.byte()?;
            let public = reader.string()?;
            reader.finish().map(|()| public)
        };
        let client_public = read()
            .map_err(|source| PeerMisbehaved::Malformed { message: "SSH_MSG_KEX_ECDH_INIT", source })?;
        let (server_public, secret) = kex::server_answer(exchange.agreed.kex, client_public)?;

        let Side::Server(config) = &self.side else { return Err(ApiMisuse::Closed.into()) };
        let algorithm = exchange.agreed.host_key;
        let (key, host_key) = config
            .host_keys
            .iter()
            .find_map(|key| key.blob(algorithm).map(|blob| (key, blob)))
            .ok_or(ApiMisuse::HostKey("none signs with what was offered"))?;
        let hash = Transcript {
            client_version: self.peer_version.as_deref().unwrap_or_default(),
            server_version: OURS.as_bytes(),
            client_kexinit: &exchange.theirs,
            server_kexinit: &exchange.ours,
            host_key,
            client_public,
            server_public: &server_public,
        }
        .hash(exchange.agreed.kex.hash(), &secret);
        let signature = key.sign(algorithm.scheme, hash.as_bytes())?;
        self.own_host_key.get_or_insert(algorithm);
        let mut reply = Vec::with_capacity(64 + host_key.len() + server_public.len() + signature.len());
        reply.put_byte(number::KEX_ECDH_REPLY);
        reply.put_string(host_key);
        reply.put_string(&server_public);
        reply.put_string(&signature);
        self.seal(&reply)?;
        let derived = self.derive(&exchange.agreed, &secret, &hash)?;
        self.go_over(derived)
    }

    /// (Client.) The server's public value and proof.
    fn take_ecdh_reply(
        &mut self,
        exchange: &Exchange,
        ephemeral: ClientEphemeral,
        client_public: &[u8],
        payload: &[u8],
    ) -> Result<Option<Found>, Error> {
        let read = || {
            let mut reader = Reader::new(payload);
            reader.byte()?;
            let fields = (reader.string()?, reader.string()?, reader.string()?);
            reader.finish().map(|()| fields)
        };
        let (host_key, server_public, signature) = read()
            .map_err(|source| PeerMisbehaved::Malformed { message: "SSH_MSG_KEX_ECDH_REPLY", source })?;
        let secret = ephemeral.finish(server_public)?;
        let hash = Transcript {
            client_version: OURS.as_bytes(),
            server_version: self.peer_version.as_deref().unwrap_or_default(),
            client_kexinit: &exchange.ours,
            server_kexinit: &exchange.theirs,
            host_key,
            client_public,
            server_public,
        }
        .hash(exchange.agreed.kex.hash(), &secret);
        let offered = HostKeyOffered::decode(exchange.agreed.host_key, host_key)?;
        offered.verify(hash.as_bytes(), signature)?;
        let derived = self.derive(&exchange.agreed, &secret, &hash)?;
        match &self.host_key {
            Some(accepted) if accepted == host_key => self.go_over(derived).map(|()| None),
            Some(_) => Err(PeerMisbehaved::HostKeyChanged.into()),
            None => {
                self.awaits = Awaits::Verdict(Box::new(derived), host_key.to_vec());
                Ok(Some(Found::HostKey(Box::new(offered))))
            }
        }
    }

    fn derive(
        &mut self,
        agreed: &Agreed,
        secret: &SharedSecret,
        hash: &ExchangeHash,
    ) -> Result<Derived, Error> {
        let session_id = *self.session_id.get_or_insert(*hash);
        let material =
            |protection, direction| derive::derive(secret, hash, &session_id, protection, direction);
        let (sent, received) = match self.side {
            Side::Client(_) => {
                ((agreed.to_server, Direction::ToServer), (agreed.to_client, Direction::ToClient))
            }
            Side::Server(_) => {
                ((agreed.to_client, Direction::ToClient), (agreed.to_server, Direction::ToServer))
            }
        };
        Ok(Derived {
            sealer: Sealer::new(sent.0, &material(sent.0, sent.1))?,
            opener: Opener::new(received.0, &material(received.0, received.1))?,
        })
    }

    /// Sends NEWKEYS, and what waited for it.
    pub(super) fn go_over(&mut self, derived: Derived) -> Result<(), Error> {
        self.seal(&[number::NEWKEYS])?;
        self.tx.new_keys(derived.sealer, self.strict);
        self.awaits = Awaits::NewKeys(Box::new(derived.opener));
        if !self.ready && self.peer_ext_info && matches!(self.side, Side::Server(_)) {
            let mut message = Vec::with_capacity(256);
            message.put_byte(number::EXT_INFO);
            message.put_uint32(2);
            message.put_string(b"server-sig-algs");
            message.put_name_list(USER_SIGNATURE_ALGORITHMS.into_iter());
            // OpenSSH's PROTOCOL section 3.1: a client may sign which host key it means. The value is a version.
            message.put_string(b"publickey-hostbound@openssh.com");
            message.put_string(b"0");
            self.seal(&message)?;
        }
        let held = std::mem::take(&mut self.held);
        let mut reader = Reader::new(&held);
        while let Ok(payload) = reader.string() {
            self.seal(payload)?;
        }
        Ok(())
    }

    pub(super) fn send_kexinit(&mut self) -> Result<(), Error> {
        let mut cookie = [0; 16];
        aws_lc_rs::rand::fill(&mut cookie).map_err(|_| Error::Crypto("get a random cookie"))?;
        let ours = self.proposal().encode(cookie, self.session_id.is_none());
        self.seal(&ours)?;
        self.exchanges = self.exchanges.saturating_add(1);
        self.awaits = Awaits::PeerKexInit { ours };
        Ok(())
    }

    fn proposal(&self) -> Proposal {
        match &self.side {
            Side::Server(config) => Proposal {
                role: Role::Server,
                kex: config.kex.clone(),
                host_keys: offered(&config.host_keys),
                ciphers: config
                    .ciphers
                    .iter()
                    .copied()
                    .filter(|cipher| !self.without_chacha || *cipher != Cipher::ChaCha20Poly1305)
                    .collect(),
                macs: match &self.peer_version {
                    Ok(version) if quirk::prefers_plain_mac(version) => {
                        config.macs.iter().copied().filter(|mac| mac.is_over_encrypted()).collect()
                    }
                    _ => config.macs.clone(),
                },
            },
            Side::Client(config) => Proposal {
                role: Role::Client,
                kex: config.kex.clone(),
                host_keys: config.host_keys.clone(),
                ciphers: config.ciphers.clone(),
                macs: config.macs.clone(),
            },
        }
    }
}

/// What these keys can be offered for; of two keys of a kind the first counts.
fn offered(keys: &[HostKey]) -> Vec<HostKeyAlgorithm> {
    let mut algorithms = Vec::new();
    for algorithm in keys.iter().flat_map(HostKey::algorithms) {
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    algorithms
}

impl Awaits {
    fn describe(&self) -> &'static str {
        match self {
            Self::Nothing => "messages, as no key exchange runs",
            Self::PeerKexInit { .. } => "SSH_MSG_KEXINIT",
            Self::EcdhInit(_) => "SSH_MSG_KEX_ECDH_INIT",
            Self::EcdhReply(..) => "SSH_MSG_KEX_ECDH_REPLY",
            Self::Verdict(..) => "nothing, as the host key is being judged",
            Self::NewKeys(_) => "SSH_MSG_NEWKEYS",
        }
    }
}
