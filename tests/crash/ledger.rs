//! What the appender said, and whether the log keeps its word.

use super::events::{ORIGIN, event, record, signer};
use custody_core::clock::SystemClock;
use custody_core::log::embedded::{EmbeddedLog, OpenError, Options};
use custody_core::log::verify::{Verified, VerifyError, directory};
use custody_core::log::{Checkpoint, Entry, Log as _, Signer as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// An event: boot, producer, number.
pub type Number = (u64, u64, u64);

/// What is known of each event from outside.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Acknowledged, and where.
    pub durable: BTreeMap<Number, u64>,
    /// Refused with certainty.
    pub refused: BTreeSet<Number>,
    /// Nobody knows.
    pub unknown: BTreeSet<Number>,
    /// The size of the largest checkpoint that was handed out.
    pub signed: u64,
    /// How often a checkpoint was asked for in vain.
    pub unsigned: u32,
    /// Why something was refused or unknown: for people.
    pub reasons: BTreeSet<String>,
    /// Entries, bytes cut and bytes rewritten at each opening.
    pub opened: Vec<[u64; 3]>,
}

impl Ledger {
    /// Takes down one line of the appender. A line that was cut short by its death says nothing.
    pub fn hear(&mut self, boot: u64, line: &str) {
        let Some(line) = line.strip_suffix('\n') else { return };
        let mut words = line.splitn(4, ' ');
        let word = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        match word {
            "opened" => {
                let found = [number(), number(), number()].map(|n| n.expect("three numbers"));
                self.opened.push(found);
            }
            "signed" => self.signed = self.signed.max(number().expect("a size")),
            "durable" | "refused" | "unknown" => {
                let event = (boot, number().expect("a producer"), number().expect("a number"));
                let rest = words.next().unwrap_or_default();
                match word {
                    "durable" => {
                        let index = rest.parse().expect("an index");
                        assert_eq!(
                            self.durable.insert(event, index),
                            None,
                            "{event:?} was acknowledged twice"
                        );
                    }
                    "refused" => drop(self.refused.insert(event)),
                    _ => drop(self.unknown.insert(event)),
                }
                if word != "durable" {
                    self.reasons.insert(rest.to_owned());
                }
            }
            "unsigned" => self.unsigned += 1,
            _ => {}
        }
    }

    /// Verifies the directory as it lies there, opens it, compares, appends, and verifies again.
    ///
    /// # Panics
    /// With what is wrong; `what` says when.
    pub fn check(&self, directory: &Path, what: &str) {
        self.verify(directory, what);
        let log = open(directory).unwrap_or_else(|error| panic!("{what}: {error}"));
        let entries = read(&log);
        self.compare(&entries, what);
        let receipts = log.submit(vec![record(u64::MAX, 0, 0)]).unwrap().wait_blocking();
        assert_eq!(
            receipts.unwrap_or_else(|e| panic!("{what}: {e}"))[0].index,
            entries.len() as u64,
            "{what}"
        );
        drop(log);
        let verified = verify(directory, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
        let size = entries.len() as u64 + 1;
        assert_eq!((verified.entries, verified.signed), (size, size), "{what}");
    }

    /// Verifies the directory and changes nothing: damage is never what a crash leaves.
    pub fn verify(&self, directory: &Path, what: &str) -> u64 {
        match verify(directory, &[]) {
            Ok(verified) => {
                assert!(
                    verified.entries >= self.durable.len() as u64,
                    "{what}: acknowledged events are missing"
                );
                assert!(verified.signed >= self.signed, "{what}: the checkpoint went back");
                verified.entries
            }
            Err(VerifyError::Nothing(_)) => {
                assert_eq!(self.signed, 0, "{what}: the checkpoint is gone");
                0
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    fn compare(&self, entries: &[Entry], what: &str) {
        for (&(boot, producer, seq), index) in &self.durable {
            let found = entries.get(usize::try_from(*index).unwrap()).map(|entry| &*entry.bytes);
            let told = event(boot, producer, seq);
            assert_eq!(
                found.map(String::from_utf8_lossy),
                Some(String::from_utf8_lossy(&told)),
                "{what}: lost {boot}/{producer}/{seq}"
            );
        }
        let mut times = BTreeMap::new();
        for entry in entries {
            *times.entry(&*entry.bytes).or_insert(0_u32) += 1;
        }
        assert!(times.values().all(|times| *times == 1), "{what}: an event is there twice");
        for &(boot, producer, seq) in &self.refused {
            let there = times.contains_key(&*event(boot, producer, seq));
            assert!(!there, "{what}: {boot}/{producer}/{seq} was refused and is there");
        }
    }
}

/// Opens it, as the tests do.
pub fn open(directory: &Path) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(directory, Options::new(signer(), Arc::new(SystemClock::new())))
}

/// Verifies it offline.
pub fn verify(path: &Path, known: &[Checkpoint]) -> Result<Verified, VerifyError> {
    let key = signer().verifier_key();
    assert_eq!(key.name(), ORIGIN);
    directory(path, &key, known, &mut |_, _| {}, &mut |_| {})
}

/// All of its entries.
pub fn read(log: &EmbeddedLog) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    while (entries.len() as u64) < log.size() {
        let more = log.read(entries.len() as u64, 4_096, 1 << 20).unwrap();
        assert!(!more.is_empty());
        entries.extend(more);
    }
    entries
}
