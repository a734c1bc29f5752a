//! `custodyd new-epoch`: what is here goes on under another name, without entries that a witness has cosigned and that
//! are lost. A fork that is told instead of hidden: the old name ends, and the new log says why.

use crate::config::{Config, check_origin};
use crate::data::DataDir;
use crate::keys::Keyring;
use crate::restore::exchange::{Successor, no_log};
use crate::run::PROGRAM;
use anyhow::{Context as _, bail};
use custody_core::clock::{Clock, SystemClock};
use custody_core::event::log::EpochBegun;
use custody_core::event::{Actor, Draft, Event, Outcome, ProducerKind, producer};
use custody_core::log::embedded::import::{Import, finished};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::{Checkpoint, Log, Numbering, Producer, Signer as _, VerifierKey};
use custody_proxy::ca::store::{FileKeyStore, KeyStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries that are taken over at once.
const READ_ENTRIES: usize = 4_096;
const READ_BYTES: usize = 8 << 20;
const NOTE_BYTES_MAX: u64 = custody_core::log::note::NOTE_BYTES_MAX as u64;

/// Begins a new epoch of the log that `config` names, under `origin`. `lost` is a file with the checkpoint that covers
/// what is lost.
///
/// The new log is written beside the old one and takes its place with two renames; a crash before them changes nothing,
/// and one between them leaves `log.<old>` and `log.new`, which is said at the next start and finished by the next try.
pub async fn begin(config: &Config, origin: &str, reason: &str, lost: Option<&Path>) -> anyhow::Result<()> {
    check_origin(origin).map_err(anyhow::Error::msg)?;
    let data = DataDir::new(&config.data);
    if let Some(begun) = Successor::Epoch.waiting(&data)? {
        return finish(&data, origin, &begun);
    }
    if origin == config.origin {
        bail!(
            "the log is {origin} already: a new epoch needs a new name, so that nobody takes one for the other"
        );
    }
    if reason.trim().is_empty() {
        bail!("say why with --reason: the log will hold it for ever");
    }
    let (old, new) = (data.log(), Successor::Epoch.path(&data));
    if !data.is_begun() {
        return Err(no_log(&data));
    }
    let aside = aside(&data, &config.origin)?;
    let lost = lost.map(read_note).transpose()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store: Arc<dyn KeyStore> = Arc::new(FileKeyStore::open(&data.keys())?);
    let before = Arc::new(Keyring::open(Arc::clone(&store), &config.origin, data.checkpoint()?.as_ref())?);
    // The same key under the new name.
    let key = VerifierKey::new(origin, *before.verifier_key().public())?;
    let after = Arc::new(Keyring::open(store, origin, None)?);
    after.sign_with(&[key.to_string()])?;

    // What was being brought and nothing vouches for mustn't go on under any name.
    finished(&old)?;
    // What a crash left is put in order, and nobody else writes meanwhile. Its end may be lost.
    let mut previous = None;
    let log = Import::begin(&old, &before.verifier_key(), &mut |_, _, bytes| {
        if let Ok(event) = Event::parse(bytes)
            && event.producer.id == config.name
        {
            previous = Some(producer::Previous { boot: event.producer.boot, seq: event.producer.seq });
        }
    })?;
    let lost = lost.or_else(|| log.lost().map(ToString::to_string));
    // Of a try that was cut off while the old log had its place: it may have grown since.
    Successor::Epoch.remove(&data)?;
    let mut import = Import::begin(&new, &after.verifier_key(), &mut |_, _, _| {})?;
    while import.size() < log.size() {
        for entry in log.read(import.size(), READ_ENTRIES, READ_BYTES)? {
            import.push(entry.appended, &entry.bytes)?;
        }
    }
    let (size, root) = (import.size(), import.root());
    if root != log.root() {
        bail!("the copy isn't what was copied: is the disk in order? Nothing was changed");
    }
    import.seal(&Checkpoint::sign(size, root, &*after)?)?;
    drop(import);

    let begun = EpochBegun {
        lost,
        origin: origin.to_owned(),
        previous_origin: config.origin.clone(),
        reason: reason.to_owned(),
        root: root.to_base64(),
        size,
        verifier_key: key.to_string(),
    };
    let renamed = Arc::new(EmbeddedLog::open(&new, Options::new(after, Arc::clone(&clock)))?);
    let numbering = Numbering {
        log: Arc::clone(&renamed) as Arc<dyn Log>,
        clock,
        id: config.name.clone(),
        kind: ProducerKind::Log,
        previous,
        program: PROGRAM.to_owned(),
    };
    // The very next entry, in one batch with the numbering that begins.
    let first = Draft::new(Actor::system("custodyd"), begun).outcome(Outcome::Success);
    let producer = Producer::start(numbering, first).await?;
    let stopped = Draft::new(Actor::system("custodyd"), producer::Stopped {}).outcome(Outcome::Success);
    let _durable = producer.append(stopped).await?;
    renamed.close();
    drop((producer, renamed, log));

    Successor::Epoch.mark_whole(&data, origin)?;
    Successor::Epoch.take_place(&data, &aside)?;
    println!(
        "The log goes on as {origin} with its {size} entries; {} is as it was, in {}.",
        config.origin,
        aside.display()
    );
    told(origin, &key);
    Ok(())
}

/// Gives the new log the place that a try which was cut off has left empty.
fn finish(data: &DataDir, origin: &str, begun: &str) -> anyhow::Result<()> {
    if origin != begun {
        bail!(
            "a change to the origin {begun} was cut off before its last step: finish it first, with --origin {begun}"
        );
    }
    Successor::Epoch.get_name(data)?;
    println!("The change of epoch that was cut off is finished: the log goes on as {origin}.");
    let store: Arc<dyn KeyStore> = Arc::new(FileKeyStore::open(&data.keys())?);
    let keyring = Keyring::open(store, origin, data.checkpoint()?.as_ref())?;
    told(origin, &keyring.verifier_key());
    Ok(())
}

/// What comes next.
fn told(origin: &str, key: &VerifierKey) {
    println!("Its key, for whoever is to verify it from here on:\n  {key}");
    println!(
        "Next: set  origin = \"{origin}\"  in the configuration, give its witnesses the new key, and `custodyd run`."
    );
}

/// Where the old log is kept; refused if an earlier try left something there.
fn aside(data: &DataDir, origin: &str) -> anyhow::Result<PathBuf> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let aside = data.path().join(format!("log.{}", origin.chars().map(plain).collect::<String>()));
    if aside.exists() {
        bail!("{} is there already: move it away first", aside.display());
    }
    Ok(aside)
}

fn read_note(path: &Path) -> anyhow::Result<String> {
    let read = || -> std::io::Result<String> {
        if std::fs::metadata(path)?.len() > NOTE_BYTES_MAX {
            return Err(std::io::Error::other("it is too long for a checkpoint"));
        }
        std::fs::read_to_string(path)
    };
    let note = read().with_context(|| format!("{} can't be read", path.display()))?;
    custody_core::log::note::Note::parse(&note)
        .with_context(|| format!("{} is no checkpoint", path.display()))?;
    Ok(note)
}
