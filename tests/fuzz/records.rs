//! A segment's bytes, and what verification and recovery make of them. They must agree, whatever lies there: what is
//! opened can be verified, holds what was verified, goes on, and is found again; what is refused stays as it is.
//!
//! The format is written down once more here, from its description, so that the two can be compared.

use custody_core::clock::{ManualClock, Nanos};
use custody_core::log::embedded::{EmbeddedLog, OpenError, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::tree::{Tree, leaf_hash};
use custody_core::log::verify::{VerifyError, directory};
use custody_core::log::{Checkpoint, Log as _, ProducerKey, Record, Signer as _};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use uuid::Uuid;

const ORIGIN: &str = "custody.test/log";
const SEGMENT: &str = "segments/00000000000000000000.seg";
const PREFIX_BYTES: usize = 8;
const NOW: Nanos = Nanos(1_800_000_000_000_000_000);
/// The first entries, which the checkpoint may cover.
const SIGNED: [&[u8]; 2] = [br#"{"n":0}"#, br#"{"n":1}"#];

static SIGNER: LazyLock<Arc<Ed25519Signer>> =
    LazyLock::new(|| Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap()));

/// The first byte says whether checksums are put right (so that changes get past them) and what was signed.
pub fn records(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let mut segment = header();
    segment.extend_from_slice(bytes);
    if how & 1 == 1 {
        put_checksums_right(&mut segment[64..]);
    }
    let place = place();
    let mut tree = Tree::new();
    if how & 2 == 2 {
        SIGNED.iter().for_each(|event| tree.push(leaf_hash(event)));
    }
    let checkpoint = Checkpoint::sign(tree.size(), tree.root(), &**SIGNER).unwrap();
    std::fs::create_dir(place.path().join("segments")).unwrap();
    std::fs::write(place.path().join("checkpoint"), checkpoint.to_string()).unwrap();
    std::fs::write(place.path().join(SEGMENT), &segment).unwrap();

    let verified = verify(place.path());
    let log = match open(place.path()) {
        Ok(log) => log,
        Err(error) => {
            let alone = matches!(verified, Err(VerifyError::Nothing(_)));
            assert!(alone || verified.is_err(), "{error}, but verification found nothing wrong");
            assert_eq!(
                std::fs::read(place.path().join(SEGMENT)).unwrap(),
                segment,
                "a refused log was changed"
            );
            return;
        }
    };
    let size = log.size();
    match verified {
        Ok(verified) => assert_eq!(verified.entries, size),
        Err(VerifyError::Nothing(_)) => assert_eq!(checkpoint.size(), 0),
        Err(error) => panic!("it was opened, though {error}"),
    }
    let next = Record {
        producer: ProducerKey { id: "next".to_owned(), boot: Uuid::from_u128(u128::MAX), seq: size },
        tag: 0,
        bytes: b"{}"[..].into(),
    };
    // Whoever wrote the record may have used this very number up.
    let appended = log.submit(vec![next]).unwrap().wait_blocking().is_ok_and(|receipts| !receipts[0].repeat);
    drop(log);
    let log = open(place.path()).unwrap_or_else(|error| panic!("opened once, and then: {error}"));
    assert_eq!(log.size(), size + u64::from(appended));
    assert_eq!(log.recovery().cut_bytes, 0, "what was cut came back");
    let mut read = 0;
    while read < log.size() {
        read += log.read(read, 1_000, usize::MAX).unwrap().len() as u64;
    }
    drop(log);
    if read > 0 {
        let verified = verify(place.path()).unwrap();
        assert_eq!((verified.signed, verified.entries, verified.unfinished_bytes), (read, read, 0));
    }
}

/// Segments as they are written, under each beginning.
pub fn seeds() -> Vec<Vec<u8>> {
    let place = place();
    let log = open(place.path()).unwrap();
    let record = |seq: u64, bytes: &[u8]| Record {
        producer: ProducerKey { id: "p".to_owned(), boot: Uuid::from_u128(1), seq },
        tag: 3,
        bytes: bytes::Bytes::copy_from_slice(bytes),
    };
    for (seq, event) in (0..).zip(SIGNED) {
        log.submit(vec![record(seq, event)]).unwrap().wait_blocking().unwrap();
    }
    let batch = (2..5).map(|seq| record(seq, br#"{"n":2}"#)).collect();
    log.submit(batch).unwrap().wait_blocking().unwrap();
    drop(log);
    let segment = std::fs::read(place.path().join(SEGMENT)).unwrap();
    (0..4).map(|how| [&[how], &segment[64..]].concat()).collect()
}

fn open(path: &Path) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(path, Options::new(SIGNER.clone(), Arc::new(ManualClock::new(NOW))))
}

fn verify(path: &Path) -> Result<custody_core::log::verify::Verified, VerifyError> {
    directory(path, &SIGNER.verifier_key(), &[], &mut |_, _| {}, &mut |_| {})
}

/// In memory where there is a file system for that: a directory for each input would wear a disk out.
fn place() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// `magic | version | zero | SHA-256 of the origin | first index | zero | CRC-32C`
fn header() -> Vec<u8> {
    let origin = Sha256::digest(ORIGIN);
    let mut header =
        [b"CUSTLOG\0".as_slice(), &1_u32.to_le_bytes(), &[0; 4], &origin, &[0; 8], &[0; 4]].concat();
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

/// Takes the bytes for `length | CRC | body` one after the other, and makes each CRC fit.
fn put_checksums_right(mut bytes: &mut [u8]) {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&Sha256::digest(ORIGIN)), &0_u64.to_le_bytes());
    while let Some(length) = bytes.first_chunk::<4>() {
        let seeded = crc32c::crc32c_append(seed, length);
        let end = (u32::from_le_bytes(*length) as usize).saturating_add(PREFIX_BYTES);
        let Some((record, rest)) = std::mem::take(&mut bytes).split_at_mut_checked(end) else { return };
        let crc = crc32c::crc32c_append(seeded, &record[PREFIX_BYTES..]);
        record[4..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes = rest;
    }
}
