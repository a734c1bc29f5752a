//! What is fuzzed: one target for each codec that reads bytes of others. Whatever comes in, it says what is wrong and
//! doesn't panic, and what it takes in it gives back the same where it can write.
//!
//! The one place of each body: `tests/fuzz.rs` runs them briefly on changed examples, `fuzz/` under libFuzzer.

use super::files;
use super::records::records;
use super::ssh;
use custody_core::event::{Event, TYPES, Timestamp, canonical};
use custody_core::log::cosignature::{Cosigner, CosignerKey};
use custody_core::log::note::{Ed25519Signer, Note, VerifierKey};
use custody_core::log::proof::ProofFile;
use custody_core::log::served::Prover;
use custody_core::log::tile::{Tile, parse_bundle, parse_hashes};
use custody_core::log::tree::{leaf_hash, verify_consistency, verify_inclusion};
use custody_core::log::{Checkpoint, Hash, Signer as _};
use custody_core::mapping::ocsf::Version;
use custody_core::mapping::{Logged, cef, ecs, ocsf};
use custody_core::policy::{defaults, validate};
use custody_core::recording::{Direction, Level, Reader, Recorder};
use custody_core::state::State;
use custody_core::state::change::Change;
use custody_proxy::ssh::certificate::parse_certificate;
use custody_proxy::ssh::message::Message;
use custody_proxy::ssh::transport::host_key::{HostKey, HostKeyAlgorithm, decode_public};
use custody_proxy::ssh::transport::leg::{ClientConfig, Incoming, Leg, ServerConfig};
use russh::keys::{Algorithm, PrivateKey};
use std::io::Cursor;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// One codec.
pub struct Target {
    /// Its name, of the libFuzzer program too.
    pub name: &'static str,
    /// Takes any bytes.
    pub body: fn(&[u8]),
    /// Inputs that are right.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs a short run takes.
    pub inputs: u64,
}

impl Target {
    const fn new(name: &'static str, body: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Self {
        Self { name, body, seeds, inputs: 2_000 }
    }
}

/// All of them.
pub const TARGETS: [Target; 16] = [
    // A directory for each: slower.
    Target { inputs: 500, ..Target::new("records", records, super::records::seeds) },
    Target::new("events", events, event_seeds),
    Target::new("mappings", mappings, event_seeds),
    Target::new("notes", notes, note_seeds),
    Target::new("proofs", proofs, proof_seeds),
    Target::new("tiles", tiles, tile_seeds),
    Target::new("recordings", recordings, recording_seeds),
    Target::new("changes", changes, change_seeds),
    Target::new("messages", messages, message_seeds),
    Target::new("keys", keys, key_seeds),
    Target::new("transport", transport, transport_seeds),
    Target::new("packets", ssh::packets, ssh::packet_seeds),
    Target::new("kexinit", ssh::kexinit, ssh::kexinit_seeds),
    Target::new("authentication", ssh::authentication, ssh::authentication_seeds),
    Target::new("relay", ssh::relay, ssh::relay_seeds),
    Target::new("files", files::files, files::seeds),
];

/// Events, and what the state makes of them under every family's tag.
pub fn events(bytes: &[u8]) {
    if let Ok(event) = Event::parse(bytes) {
        let _typed = event.payload();
        let _again = canonical::event_bytes(&event);
    }
    let mut state = State::new();
    for (index, info) in (0..).zip(TYPES) {
        state.apply_bytes(index, Timestamp::from_seconds(1), info.family.tag(), bytes).unwrap();
    }
    state.canonical().unwrap();
}

fn event_seeds() -> Vec<Vec<u8>> {
    TYPES.iter().map(|info| (info.example)().expect("an example")).collect()
}

/// Entries in the words of each standard: all of them, whatever they hold, and the evidence unchanged beside.
pub fn mappings(bytes: &[u8]) {
    let appended = Timestamp::from_seconds(1_800_000_000);
    let entry = Logged { origin: "custody.test/log", index: 7, appended, leaf: leaf_hash(bytes), bytes };
    let ecs: serde_json::Value = serde_json::from_slice(&ecs::document(&entry)).unwrap();
    let ocsf: serde_json::Value = serde_json::from_slice(&ocsf::event(&entry, Version::default())).unwrap();
    assert_eq!(ecs["event"]["original"].as_str(), std::str::from_utf8(bytes).ok());
    assert_eq!(ocsf["raw_data"].as_str(), std::str::from_utf8(bytes).ok());
    assert!(!cef::line(&entry).chars().any(char::is_control));
}

static LOG_KEY: LazyLock<Ed25519Signer> =
    LazyLock::new(|| Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());

fn signed() -> Checkpoint {
    Checkpoint::sign(5, Hash([3; 32]), &*LOG_KEY).unwrap()
}

static WITNESS: LazyLock<Cosigner> = LazyLock::new(|| {
    Cosigner::new(Arc::new(Ed25519Signer::from_seed("custody.test/witness", &[8; 32]).unwrap()))
});

/// Signed notes, checkpoints, cosignatures and keys.
pub fn notes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(note) = Note::parse(&text) {
        assert_eq!(Note::parse(&note.to_string()).unwrap(), note);
        if WITNESS.key().verify(&note).is_ok() {
            assert_eq!(note.text(), signed().note().text(), "a cosignature was forged");
        }
    }
    if let Ok(verified) = Checkpoint::verify(&text, &LOG_KEY.verifier_key()) {
        assert_eq!((verified.size(), verified.root()), (5, Hash([3; 32])), "a signature was forged");
    }
    if let Ok(parsed) = VerifierKey::parse(&text) {
        assert_eq!(VerifierKey::parse(&parsed.to_string()).unwrap().public(), parsed.public());
    }
    if let Ok(parsed) = CosignerKey::parse(&text) {
        assert_eq!(CosignerKey::parse(&parsed.to_string()).unwrap().id(), parsed.id());
    }
}

fn note_seeds() -> Vec<Vec<u8>> {
    let mut cosigned = signed();
    let line = WITNESS.cosign(cosigned.note(), Timestamp::from_seconds(1_800_000_000)).unwrap();
    cosigned.add_line(line.line().clone());
    let texts = [
        signed().to_string(),
        cosigned.to_string(),
        LOG_KEY.verifier_key().to_string(),
        WITNESS.key().to_string(),
    ];
    texts.map(String::into_bytes).into()
}

/// tlog-proof files; and proofs as bare numbers and hashes, which lead nowhere.
pub fn proofs(bytes: &[u8]) {
    if let Ok(proof) = ProofFile::parse(&String::from_utf8_lossy(bytes)) {
        assert_eq!(ProofFile::parse(&proof.to_string()).unwrap(), proof);
        assert!(proof.check(b"{}", &LOG_KEY.verifier_key()).is_err(), "a proof of what was never there");
    }
    let (numbers, hashes) = bytes.split_at(bytes.len().min(16));
    if let Ok(numbers) = <[u8; 16]>::try_from(numbers) {
        let [first, second] =
            [&numbers[..8], &numbers[8..]].map(|n| u64::from_le_bytes(n.try_into().unwrap()));
        let path: Vec<Hash> = hashes.chunks_exact(32).map(|hash| Hash(hash.try_into().unwrap())).collect();
        let (known, leaf) = (Hash([3; 32]), Hash([4; 32]));
        // The root of nothing that anybody can hash to.
        assert!(!verify_inclusion(&leaf, first, second, &path, &known));
        assert!(!verify_consistency(first, &leaf, second, &known, &path));
    }
}

fn proof_seeds() -> Vec<Vec<u8>> {
    let proof = ProofFile::new(2, vec![Hash([1; 32]), Hash([2; 32])], &signed()).to_string().into_bytes();
    let numbers = [&3_u64.to_le_bytes()[..], &7_u64.to_le_bytes(), &[5; 96]].concat();
    vec![proof, numbers]
}

/// Names of tiles; and what others serve as tiles and bundles: behind two bytes that say how wide it is and of how
/// large a log.
pub fn tiles(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(tile) = Tile::parse(&text) {
        assert_eq!(tile.to_string(), text);
        if let Some(needed) = tile.entries_needed() {
            let found = Tile::of(tile.level, tile.number, needed).expect("there with so many entries");
            assert_eq!(found, tile);
        }
        let _any = (tile.height(), tile.first());
    }
    let [width, size, served @ ..] = bytes else { return };
    let (width, size) = (u16::from(*width) + 1, u64::from(*size) << (size % 50));
    if let Ok(entries) = parse_bundle(served, width) {
        assert_eq!(entries.len(), usize::from(width));
        let framed = |entry: &&[u8]| [&u16::try_from(entry.len()).unwrap().to_be_bytes(), *entry].concat();
        assert_eq!(entries.iter().flat_map(framed).collect::<Vec<u8>>(), served);
    }
    if let Ok(hashes) = parse_hashes(served, width) {
        assert_eq!(hashes.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>(), served);
    }
    let mut prover = Prover::new(size);
    let index = served.first_chunk().map_or(0, |index| u64::from_le_bytes(*index)) % size.max(1);
    for tile in prover.wanted([index]) {
        let _wrong = prover.insert(tile, served);
    }
    if let Some(path) = prover.inclusion(index) {
        assert!(path.len() <= 64, "a path of {} hashes", path.len());
    }
}

fn tile_seeds() -> Vec<Vec<u8>> {
    let paths = ["tile/0/x001/234.p/7", "tile/entries/000", "tile/63/x999/x999/001"];
    let mut seeds: Vec<Vec<u8>> = paths.map(|path| path.as_bytes().to_vec()).into();
    seeds.push([&[1, 2][..], &[0, 2], b"{}", &[0, 7], br#"{"a":1}"#].concat());
    seeds.push([&[2, 1][..], &[9; 96]].concat());
    seeds
}

/// Recordings, whole files.
pub fn recordings(bytes: &[u8]) {
    if let Ok(reader) = Reader::new(Cursor::new(bytes)) {
        let frames = reader.take(100_000).filter(Result::is_ok).count();
        assert!(frames <= 1_000 + bytes.len(), "{frames} frames out of {} bytes", bytes.len());
    }
    let _verdict = custody_core::recording::check::check_stream(Cursor::new(bytes), &[], None);
}

fn recording_seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 5, Level::Terminal).unwrap();
    for n in 0..20_u8 {
        recorder.release(u64::from(n), 0, Direction::Output, vec![n; 40]).map(drop).unwrap();
    }
    let path = recorder.path().to_owned();
    recorder.seal(99).unwrap();
    vec![std::fs::read(path).unwrap()]
}

/// Changes of the state as the API takes them, and policies.
pub fn changes(bytes: &[u8]) {
    for command in custody_core::state::change::COMMANDS {
        let _answer = Change::parse(command, bytes);
    }
    let _checked = validate::check("name", &String::from_utf8_lossy(bytes));
}

fn change_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"name":"bob","roles":["operator"]}"#,
        r#"{"name":"l","matches":{"user":"bob"},"reason":"r","expires":"2026-01-01T00:00:00Z"}"#,
        r#"{"name":"web-1","address":"127.0.0.1:22","labels":{"a":"b"}}"#,
        defaults::ADMIN_POLICY,
    ]
    .map(|seed| seed.as_bytes().to_vec())
    .into()
}

/// Messages of SSH's connection protocol.
pub fn messages(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let written = message.to_payload();
        assert_eq!(Message::parse(&written).unwrap(), message);
    }
}

pub fn field(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn message_seeds() -> Vec<Vec<u8>> {
    let channel = [0; 4].as_slice();
    [
        vec![&[90][..], &field(b"session"), &[0; 12]],
        vec![&[98], channel, &field(b"exec"), &[1], &field(b"true")],
        vec![&[98], channel, &field(b"pty-req"), &[1], &field(b"xterm"), &[0; 20]],
        vec![&[94], channel, &field(b"data")],
        vec![&[80], &field(b"keepalive@openssh.com"), &[1]],
    ]
    .map(|parts| parts.concat())
    .into()
}

/// Public keys and certificates.
pub fn keys(bytes: &[u8]) {
    let _key = decode_public(bytes);
    let _certificate = parse_certificate(bytes);
}

static SSH_KEY: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap());

fn key_seeds() -> Vec<Vec<u8>> {
    let blob = SSH_KEY.public_key().to_bytes().unwrap();
    let certificate =
        [field(b"ssh-ed25519-cert-v01@openssh.com"), blob.clone(), blob.clone(), vec![0; 80]].concat();
    vec![blob, certificate]
}

static SERVER: LazyLock<Arc<ServerConfig>> =
    LazyLock::new(|| Arc::new(ServerConfig::new(vec![HostKey::new(&SSH_KEY, None).unwrap()])));

fn client() -> ClientConfig {
    ClientConfig::new(HostKeyAlgorithm::all())
}

/// The SSH transport before login, in both roles.
pub fn transport(bytes: &[u8]) {
    for mut leg in [Leg::server(Arc::clone(&SERVER)).unwrap(), Leg::client(client()).unwrap()] {
        let mut bytes = bytes.to_vec();
        let mut incoming = Incoming::new(&mut bytes, Duration::ZERO);
        while let Ok(Some(_)) = leg.next(&mut incoming) {}
        let kept = leg.buffered_capacity();
        assert!(kept < 1 << 20, "{kept} bytes are kept before login");
    }
}

/// What each side says first: version and KEXINIT; then the beginning of an exchange.
fn transport_seeds() -> Vec<Vec<u8>> {
    let hello = Leg::client(client()).unwrap().output().to_vec();
    let mut leg = Leg::server(Arc::clone(&SERVER)).unwrap();
    let mut bytes = hello.clone();
    let mut incoming = Incoming::new(&mut bytes, Duration::ZERO);
    while let Ok(Some(_)) = leg.next(&mut incoming) {}
    let answer = leg.output().to_vec();
    vec![hello, answer]
}
