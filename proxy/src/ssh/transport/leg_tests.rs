//! Our server leg against our client leg, in memory, and against peers that break the rules.

use std::time::Duration;

use proptest::prelude::*;
use russh::keys::ssh_key::EcdsaCurve;
use russh::keys::ssh_key::certificate::CertType;

use super::super::host_key::tests::{certify, ecdsa, ed25519, rsa};
use super::*;

#[path = "leg_hostile_tests.rs"]
mod hostile;

const NOW: Duration = Duration::from_secs(1000);

fn server_config(keys: Vec<HostKey>) -> Arc<ServerConfig> {
    Arc::new(ServerConfig::new(keys))
}

fn ed25519_host() -> HostKey {
    HostKey::new(&ed25519(), None).unwrap()
}

/// What an owner of a leg saw.
#[derive(Default, Debug)]
struct Seen {
    messages: Vec<Vec<u8>>,
    ready: bool,
    host_key: Option<Box<HostKeyOffered>>,
}

/// Both ends of a connection.
struct Wire {
    server: Leg,
    client: Leg,
    at_server: Seen,
    at_client: Seen,
    /// How many bytes go over at once.
    chunk: usize,
}

/// Everything that `from` has to say goes into `to`, which accepts any host key.
fn carry(from: &mut Leg, to: &mut Leg, seen: &mut Seen, chunk: usize) -> Result<usize, Error> {
    let mut bytes = from.output().to_vec();
    from.wrote(bytes.len());
    for part in bytes.chunks_mut(chunk) {
        feed(to, seen, part)?;
    }
    Ok(bytes.len())
}

fn feed(to: &mut Leg, seen: &mut Seen, bytes: &mut [u8]) -> Result<(), Error> {
    let mut incoming = Incoming::new(bytes, NOW);
    loop {
        let offered = match to.next(&mut incoming)? {
            None => return Ok(()),
            Some(Event::Ready) => {
                seen.ready = true;
                continue;
            }
            Some(Event::Message(payload)) => {
                seen.messages.push(payload.to_vec());
                continue;
            }
            Some(Event::HostKey(offered)) => offered,
        };
        seen.host_key = Some(offered);
        to.accept_host_key().unwrap();
    }
}

impl Wire {
    fn new(server: Arc<ServerConfig>, client: ClientConfig) -> Self {
        Self {
            server: Leg::server(server).unwrap(),
            client: Leg::client(client).unwrap(),
            at_server: Seen::default(),
            at_client: Seen::default(),
            chunk: usize::MAX,
        }
    }

    /// Connected, and logged in as far as the transport cares.
    fn open() -> Self {
        let mut wire =
            Self::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
        wire.settle().unwrap();
        wire.server.set_authenticated();
        wire.client.set_authenticated();
        wire
    }

    /// Up to the server's proof, which waits in its output.
    fn up_to_reply(&mut self) {
        carry(&mut self.client, &mut self.server, &mut self.at_server, usize::MAX).unwrap();
        carry(&mut self.server, &mut self.client, &mut self.at_client, usize::MAX).unwrap();
        carry(&mut self.client, &mut self.server, &mut self.at_server, usize::MAX).unwrap();
    }

    /// Carries bytes both ways until nobody has anything to say.
    fn settle(&mut self) -> Result<(), Error> {
        loop {
            let up = carry(&mut self.client, &mut self.server, &mut self.at_server, self.chunk)?;
            let down = carry(&mut self.server, &mut self.client, &mut self.at_client, self.chunk)?;
            if up + down == 0 {
                return Ok(());
            }
        }
    }
}

/// A data message of the connection layer, whose content can be told from others'.
fn data(tag: usize, length: usize) -> Vec<u8> {
    let mut payload = vec![94];
    payload.extend((0..length).map(|at| (at * 31 + tag * 7) as u8));
    payload
}

#[test]
fn every_algorithm_carries_data_both_ways_over_rekeys_from_both_sides() {
    let keys = [
        ed25519(),
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(2048),
    ];
    let certificates = keys.each_ref().map(|key| certify(key, CertType::Host));
    let config = || {
        let hosts = keys.iter().zip(&certificates);
        let hosts = hosts.map(|(key, certificate)| HostKey::new(key, Some(certificate)).unwrap());
        let mut config = ServerConfig::new(hosts.collect());
        config.kex = KexAlgorithm::ALL.to_vec();
        config.macs = Mac::ALL.to_vec();
        Arc::new(config)
    };
    let macs = |cipher: Cipher| if cipher.needs_mac() { &Mac::ALL[..] } else { &Mac::ALL[..1] };
    let protections: Vec<(Cipher, Mac)> = Cipher::ALL
        .into_iter()
        .flat_map(|cipher| macs(cipher).iter().map(move |mac| (cipher, *mac)))
        .collect();
    // Each host key algorithm with each method, and each method with each cipher and MAC.
    for (row, host_key) in HostKeyAlgorithm::all().into_iter().enumerate() {
        for (column, kex) in KexAlgorithm::ALL.into_iter().enumerate() {
            let (cipher, mac) = protections[(row + column) % protections.len()];
            let mut client = ClientConfig::new(vec![host_key]);
            (client.kex, client.ciphers, client.macs) = (vec![kex], vec![cipher], vec![mac]);
            let mut wire = Wire::new(config(), client);
            wire.chunk = 1371;
            wire.settle().unwrap();
            assert!(wire.at_server.ready && wire.at_client.ready, "{kex:?} {cipher:?} {mac:?} {host_key:?}");
            assert_eq!(wire.client.session_id(), wire.server.session_id());
            let shown = wire.at_client.host_key.as_ref().unwrap();
            assert_eq!(shown.algorithm, host_key);
            assert_eq!(shown.key.certificate().is_some(), host_key.certificate);
            wire.client.set_authenticated();
            wire.server.set_authenticated();
            let session_id = wire.client.session_id().unwrap().to_vec();
            let sent: Vec<Vec<u8>> =
                [1, 100, 5000, 40_000, 1].iter().enumerate().map(|(tag, n)| data(tag, *n)).collect();
            for (round, payload) in sent.iter().enumerate() {
                wire.client.send(payload).unwrap();
                wire.server.send(payload).unwrap();
                if round % 2 == 0 {
                    wire.client.start_rekey().unwrap()
                }
                if round >= 2 {
                    wire.server.start_rekey().unwrap()
                }
                wire.client.send(&data(99, 10)).unwrap();
                wire.server.send(&data(98, 10)).unwrap();
                wire.settle().unwrap();
            }
            let expected = |tag| sent.iter().flat_map(|one| [one.clone(), data(tag, 10)]).collect::<Vec<_>>();
            assert_eq!(wire.at_server.messages, expected(99));
            assert_eq!(wire.at_client.messages, expected(98));
            assert_eq!(wire.client.session_id(), Some(&session_id[..]));
            assert_eq!(wire.client.exchanges(), 5);
            assert!(!wire.client.in_exchange() && wire.client.can_send());
        }
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.chunk = 1;
    wire.settle().unwrap();
    wire.client.send(&[5, 1, 2, 3]).unwrap();
    wire.settle().unwrap();
    assert_eq!(wire.at_server.messages, [[5, 1, 2, 3]]);
}

#[test]
fn the_client_learns_which_user_keys_are_taken() {
    let wire = Wire::open();
    assert_eq!(wire.client.server_sig_algs().unwrap(), USER_SIGNATURE_ALGORITHMS);
    assert_eq!(wire.server.server_sig_algs(), None);
    assert_eq!(wire.server.peer_version().unwrap(), OURS);
}

#[test]
fn kexinits_may_cross_and_what_is_sent_meanwhile_keeps_its_order() {
    let mut wire = Wire::open();
    wire.client.start_rekey().unwrap();
    wire.server.start_rekey().unwrap();
    assert!(!wire.client.can_send() && wire.client.in_exchange());
    for tag in 0..50 {
        wire.client.send(&data(tag, 500)).unwrap();
        wire.server.send(&data(tag, 500)).unwrap();
    }
    wire.settle().unwrap();
    let expected: Vec<_> = (0..50).map(|tag| data(tag, 500)).collect();
    assert_eq!(wire.at_server.messages, expected);
    assert_eq!(wire.at_client.messages, expected);
    assert_eq!((wire.client.exchanges(), wire.server.exchanges()), (2, 2));
}

#[test]
fn data_in_flight_before_the_peers_kexinit_still_arrive() {
    let mut wire = Wire::open();
    for tag in 0..100 {
        wire.client.send(&data(tag, 30_000)).unwrap();
    }
    wire.server.start_rekey().unwrap();
    wire.settle().unwrap();
    assert_eq!(wire.at_server.messages.len(), 100);
    assert_eq!(wire.server.exchanges(), 2);
}

/// By this an owner knows when a leg may be read without bound.
#[test]
fn behind_its_kexinit_a_peer_sends_nothing_but_the_exchange() {
    let mut wire = Wire::open();
    wire.server.start_rekey().unwrap();
    wire.client.send(&data(1, 100)).unwrap();
    carry(&mut wire.client, &mut wire.server, &mut wire.at_server, usize::MAX).unwrap();
    assert_eq!(wire.at_server.messages.len(), 1);
    assert!(wire.server.in_exchange() && wire.server.awaits_kexinit());

    carry(&mut wire.server, &mut wire.client, &mut wire.at_client, usize::MAX).unwrap();
    carry(&mut wire.client, &mut wire.server, &mut wire.at_server, usize::MAX).unwrap();
    assert!(wire.server.in_exchange() && !wire.server.awaits_kexinit());
    wire.client.seal(&data(2, 100)).unwrap();
    let outcome = carry(&mut wire.client, &mut wire.server, &mut wire.at_server, usize::MAX);
    assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::Unexpected { got: 94, .. }))));
}

#[test]
fn sequence_numbers_start_again_with_each_key() {
    let mut wire = Wire::open();
    for _ in 0..20 {
        wire.client.send(&data(1, 1)).unwrap();
    }
    wire.client.start_rekey().unwrap();
    wire.settle().unwrap();
    assert_eq!((wire.client.tx.sequence(), wire.server.rx.sequence()), (0, 0));
}

#[test]
fn what_waits_for_an_exchange_is_bounded() {
    let mut wire = Wire::open();
    wire.client.start_rekey().unwrap();
    let payload = data(1, 100_000);
    let mut sent = 0;
    let error = loop {
        match wire.client.send(&payload) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, ApiMisuse::HeldTooMuch { max: HELD_BYTES_MAX }.into());
    wire.settle().unwrap();
    assert_eq!(wire.at_server.messages.len(), sent);
    assert_eq!(sent, 10);
}

#[test]
fn a_leg_that_waits_keeps_no_buffers() {
    let mut wire = Wire::open();
    wire.chunk = 10_000;
    for tag in 0..200 {
        wire.client.send(&data(tag, 32_768)).unwrap();
    }
    assert!(wire.client.buffered_capacity() > 1_000_000);
    wire.settle().unwrap();
    for leg in [&wire.client, &wire.server] {
        assert_eq!(leg.buffered_capacity(), 0);
    }
}

#[test]
fn keys_grow_old_by_time_by_bytes_and_by_packets_and_are_young_after() {
    let mut wire = Wire::open();
    let hour = Duration::from_secs(3600);
    assert!(!wire.client.wants_rekey(NOW + hour - Duration::from_secs(1)));
    assert!(wire.client.wants_rekey(NOW + hour));
    let policies = [(1 << 20, u64::MAX), (u64::MAX, 11)];
    for (bytes, packets) in policies {
        let Side::Client(config) = &mut wire.client.side else { panic!() };
        config.rekey = rekey::Policy { bytes, packets, age: hour };
        assert!(!wire.client.wants_rekey(NOW));
        for tag in 0..11 {
            wire.server.send(&data(tag, 100_000)).unwrap();
        }
        wire.settle().unwrap();
        assert!(wire.client.wants_rekey(NOW), "what is received counts too");
        wire.client.start_rekey().unwrap();
        assert!(!wire.client.wants_rekey(NOW), "not again while one runs");
        wire.settle().unwrap();
        assert!(!wire.client.wants_rekey(NOW), "no storm");
    }
}

#[test]
fn before_login_packets_are_small_and_the_connection_layer_is_shut() {
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.settle().unwrap();
    wire.client.send(&[&[50][..], &[0; 40_000]].concat()).unwrap();
    let outcome = wire.settle();
    assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::PacketLength { max: 35_000, .. }))));

    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.settle().unwrap();
    wire.client.send(&[50, 1]).unwrap();
    wire.settle().unwrap();
    assert_eq!(wire.at_server.messages, [[50, 1]]);
    wire.client.send(&[80, 1]).unwrap();
    let outcome = wire.settle();
    assert!(matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::Unexpected { got: 80, .. }))));

    let mut wire = Wire::open();
    wire.client.send(&data(1, PAYLOAD_MAX - 1)).unwrap();
    wire.settle().unwrap();
    assert_eq!(wire.at_server.messages[0].len(), PAYLOAD_MAX);
    let too_long = wire.client.send(&data(1, PAYLOAD_MAX));
    assert!(matches!(too_long, Err(Error::ApiMisuse(ApiMisuse::TooLong { .. }))));
}

#[test]
fn only_so_many_exchanges_before_login() {
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.settle().unwrap();
    wire.client.set_authenticated();
    for _ in 1..EXCHANGES_BEFORE_LOGIN_MAX {
        wire.client.start_rekey().unwrap();
        wire.settle().unwrap();
    }
    wire.client.start_rekey().unwrap();
    let outcome = wire.settle();
    assert_eq!(outcome, Err(PeerMisbehaved::TooManyExchanges { max: EXCHANGES_BEFORE_LOGIN_MAX }.into()));
}

#[test]
fn only_so_many_packets_before_login() {
    let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
    wire.settle().unwrap();
    for _ in 0..PACKETS_BEFORE_LOGIN_MAX {
        wire.client.send_ignore(b"").unwrap();
    }
    assert_eq!(wire.settle(), Err(PeerMisbehaved::TooManyPackets { max: PACKETS_BEFORE_LOGIN_MAX }.into()));
    let mut wire = Wire::open();
    for _ in 0..2 * PACKETS_BEFORE_LOGIN_MAX {
        wire.client.send_ignore(b"").unwrap();
    }
    wire.settle().unwrap();
}

#[test]
fn nothing_is_sent_before_its_time_and_nothing_of_this_layer() {
    let mut leg = Leg::client(ClientConfig::new(HostKeyAlgorithm::all())).unwrap();
    assert_eq!(leg.send(&[50]), Err(ApiMisuse::NotReady.into()));
    assert_eq!(leg.start_rekey(), Err(ApiMisuse::NotReady.into()));
    assert_eq!(leg.accept_host_key(), Err(ApiMisuse::NoHostKeyPending.into()));
    let mut wire = Wire::open();
    for number in [0, 1, 2, 3, 7, 20, 21, 30, 49, 128, 192] {
        assert_eq!(wire.client.send(&[number]), Err(ApiMisuse::NotOurs { got: number }.into()));
    }
    assert_eq!(wire.client.send(&[]), Err(ApiMisuse::NotOurs { got: 0 }.into()));
}

#[test]
fn a_goodbye_arrives_with_its_reason_and_text() {
    let mut wire = Wire::open();
    wire.client.disconnect(11, "that's all\x07").unwrap();
    assert_eq!(wire.client.send(&[50]), Err(ApiMisuse::Closed.into()));
    let expected = Error::PeerDisconnected { reason: 11, text: "that's all\u{fffd}".to_owned() };
    assert_eq!(wire.settle(), Err(expected));
    assert!(wire.server.is_closed());
    assert!(wire.server.output().is_empty(), "a goodbye isn't answered");
}

#[test]
fn unknown_messages_are_answered_with_their_number() {
    let mut wire = Wire::open();
    let before = wire.client.tx.sequence();
    wire.client.seal(&[2, 0, 0, 0, 0]).unwrap();
    wire.client.seal(&[192, 1, 2, 3]).unwrap();
    carry(&mut wire.client, &mut wire.server, &mut wire.at_server, usize::MAX).unwrap();
    let mut answer = wire.server.output().to_vec();
    let opened = wire.client.rx.open(&mut answer).unwrap().unwrap();
    let expected = [&[number::UNIMPLEMENTED][..], &(before + 1).to_be_bytes()].concat();
    assert_eq!(answer[opened.payload], expected);
    assert_eq!(opened.consumed, answer.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any order of sending, rekeying and carrying, in pieces of any size: equal bytes at both ends.
    #[test]
    fn any_interleaving_carries_the_same_bytes(
        steps in proptest::collection::vec((0..7u8, 1..60_000usize), 1..40),
        chunk in prop_oneof![1..20usize, 20..70_000usize],
    ) {
        let mut wire = Wire::open();
        wire.chunk = chunk.max(if steps.len() > 20 { 64 } else { 1 });
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for (tag, (what, length)) in steps.into_iter().enumerate() {
            let payload = data(tag, length % 20_000);
            match what {
                0 | 1 => if wire.client.send(&payload).is_ok() { up.push(payload) },
                2 | 3 => if wire.server.send(&payload).is_ok() { down.push(payload) },
                4 => wire.client.start_rekey().unwrap(),
                5 => wire.server.start_rekey().unwrap(),
                _ if tag % 2 == 0 => {
                    carry(&mut wire.client, &mut wire.server, &mut wire.at_server, wire.chunk).unwrap();
                }
                _ => {
                    carry(&mut wire.server, &mut wire.client, &mut wire.at_client, wire.chunk).unwrap();
                }
            }
        }
        wire.settle().unwrap();
        prop_assert!(wire.at_server.messages == up);
        prop_assert!(wire.at_client.messages == down);
    }

    #[test]
    fn altered_handshakes_never_panic(at in 0..4000usize, byte: u8, towards_client: bool) {
        let mut wire = Wire::new(server_config(vec![ed25519_host()]), ClientConfig::new(HostKeyAlgorithm::all()));
        let mut offset = 0;
        for _ in 0..6 {
            for to_client in [true, false] {
                let (from, to, seen) = if to_client {
                    (&mut wire.server, &mut wire.client, &mut wire.at_client)
                } else {
                    (&mut wire.client, &mut wire.server, &mut wire.at_server)
                };
                let mut bytes = from.output().to_vec();
                from.wrote(bytes.len());
                if to_client == towards_client {
                    if let Some(target) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at)) {
                        *target = byte;
                    }
                    offset += bytes.len();
                }
                if feed(to, seen, &mut bytes).is_err() {
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), as_client: bool) {
        bytes.splice(0..0, b"SSH-2.0-x\r\n".iter().copied());
        let mut leg = if as_client {
            Leg::client(ClientConfig::new(HostKeyAlgorithm::all())).unwrap()
        } else {
            Leg::server(server_config(vec![ed25519_host()])).unwrap()
        };
        drop(feed(&mut leg, &mut Seen::default(), &mut bytes));
    }
}
