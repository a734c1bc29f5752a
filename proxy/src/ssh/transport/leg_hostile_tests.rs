//! Peers that break the rules.

use super::super::super::error::PeerIncompatible;
use super::super::super::host_key::Scheme;
use super::super::super::kex;
use super::super::super::negotiate::KexInit;
use super::super::super::packet::Rx;
use super::*;

/// A client that says by hand what it likes, before any keys.
struct Raw {
    tx: Tx,
    bytes: Vec<u8>,
}

impl Raw {
    fn new() -> Self {
        Self { tx: Tx::default(), bytes: b"SSH-2.0-raw\r\n".to_vec() }
    }

    fn say(mut self, payload: &[u8]) -> Self {
        self.tx.seal(payload, &mut self.bytes).unwrap();
        self
    }

    fn kexinit(self, kex: &str, cipher: &str, follows: bool) -> Self {
        let mut payload = vec![number::KEXINIT];
        payload.extend_from_slice(&[7; 16]);
        for list in [kex, "ssh-ed25519", cipher, cipher, "", "", "none", "none", "", ""] {
            payload.put_string(list.as_bytes());
        }
        payload.put_boolean(follows);
        payload.put_uint32(0);
        self.say(&payload)
    }

    fn into_server(mut self) -> (Result<(), Error>, Leg) {
        let mut leg = Leg::server(server_config(vec![ed25519_host()])).unwrap();
        let length = leg.output().len();
        leg.wrote(length);
        let outcome = feed(&mut leg, &mut Seen::default(), &mut self.bytes);
        (outcome, leg)
    }
}

const STRICT: &str = "curve25519-sha256,kex-strict-c-v00@openssh.com";
const LAX: &str = "curve25519-sha256";
const GCM: &str = "aes256-gcm@openssh.com";
const IGNORE: [u8; 5] = [number::IGNORE, 0, 0, 0, 0];

#[test]
fn strict_key_exchange_lets_nothing_in() {
    let violation = |got| Err(Error::from(PeerMisbehaved::StrictKex { got }));
    // Before the first KEXINIT: only the sequence number tells.
    let (outcome, _) = Raw::new().say(&IGNORE).kexinit(STRICT, GCM, false).into_server();
    assert_eq!(outcome, violation(number::KEXINIT));
    for (number, payload) in [
        (2, &IGNORE[..]),
        (3, &[3, 0, 0, 0, 0]),
        (4, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (5, &[5, 0, 0, 0, 0]),
        (7, &[7, 0, 0, 0, 0]),
        (94, &[94]),
        (200, &[200]),
    ] {
        let (outcome, leg) = Raw::new().kexinit(STRICT, GCM, false).say(payload).into_server();
        assert_eq!(outcome, violation(number));
        assert!(!leg.output().is_empty(), "it is told");
    }
    // Without strict key exchange the harmless ones are harmless, others are not.
    for payload in [&IGNORE[..], &[3, 0, 0, 0, 0], &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let raw = Raw::new().say(payload).kexinit(LAX, GCM, false).say(payload);
        assert_eq!(raw.into_server().0, Ok(()));
    }
    for payload in [&[5, 0, 0, 0, 0][..], &[50], &[94], &[7, 0, 0, 0, 0]] {
        let (outcome, _) = Raw::new().kexinit(LAX, GCM, false).say(payload).into_server();
        assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::Unexpected { .. }))));
    }
}

#[test]
fn chacha_without_strict_key_exchange_is_refused() {
    let chacha = "chacha20-poly1305@openssh.com";
    let (outcome, leg) = Raw::new().kexinit(LAX, chacha, false).into_server();
    assert_eq!(outcome, Err(PeerIncompatible::Terrapin.into()));
    assert!(String::from_utf8_lossy(leg.output()).contains("aes256-gcm@openssh.com"));
    assert_eq!(Raw::new().kexinit(STRICT, chacha, false).into_server().0, Ok(()));
}

/// What the server offers, in the KEXINIT that lies in its output.
fn offered_ciphers(leg: &Leg) -> String {
    let mut output = leg.output().to_vec();
    let opened = Rx::default().open(&mut output).unwrap().unwrap();
    KexInit::decode(&output[opened.payload]).unwrap().ciphers_to_client.as_str().to_owned()
}

/// ssh-keyscan and OpenSSH before 9.6 prefer chacha20-poly1305: they get AES-GCM instead of a refusal.
#[test]
fn who_prefers_chacha_without_strict_key_exchange_is_not_offered_it() {
    let chacha = "chacha20-poly1305@openssh.com";
    let both = format!("{chacha},{GCM}");
    let old = |kex| {
        let mut raw = Raw::new();
        raw.bytes = b"SSH-2.0-OpenSSH_8.0\r\n".to_vec();
        raw.kexinit(kex, &both, false).into_server()
    };
    let (outcome, leg) = old(LAX);
    assert_eq!(outcome, Ok(()));
    assert!(!offered_ciphers(&leg).contains(chacha) && offered_ciphers(&leg).contains(GCM));
    assert!(matches!(leg.awaits, Awaits::EcdhInit(_)));
    // One that was mended by its distribution.
    let (outcome, leg) = old(STRICT);
    assert_eq!(outcome, Ok(()));
    assert!(offered_ciphers(&leg).contains(chacha));
    // And such a client hears nothing but our version until it has spoken.
    let mut leg = Leg::server(server_config(vec![ed25519_host()])).unwrap();
    feed(&mut leg, &mut Seen::default(), &mut b"SSH-2.0-OpenSSH_8.0\r\n".to_vec()).unwrap();
    assert_eq!(leg.output(), format!("{OURS}\r\n").as_bytes());
}

#[test]
fn a_wrong_guess_is_dropped_once() {
    let (_, public) = kex::client_start(KexAlgorithm::Curve25519).unwrap();
    let mut init = vec![number::KEX_ECDH_INIT];
    init.put_string(&public);
    let guess = [number::KEX_ECDH_INIT, 0, 0, 0, 1, 9];
    let (outcome, leg) = Raw::new().kexinit(STRICT, GCM, true).say(&guess).say(&init).into_server();
    assert_eq!(outcome, Ok(()));
    assert!(matches!(leg.awaits, Awaits::NewKeys(_)));
    // Without the flag, the first one counts.
    let (outcome, _) = Raw::new().kexinit(STRICT, GCM, false).say(&guess).into_server();
    assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::BadPublicValue { .. }))));
}

#[test]
fn messages_of_the_exchange_out_of_turn_are_refused() {
    for payload in [&[number::NEWKEYS][..], &[number::KEX_ECDH_INIT, 0, 0, 0, 0], &[number::KEX_ECDH_REPLY]] {
        let outcome = Raw::new().say(payload).into_server().0;
        assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::Unexpected { .. }))));
    }
    for payload in [&[number::NEWKEYS][..], &[number::KEX_ECDH_REPLY], &[number::KEXINIT]] {
        let outcome = Raw::new().kexinit(STRICT, GCM, false).say(payload).into_server().0;
        assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::Unexpected { .. }))));
    }
    // After the peer's KEXINIT of a later exchange: nothing of the layers above.
    let mut wire = Wire::open();
    wire.client.start_rekey().unwrap();
    wire.client.seal(&data(1, 1)).unwrap();
    let outcome = wire.settle();
    assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::Unexpected { got: 94, .. }))));
}

/// The first exchange is in the clear: a man in the middle alters what the server says.
#[test]
fn whatever_is_altered_in_the_exchange_the_signature_fails() {
    let mut probe =
        Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    carry(&mut probe.client, &mut probe.server, &mut probe.at_server, usize::MAX).unwrap();
    let start = probe.server.output().len();
    let version_end = OURS.len() + 2;
    // Bytes of: the server's version, its cookie, its list of methods (a language name that nobody uses).
    for at in [10, version_end + 6, version_end + 20, start - 14] {
        let mut wire =
            Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
        carry(&mut wire.client, &mut wire.server, &mut wire.at_server, usize::MAX).unwrap();
        let mut bytes = wire.server.output().to_vec();
        wire.server.wrote(bytes.len());
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 1;
        let first = feed(&mut wire.client, &mut wire.at_client, &mut bytes);
        let outcome = first.and_then(|()| wire.settle());
        assert!(outcome.is_err(), "byte {at}: {outcome:?}");
        assert!(wire.at_client.host_key.is_none(), "byte {at}");
    }
    // The reply itself: any byte of host key, public value or signature.
    for back in (1..260).step_by(7) {
        let mut wire =
            Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
        wire.up_to_reply();
        let mut bytes = wire.server.output().to_vec();
        let mut whole = bytes.clone();
        let reply = Rx::default().open(&mut whole).unwrap().unwrap();
        let at = reply.payload.end - back.min(reply.payload.len() - 1);
        bytes[at] ^= 0x10;
        let outcome = feed(&mut wire.client, &mut wire.at_client, &mut bytes);
        assert!(matches!(outcome, Err(Error::PeerMisbehaved(_))), "{back}: {outcome:?}");
        assert!(wire.at_client.host_key.is_none() && !wire.at_client.ready, "{back}");
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    // The server's certificate and signer are of two keys: as if somebody had copied a public key.
    let (ours, stolen) = (ed25519(), ed25519());
    let mut host = HostKey::new(&ours, None).unwrap();
    let copied = HostKey::new(&stolen, None).unwrap();
    let algorithm = HostKeyAlgorithm { scheme: Scheme::Ed25519, certificate: false };
    host.set_blob_for_test(copied.blob(algorithm).unwrap().to_vec());
    let mut wire = Wire::new(server_config(vec![host]), ClientConfig::new(HostKeyAlgorithm::all()));
    assert_eq!(wire.settle(), Err(PeerMisbehaved::HostSignature { algorithm: "ssh-ed25519" }.into()));
}

#[test]
fn another_host_key_in_a_later_exchange_is_refused() {
    let mut wire = Wire::open();
    wire.server.side = Side::Server(server_config(vec![ed25519_host()]));
    wire.server.start_rekey().unwrap();
    assert_eq!(wire.settle(), Err(PeerMisbehaved::HostKeyChanged.into()));
}

#[test]
fn a_refused_host_key_ends_the_leg_and_the_server_is_told() {
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.up_to_reply();
    let mut bytes = wire.server.output().to_vec();
    let mut incoming = Incoming::new(&mut bytes, NOW);
    assert!(matches!(wire.client.next(&mut incoming), Ok(Some(Event::HostKey(_)))));
    // Undecided: nothing goes on, what came is kept.
    assert!(matches!(wire.client.next(&mut incoming), Ok(None)));
    assert!(wire.client.output().is_empty() && !wire.client.can_send());
    assert_eq!(wire.client.refuse_host_key(), Error::HostKeyRefused);
    let outcome = carry(&mut wire.client, &mut wire.server, &mut wire.at_server, usize::MAX);
    let Err(Error::PeerDisconnected { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, super::super::super::reason::HOST_KEY_NOT_VERIFIABLE);
}

#[test]
fn a_verdict_may_take_its_time() {
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.up_to_reply();
    let mut bytes = wire.server.output().to_vec();
    wire.server.wrote(bytes.len());
    for byte in bytes.chunks_mut(1) {
        // NEWKEYS and EXT_INFO come in behind the host key.
        drop(wire.client.next(&mut Incoming::new(byte, NOW)).unwrap());
    }
    wire.client.accept_host_key().unwrap();
    feed(&mut wire.client, &mut wire.at_client, &mut []).unwrap();
    assert!(wire.at_client.ready);
    assert!(wire.client.server_sig_algs().is_some());
    // Who floods meanwhile is cut off.
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.up_to_reply();
    let mut bytes = wire.server.output().to_vec();
    let mut incoming = Incoming::new(&mut bytes, NOW);
    assert!(matches!(wire.client.next(&mut incoming), Ok(Some(Event::HostKey(_)))));
    let mut flood = vec![0; UNREAD_BYTES_MAX + 1];
    let mut incoming = Incoming::new(&mut flood, NOW);
    let outcome = wire.client.next(&mut incoming);
    assert!(matches!(outcome, Err(Error::ApiMisuse(ApiMisuse::UnreadTooMuch { .. }))));
}
