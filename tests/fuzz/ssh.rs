//! What reads SSH's bytes before and after login: packets under each cipher, KEXINIT, user authentication, and the
//! relay's channels.

use super::targets::field;
use custody_proxy::ssh::authenticate::{client, server};
use custody_proxy::ssh::certificate::TrustedAuthorities;
use custody_proxy::ssh::message::Message;
use custody_proxy::ssh::relay::HELD_BYTES_MAX;
use custody_proxy::ssh::relay::{
    ChannelId, Gate, Gating, Outbox, Passage, Refusal, Relay, Side, Ticket, Verdict,
};
use custody_proxy::ssh::transport::cipher::{Cipher, KeyMaterial, Opener, Protection, Sealer};
use custody_proxy::ssh::transport::host_key::{HostKey, HostKeyAlgorithm, Scheme};
use custody_proxy::ssh::transport::kex::KexAlgorithm;
use custody_proxy::ssh::transport::mac::Mac;
use custody_proxy::ssh::transport::negotiate::{KexInit, Proposal, Role, agree};
use custody_proxy::ssh::transport::packet::{Rx, Tx};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, PrivateKey};
use std::sync::{Arc, LazyLock};

/// No cipher, then each, with each MAC where it needs one.
fn protections() -> Vec<Option<Protection>> {
    let with_macs = |cipher: Cipher| {
        let macs = if cipher.needs_mac() { Mac::ALL.map(Some).to_vec() } else { vec![None] };
        macs.into_iter().map(move |mac| Some(Protection { cipher, mac }))
    };
    std::iter::once(None).chain(Cipher::ALL.into_iter().flat_map(with_macs)).collect()
}

fn directions(which: u8) -> (Tx, Rx) {
    let (mut tx, mut rx) = (Tx::default(), Rx::default());
    let protections = protections();
    if let Some(protection) = protections[usize::from(which) % protections.len()] {
        let material = KeyMaterial { key: [1; 64], iv: [2; 16], mac: [3; 64] };
        tx.new_keys(Sealer::new(protection, &material).unwrap(), true);
        rx.new_keys(Opener::new(protection, &material).unwrap(), true);
    }
    (tx, rx)
}

/// Packets: the first byte says under which cipher. What is sealed is opened again, and what is opened lies where it is
/// said to lie.
pub fn packets(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let (_, mut rx) = directions(which);
    let mut wire = bytes.to_vec();
    let mut rest = wire.as_mut_slice();
    while let Ok(Some(opened)) = rx.open(rest) {
        assert!(!opened.payload.is_empty() && opened.payload.end <= opened.consumed);
        rest = rest.get_mut(opened.consumed..).expect("no more than there was");
    }
    let (mut tx, mut rx) = directions(which);
    let mut sealed = Vec::new();
    if !bytes.is_empty() && bytes.len() < 30_000 {
        tx.seal(bytes, &mut sealed).unwrap();
        let opened = rx.open(&mut sealed).unwrap().expect("a whole packet");
        assert_eq!(&sealed[opened.payload], bytes);
        assert_eq!(opened.consumed, sealed.len());
    }
}

pub fn packet_seeds() -> Vec<Vec<u8>> {
    (0..u8::try_from(protections().len()).unwrap())
        .map(|which| {
            let mut seed = vec![which];
            let mut tx = directions(which).0;
            for payload in [&b"\x02\0\0\0\0"[..], b"\x5e\0\0\0\0\0\0\0\x04data", &[94; 300]] {
                tx.seal(payload, &mut seed).unwrap();
            }
            seed
        })
        .collect()
}

fn proposal(role: Role) -> Proposal {
    Proposal {
        role,
        kex: KexAlgorithm::ALL.to_vec(),
        host_keys: HostKeyAlgorithm::all(),
        ciphers: Cipher::ALL.to_vec(),
        macs: Mac::ALL.to_vec(),
    }
}

/// KEXINIT: whatever is agreed on stands in the peer's lists.
pub fn kexinit(bytes: &[u8]) {
    let Ok(theirs) = KexInit::decode(bytes) else { return };
    for role in [Role::Client, Role::Server] {
        let Ok(agreed) = agree(&proposal(role), &theirs) else { continue };
        assert!(theirs.kex.contains(agreed.kex.name()));
        assert!(theirs.host_keys.contains(agreed.host_key.name()));
        for (protection, ciphers, macs) in [
            (agreed.to_server, theirs.ciphers_to_server, theirs.macs_to_server),
            (agreed.to_client, theirs.ciphers_to_client, theirs.macs_to_client),
        ] {
            assert!(ciphers.contains(protection.cipher.name()));
            assert_eq!(protection.mac.is_some(), protection.cipher.needs_mac());
            assert!(protection.mac.is_none_or(|mac| macs.contains(mac.name())));
        }
    }
}

pub fn kexinit_seeds() -> Vec<Vec<u8>> {
    let mut old = proposal(Role::Client);
    old.ciphers = vec![Cipher::Aes128Ctr];
    vec![
        proposal(Role::Client).encode([1; 16], true),
        proposal(Role::Server).encode([2; 16], false),
        old.encode([3; 16], true),
    ]
}

const SESSION: [u8; 32] = [7; 32];
const NOW: u64 = 1_800_000_000;

static AUTHORITY: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap());

/// The one request that may get in: made by the holder of the certified key.
static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new_with_random_nonce(&mut safe_rng(), public, NOW - 60, NOW + 60).unwrap();
    builder.cert_type(CertType::User).unwrap().key_id("id").unwrap().valid_principal("ana").unwrap();
    let certificate = builder.sign(&*AUTHORITY).unwrap().to_bytes().unwrap();
    let mut request = vec![50];
    for text in [&b"root+web-1"[..], b"ssh-connection", b"publickey"] {
        request.extend(field(text));
    }
    request.push(1);
    request.extend(field(b"ssh-ed25519-cert-v01@openssh.com"));
    request.extend(field(&certificate));
    let signed = [field(&SESSION), request.clone()].concat();
    request.extend(field(&HostKey::new(&key, None).unwrap().sign(Scheme::Ed25519, &signed).unwrap()));
    request
});

/// The messages in an input: each after its length.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (message, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        Some(message)
    })
}

/// User authentication, both roles: nothing but the one signed request gets in.
pub fn authentication(bytes: &[u8]) {
    serve(bytes);
    target(bytes);
}

fn serve(bytes: &[u8]) {
    let mut service = Some(server::ExpectServiceRequest::new(server::Connection {
        session_id: SESSION.to_vec(),
        source: "192.0.2.1".parse().unwrap(),
        host_key: Some(b"host".to_vec()),
        authorities: Arc::new(TrustedAuthorities::new([AUTHORITY.public_key()])),
        asks_passwords: true,
    }));
    let (mut request, mut answers) = (None, None);
    for message in messages(bytes) {
        if let Some(state) = service.take() {
            match state.handle(message) {
                Err(_) => return,
                Ok(server::ServiceStep::Waiting(state)) => service = Some(state),
                Ok(server::ServiceStep::Accepted { next, .. }) => request = Some(next),
            }
            continue;
        }
        let stepped = if let Some(state) = request.take() {
            server::ExpectRequest::handle(state, message, NOW)
        } else if let Some(state) = answers.take() {
            match server::ExpectAnswers::handle(state, message, NOW) {
                Err(fault) => Err(fault),
                Ok(server::AnswerStep::Instead(step)) => Ok(step),
                Ok(server::AnswerStep::Claimed(claim)) => claim.refuse(),
                Ok(server::AnswerStep::Waiting(state)) => {
                    answers = Some(state);
                    continue;
                }
            }
        } else {
            return;
        };
        match stepped {
            Err(_) => return,
            Ok(server::Step::Continue { next, .. }) => request = Some(next),
            Ok(server::Step::Asks { next, .. }) => answers = Some(next),
            Ok(server::Step::Proved(proved)) => {
                assert_eq!(message, *SIGNED, "{:?} got in", proved.user_name());
                return;
            }
        }
    }
}

fn target(bytes: &[u8]) {
    let key = client::SessionKey::generate().unwrap();
    let mut builder =
        Builder::new_with_random_nonce(&mut safe_rng(), key.public_key().key_data().clone(), 0, NOW).unwrap();
    builder.cert_type(CertType::User).unwrap().key_id("id").unwrap().valid_principal("root").unwrap();
    let certificate = builder.sign(&*AUTHORITY).unwrap();
    let (_, state) = client::start(&SESSION, "root", client::Credential { key, certificate }).unwrap();
    let (mut service, mut verdict) = (Some(state), None);
    for message in messages(bytes) {
        if let Some(state) = service.take() {
            match state.handle(message) {
                Err(_) => return,
                Ok(client::ServiceStep::Waiting(state)) => service = Some(state),
                Ok(client::ServiceStep::Accepted { next, .. }) => verdict = Some(next),
            }
        } else if let Some(state) = verdict.take() {
            match state.handle(message) {
                Err(_) => return,
                Ok(client::Step::Banner { next, .. } | client::Step::Waiting(next)) => verdict = Some(next),
                Ok(client::Step::Accepted(_)) => {
                    assert_eq!(message.first(), Some(&52), "let in without SUCCESS");
                    return;
                }
            }
        }
    }
}

pub fn authentication_seeds() -> Vec<Vec<u8>> {
    let service = field(&[&[5][..], &field(b"ssh-userauth")].concat());
    let accept = field(&[&[6][..], &field(b"ssh-userauth")].concat());
    let none = [&[50][..], &field(b"root"), &field(b"ssh-connection"), &field(b"none")].concat();
    let failure = [&[51][..], &field(b"publickey,password"), &[0]].concat();
    let banner = [&[53][..], &field(b"welcome"), &field(b"")].concat();
    vec![
        [service, field(&none), field(&[2, 0, 0, 0, 0]), field(&SIGNED)].concat(),
        [accept.clone(), field(&banner), field(&[52])].concat(),
        [accept, field(&failure)].concat(),
    ]
}

/// A gate that decides as the input says.
#[derive(Default)]
struct Gatekeeper {
    next: u8,
    held: Vec<Ticket>,
}

fn decided(how: u8) -> Verdict {
    match how % 8 {
        0..=4 => Verdict::Pass,
        5 => Verdict::Refuse(Refusal::prohibited("no")),
        6 => Verdict::Answer(b"yes".to_vec()),
        _ => Verdict::Satisfy,
    }
}

impl Gate for Gatekeeper {
    fn see(&mut self, place: Passage, message: &Message<'_>) -> Gating {
        if self.next & 0x80 != 0 {
            self.held.push(place.ticket);
            return Gating::Hold;
        }
        match message {
            Message::ChannelRequest { .. } | Message::GlobalRequest { .. } | Message::Data { .. } => {
                Gating::Decided(decided(self.next))
            }
            _ => Gating::PASS,
        }
    }

    fn closed(&mut self, _: ChannelId) {}
}

/// What went out: the relay writes only what can be read.
struct Sink;

impl Outbox for Sink {
    fn put(&mut self, _: Side, payload: &[u8]) {
        assert!(Message::parse(payload).is_ok(), "{payload:?} went out");
    }
}

/// Channels: messages from both sides, each after a byte that says from where and what the gate does with it.
pub fn relay(bytes: &[u8]) {
    let (mut relay, mut gate) = (Relay::new(), Gatekeeper::default());
    for message in messages(bytes) {
        let Some((&how, payload)) = message.split_first() else { continue };
        let from = if how & 0x40 == 0 { Side::Client } else { Side::Target };
        gate.next = how;
        if how & 0x20 != 0
            && let Some(ticket) = gate.held.pop()
        {
            gate.next = how & 0x7f;
            if relay.release(ticket, decided(how), &mut gate, &mut Sink).is_err() {
                return;
            }
        }
        if relay.accept(from, &mut payload.to_vec(), &mut gate, &mut Sink).is_err() {
            return;
        }
        assert!(relay.held_bytes() <= HELD_BYTES_MAX, "{} bytes held", relay.held_bytes());
    }
}

pub fn relay_seeds() -> Vec<Vec<u8>> {
    let say = |how: u8, parts: &[&[u8]]| field(&[&[how][..], &parts.concat()].concat());
    let number = |number: u32| number.to_be_bytes();
    let open = |how| say(how, &[&[90], &field(b"session"), &number(0), &number(1 << 20), &number(32_768)]);
    let confirm = say(0x40, &[&[91], &number(0), &number(7), &number(1 << 20), &number(32_768)]);
    let exec = |how| say(how, &[&[98], &number(0), &field(b"exec"), &[1], &field(b"true")]);
    let data = |how| say(how, &[&[94], &number(0), &field(b"data")]);
    let end = [
        say(0x40, &[&[98], &number(0), &field(b"exit-status"), &[0], &number(0)]),
        say(0x40, &[&[96], &number(0)]),
        say(0x40, &[&[97], &number(0)]),
        say(0, &[&[97], &number(0)]),
    ]
    .concat();
    let keepalive = say(6, &[&[80], &field(b"hostkeys-prove-00@openssh.com"), &[1], &field(b"key")]);
    vec![
        [
            open(0),
            confirm.clone(),
            exec(0),
            data(0),
            say(0x40, &[&[99], &number(0)]),
            data(0x40),
            end.clone(),
        ]
        .concat(),
        [open(0x80), say(0x20, &[&[80], &field(b"keepalive@openssh.com"), &[1]]), confirm, exec(5), end]
            .concat(),
        [keepalive, open(0), say(0x40, &[&[92], &number(0), &number(1), &field(b"no"), &field(b"")])]
            .concat(),
    ]
}
