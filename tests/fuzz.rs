//! One target for each codec that reads bytes of others: whatever comes in, it says what is wrong and doesn't panic,
//! and what it takes in it gives back the same where it can write. Inputs are examples that are right, changed at
//! random; `CUSTODY_FUZZ` says how many each target gets (2,000 here, 100,000 in `make soak`), `CUSTODY_SEED` which.

use custody_core::event::{ByteString, Event, TYPES, canonical};
use custody_core::log::note::{Ed25519Signer, Note, VerifierKey};
use custody_core::log::proof::ProofFile;
use custody_core::log::tile::Tile;
use custody_core::log::{Checkpoint, Hash, Signer as _};
use custody_core::policy::{defaults, validate};
use custody_core::recording::{Direction, Level, Reader, Recorder};
use custody_core::state::State;
use custody_core::state::change::Change;
use custody_proxy::ssh::certificate::parse_certificate;
use custody_proxy::ssh::message::Message;
use custody_proxy::ssh::transport::host_key::{HostKey, HostKeyAlgorithm, decode_public};
use custody_proxy::ssh::transport::leg::{ClientConfig, Incoming, Leg, ServerConfig};
use custody_proxy::ssh::transport::negotiate::KexInit;
use russh::keys::{Algorithm, PrivateKey};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tempfile::tempdir;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    /// One of the seeds with up to eight changes: bits, bytes, lengths, pieces of another seed.
    fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(9) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next().to_le_bytes()[0],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next().to_le_bytes()[0]),
                4 if at + 4 <= bytes.len() => {
                    let odd = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 255, 65_536];
                    bytes[at..at + 4].copy_from_slice(&odd[self.below(odd.len())].to_be_bytes());
                }
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let piece = other[from..(from + self.below(64)).min(other.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                _ => {}
            }
        }
        bytes
    }
}

/// Gives a target its inputs. A panic names the input that caused it.
fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().expect("a number"));
    let (inputs, seed) = (number("CUSTODY_FUZZ", 2_000), number("CUSTODY_SEED", 20_261_125));
    let mut random = Random(seed);
    for _ in 0..inputs {
        let input = random.changed(seeds);
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(outcome.is_ok(), "{name} panicked on {:?}", ByteString::from(input.as_slice()));
    }
}

fn examples() -> Vec<Vec<u8>> {
    TYPES.iter().map(|info| (info.example)().expect("an example")).collect()
}

#[test]
fn events() {
    let families: Vec<u8> = TYPES.iter().map(|info| info.family.tag()).collect();
    fuzz("an event", &examples(), |bytes| {
        if let Ok(event) = Event::parse(bytes) {
            let _typed = event.payload();
            let _again = canonical::event_bytes(&event);
        }
        let mut state = State::new();
        for (index, tag) in families.iter().enumerate() {
            state
                .apply_bytes(index as u64, custody_core::event::Timestamp::from_seconds(1), *tag, bytes)
                .unwrap();
        }
        state.canonical().unwrap();
    });
}

#[test]
fn notes_checkpoints_proofs_keys_and_tile_paths() {
    let signer = Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap();
    let key = signer.verifier_key();
    let checkpoint = Checkpoint::sign(5, Hash([3; 32]), &signer).unwrap();
    let proof = ProofFile::new(2, vec![Hash([1; 32]), Hash([2; 32])], &checkpoint);
    let seeds =
        [checkpoint.to_string(), proof.to_string(), key.to_string(), "tile/0/x001/234.p/7".to_owned()];
    let seeds = seeds.map(String::into_bytes);
    fuzz("a note", &seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(note) = Note::parse(&text) {
            assert_eq!(Note::parse(&note.to_string()).unwrap(), note);
        }
        if let Ok(verified) = Checkpoint::verify(&text, &key) {
            assert_eq!((verified.size(), verified.root()), (5, Hash([3; 32])), "a signature was forged");
        }
        if let Ok(proof) = ProofFile::parse(&text) {
            let _wrong = proof.check(b"{}", &key);
        }
        if let Ok(parsed) = VerifierKey::parse(&text) {
            assert_eq!(VerifierKey::parse(&parsed.to_string()).unwrap().public(), parsed.public());
        }
        if let Some(tile) = Tile::parse(&text) {
            assert_eq!(tile.to_string(), text);
        }
    });
}

#[test]
fn recordings() {
    let dir = tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 5, Level::Terminal).unwrap();
    for n in 0..20_u8 {
        let bytes = vec![n; 40];
        recorder.release(u64::from(n), 0, Direction::Output, bytes).map(drop).unwrap();
    }
    let path = recorder.path().to_owned();
    recorder.seal(99).unwrap();
    let seeds = vec![std::fs::read(path).unwrap()];
    fuzz("a recording", &seeds, |bytes| {
        if let Ok(reader) = Reader::new(Cursor::new(bytes)) {
            let frames = reader.take(100_000).filter(Result::is_ok).count();
            assert!(frames <= 1_000, "{frames} frames out of {} bytes", bytes.len());
        }
        let _verdict = custody_core::recording::check::check_stream(Cursor::new(bytes), &[], None);
    });
}

#[test]
fn changes_and_policies() {
    let seeds = [
        r#"{"name":"bob","roles":["operator"]}"#,
        r#"{"name":"l","matches":{"user":"bob"},"reason":"r","expires":"2026-01-01T00:00:00Z"}"#,
        r#"{"name":"web-1","address":"127.0.0.1:22","labels":{"a":"b"}}"#,
        defaults::ADMIN_POLICY,
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
    fuzz("a change", &seeds, |bytes| {
        for command in custody_core::state::change::COMMANDS {
            let _answer = Change::parse(command, bytes);
        }
        let _checked = validate::check("name", &String::from_utf8_lossy(bytes));
    });
}

#[test]
fn ssh_messages() {
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let channel = [0; 4].as_slice();
    let seeds: Vec<Vec<u8>> = [
        vec![&[90][..], &field(b"session"), &[0; 12]],
        vec![&[98], channel, &field(b"exec"), &[1], &field(b"true")],
        vec![&[98], channel, &field(b"pty-req"), &[1], &field(b"xterm"), &[0; 20]],
        vec![&[94], channel, &field(b"data")],
        vec![&[80], &field(b"keepalive@openssh.com"), &[1]],
    ]
    .map(|parts| parts.concat())
    .to_vec();
    fuzz("a message", &seeds, |bytes| {
        if let Ok(message) = Message::parse(bytes) {
            let written = message.to_payload();
            assert_eq!(Message::parse(&written).unwrap(), message);
        }
    });
}

#[test]
fn keys_and_certificates() {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let blob = key.public_key().to_bytes().unwrap();
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let certificate =
        [field(b"ssh-ed25519-cert-v01@openssh.com"), blob.clone(), blob.clone(), vec![0; 80]].concat();
    fuzz("a key", &[blob, certificate], |bytes| {
        let _key = decode_public(bytes);
        let _certificate = parse_certificate(bytes);
    });
}

#[test]
fn the_transport_before_login() {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let server = Arc::new(ServerConfig::new(vec![HostKey::new(&key, None).unwrap()]));
    let client = ClientConfig::new(HostKeyAlgorithm::all());
    // What each side says first: version and KEXINIT; then the beginning of an exchange.
    let said = |leg: &Leg| leg.output().to_vec();
    let hello = said(&Leg::client(client.clone()).unwrap());
    let answer = {
        let mut leg = Leg::server(Arc::clone(&server)).unwrap();
        let mut bytes = hello.clone();
        let mut incoming = Incoming::new(&mut bytes, Duration::ZERO);
        while let Ok(Some(_)) = leg.next(&mut incoming) {}
        said(&leg)
    };
    let seeds = [hello, answer];
    fuzz("a leg", &seeds, |bytes| {
        let legs = [Leg::server(Arc::clone(&server)).unwrap(), Leg::client(client.clone()).unwrap()];
        for mut leg in legs {
            let mut bytes = bytes.to_vec();
            let mut incoming = Incoming::new(&mut bytes, Duration::ZERO);
            while let Ok(Some(_)) = leg.next(&mut incoming) {}
            assert!(
                leg.buffered_capacity() < 1 << 20,
                "{} bytes are kept before login",
                leg.buffered_capacity()
            );
        }
        let _kexinit = KexInit::decode(bytes);
    });
}
