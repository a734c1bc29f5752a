//! The events of the appender: each tells where it comes from, so that whoever finds it knows what it must be.

use custody_core::log::note::Ed25519Signer;
use custody_core::log::{ProducerKey, Record};
use std::sync::Arc;
use uuid::Uuid;

/// The log's name.
pub const ORIGIN: &str = "custody.test/crash";

/// The key of all logs here; it protects nothing.
pub fn signer() -> Arc<Ed25519Signer> {
    Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).expect("a seed"))
}

/// In this boot of producer 0 all records have 320 bytes: behind a segment's header of 64, 51 of them fill four blocks of
/// the disk to the last byte.
pub const EVEN_BOOT: u64 = 4_096;
const EVEN_EVENT_BYTES: usize = 251;

/// The bytes of event `seq` of a producer in one of its boots: 50 to 350.
pub fn event(boot: u64, producer: u64, seq: u64) -> Vec<u8> {
    if boot == EVEN_BOOT {
        let bare = written(boot, "", producer, seq).len();
        return written(boot, &"x".repeat(EVEN_EVENT_BYTES - bare), producer, seq);
    }
    written(boot, &"x".repeat(((seq + producer) * 37 % 300) as usize), producer, seq)
}

fn written(boot: u64, filling: &str, producer: u64, seq: u64) -> Vec<u8> {
    format!(r#"{{"boot":{boot},"filling":"{filling}","producer":{producer},"seq":{seq}}}"#).into_bytes()
}

/// The same as it is handed in.
pub fn record(boot: u64, producer: u64, seq: u64) -> Record {
    Record {
        producer: ProducerKey {
            id: format!("producer-{producer}"),
            boot: Uuid::from_u64_pair(boot, producer),
            seq,
        },
        tag: 1,
        bytes: event(boot, producer, seq).into(),
    }
}
