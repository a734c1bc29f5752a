//! `custodyd restore --from SINK`: a log that has lost entries gets them back from the destinations that it was delivered
//! to, offline. What is put together is the log if the signed checkpoint says so; until then nothing is changed.
//!
//! The log is put together beside the old one and takes its place with two renames ([`exchange`]); a crash before them
//! changes nothing, and one between them leaves `log.damaged` and `log.restored`, which is said at the next start and
//! finished by the next `custodyd restore`. What was once put together whole is never thrown away.

mod disputes;
pub mod exchange;

use self::exchange::Successor;
use crate::config::Config;
use crate::data::DataDir;
use crate::keys::Keyring;
use crate::sinks;
use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::clock::{Clock, Nanos, SystemClock};
use custody_core::event::Timestamp;
use custody_core::log::embedded::import::{Import, ImportError, finished};
use custody_core::log::embedded::salvage::{Part, Salvage};
use custody_core::log::{Checkpoint, Signer as _, VerifierKey, durable, verify};
use custody_proxy::ca::store::{FileKeyStore, KeyStore};
use custody_sinks::restore::{Archive, Aside, Copied, Lacking, Walk, ready};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Before this there was no Custody: where a walk through a destination begins when nothing says when the log did.
const FIRST: Nanos = Nanos(1_704_067_200_000_000_000);
/// The log's clock may be ahead of this machine's.
const AHEAD: Duration = Duration::from_secs(86_400);
/// How long a destination may take to be made ready.
const READY: Duration = Duration::from_secs(60);
/// How many entries that can't be had are named.
const NAMED: usize = 20;
const RESTORING: &str = "restoring";
/// How much of the reason why a destination is waited for stands on the progress line, in characters.
const REASON_SHOWN: usize = 60;

/// `custodyd restore`
#[derive(Args)]
pub struct Restore {
    /// The configuration; its custodyd doesn't run
    #[arg(long)]
    config: PathBuf,
    /// A sink that gives back what it was delivered; may be given several times, and what one lacks another may have
    #[arg(long, required = true, value_name = "SINK")]
    from: Vec<String>,
    /// A file with a signed checkpoint, e.g. a witness's: needed where the log has lost its own
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The log's verifier key, where the keys are lost too
    #[arg(long)]
    key: Option<String>,
    /// When the log began, where it has lost its beginning: no destination is looked through before that
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
}

/// Runs `custodyd restore`.
pub async fn restore(args: Restore) -> anyhow::Result<()> {
    let config = Config::read(&args.config)?;
    let data = DataDir::new(&config.data);
    if let Some(from) = Successor::Restored.waiting(&data)? {
        Successor::Restored.get_name(&data)?;
        tell_finished(&data, &from);
        return Ok(());
    }
    data.create().with_context(|| format!("{} can't be made", data.path().display()))?;
    let key = key(&config, &data, args.key.as_deref())?;
    let (checkpoint, older) = checkpoints(&data, &key, args.checkpoint.as_deref())?;
    let log = data.log();
    let salvage = Salvage::begin(&log, key.name())?;
    let parts = salvage.parts(checkpoint.size());
    let missing: u64 = parts
        .iter()
        .map(|part| if let Part::Missing { indexes, .. } = part { indexes.end - indexes.start } else { 0 })
        .sum();
    println!(
        "{} of the {} entries that were signed are good in {}.",
        checkpoint.size() - missing,
        checkpoint.size(),
        log.display()
    );

    if missing == 0 && is_whole(&log, &key, &checkpoint)? {
        println!("Nothing is missing, and all of it is what was signed: nothing was changed.");
        return Ok(());
    }
    if let Some(from) = Successor::Restored.whole(&data)? {
        // Cut off just before the first rename.
        let beyond = salvage.beyond(checkpoint.size());
        if !is_that(&data, &key, &checkpoint, &older, beyond)? {
            bail!(
                "{} was put together for another state of this log than the one that was signed last: move it away, and \
                 restore again",
                Successor::Restored.path(&data).display()
            );
        }
        drop(salvage);
        Successor::Restored.take_place(&data, &free(&data, "log.damaged")?)?;
        tell_finished(&data, &from);
        return Ok(());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (archives, is_redacted) = archives(&config, &data, &args.from, &clock).await?;
    let aside = free(&data, "log.damaged")?;
    let fresh = Successor::Restored.path(&data);
    // Of a try that was cut off before it was whole.
    Successor::Restored.remove(&data)?;
    let import = Import::begin(&fresh, &key, &mut |_, _, _| {})?;
    let bar = progress(checkpoint.size())?;
    let mut rebuilding = Rebuilding {
        salvage: &salvage,
        archives: &archives,
        names: &args.from,
        import,
        checkpoint: &checkpoint,
        ends: (args.since.map_or(FIRST, |since| Nanos(since.nanos())), clock.wall().saturating_add(AHEAD)),
        lacking: BTreeMap::new(),
        replaced: Vec::new(),
        pins: BTreeMap::new(),
        perhaps_more: None,
        bar,
    };
    let from = args.from.join(", ");
    let outcome = rebuilding.run(&older).await;
    rebuilding.bar.finish_and_clear();
    let beyond = match outcome {
        Ok(beyond) => beyond,
        Err(error) => {
            let lines = rebuilding.told(&from, is_redacted);
            drop(rebuilding);
            // What isn't the log must not lie about as one.
            Successor::Restored.remove(&data)?;
            return Err(error.context(lines));
        }
    };
    let Rebuilding { import, replaced, pins, .. } = rebuilding;
    if let Ok(cosigned) = std::fs::read(log.join("cosigned")) {
        durable::write_file(&fresh.join("cosigned"), &cosigned, 0o644)?;
    }
    drop((import, salvage));
    // Also for the next start, which tells where the log came back from.
    Successor::Restored.mark_whole(&data, &format!("sink {from}"))?;
    Successor::Restored.take_place(&data, &aside)?;
    println!(
        "The log {} is whole again in {}: {} entries, {missing} of them from {from}.",
        key.name(),
        log.display(),
        checkpoint.size() + beyond
    );
    if !replaced.is_empty() {
        println!("  replaced     {}: what was here isn't what was signed", listed(&replaced));
    }
    if !pins.is_empty() {
        let indexes: Vec<u64> = pins.into_keys().collect();
        println!(
            "  disputed     {}: there are several, and only these give what was signed",
            listed(&indexes)
        );
    }
    println!("  root         {}", checkpoint.root());
    println!("  as it was    {}: evidence of what happened; remove it when nobody needs it", aside.display());
    if matches!(parts.last(), Some(Part::Missing { .. })) {
        println!(
            "What was appended after the newest checkpoint was signed, a moment's worth, nobody vouches for, and it isn't \
             here. Should a sink have had it already, custodyd will say so, and `custodyd new-epoch` goes on without it."
        );
    }
    println!("Next: `custodyd run`, which says in the log where they came from.");
    Ok(())
}

/// Whether all that was signed is here as it was signed.
///
/// # Errors
/// Where it is, and a start refuses the log all the same: for what was brought here behind it, and cut off.
fn is_whole(log: &Path, key: &VerifierKey, checkpoint: &Checkpoint) -> anyhow::Result<bool> {
    let signed = std::slice::from_ref(checkpoint);
    if verify::directory(log, key, signed, &mut |_, _| {}, &mut |_| {}).is_err() {
        return Ok(false);
    }
    finished(log)?;
    Ok(true)
}

/// Whether what an earlier try has put together is what is to be restored now: all that was signed, and what is good here
/// behind that.
fn is_that(
    data: &DataDir,
    key: &VerifierKey,
    checkpoint: &Checkpoint,
    older: &[Checkpoint],
    beyond: u64,
) -> anyhow::Result<bool> {
    let path = Successor::Restored.path(data);
    let import = Import::begin(&path, key, &mut |_, _, _| {}).with_context(|| {
        format!(
            "what an earlier try put together can't be taken: move {} away, and restore again",
            path.display()
        )
    })?;
    let is_sealed = import
        .checkpoint()
        .is_some_and(|sealed| sealed.size() == checkpoint.size() && sealed.root() == checkpoint.root());
    if !is_sealed || import.size() < checkpoint.size() + beyond {
        return Ok(false);
    }
    for known in older {
        if import.root_at(known.size())? != known.root() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says that what was cut off is done.
fn tell_finished(data: &DataDir, from: &str) {
    println!(
        "The restoring that was cut off is finished: what it had put together, with entries from {from}, is the log in {}.",
        data.log().display()
    );
    println!("  as it was    beside it, as log.damaged: evidence of what happened");
    println!("Next: `custodyd run`, which says in the log where they came from.");
}

/// The key that is pinned, or else the one in the key store.
fn key(config: &Config, data: &DataDir, pinned: Option<&str>) -> anyhow::Result<VerifierKey> {
    if let Some(pinned) = pinned {
        let key = VerifierKey::parse(pinned)?;
        if key.name() != config.origin {
            bail!(
                "the key is of {}, the configuration says {}: which one is meant?",
                key.name(),
                config.origin
            );
        }
        return Ok(key);
    }
    let store: Arc<dyn KeyStore> = Arc::new(FileKeyStore::open(&data.keys())?);
    let signed = data.checkpoint()?;
    let keyring = Keyring::open(store, &config.origin, signed.as_ref());
    Ok(keyring.context("nothing says which key signs the log: give it with --key")?.verifier_key())
}

/// The checkpoint that covers most, and the others that have to fit it.
fn checkpoints(
    data: &DataDir,
    key: &VerifierKey,
    given: Option<&Path>,
) -> anyhow::Result<(Checkpoint, Vec<Checkpoint>)> {
    let mut known = Vec::new();
    let mut why = None;
    let mut paths = vec![data.log().join("checkpoint"), data.log().join("cosigned")];
    if Successor::Restored.whole(data)?.is_some() {
        // What was given to a try that was cut off counts.
        paths.push(Successor::Restored.path(data).join("checkpoint"));
    }
    for path in paths {
        // What is damaged here is what this is for.
        if let Ok(note) = std::fs::read_to_string(&path) {
            match Checkpoint::verify(&note, key) {
                Ok(checkpoint) => known.push(checkpoint),
                Err(error) => why = Some(format!("{} isn't believed: {error}", path.display())),
            }
        }
    }
    if let Some(path) = given {
        let note =
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        let checkpoint = Checkpoint::verify(&note, key);
        known.push(checkpoint.with_context(|| format!("{} isn't a checkpoint of this log", path.display()))?);
    }
    known.sort_by_key(Checkpoint::size);
    match known.pop() {
        Some(newest) if newest.size() > 0 => Ok((newest, known)),
        _ => bail!(
            "{}no signed checkpoint says what the log was: give one with --checkpoint FILE, from a witness or from \
             anybody who kept GET /log/checkpoint",
            why.map(|why| format!("{why}; ")).unwrap_or_default()
        ),
    }
}

/// The sinks of these names, ready to be read, and whether what they hold may be redacted.
async fn archives(
    config: &Config,
    data: &DataDir,
    names: &[String],
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Vec<Box<dyn Archive>>, bool)> {
    let (mut archives, mut is_redacted) = (Vec::new(), false);
    for name in names {
        let settings = config.sinks.iter().find(|sink| sink.name == *name).with_context(|| {
            let known: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
            format!("there is no sink {name} in the configuration: there are {}", known.join(", "))
        })?;
        is_redacted |= !settings.redact.is_empty();
        let archive = sinks::archive(settings, data, &config.origin, clock)
            .with_context(|| format!("the sink {name}"))?;
        let prepared = ready(&*archive, READY).await.map_err(anyhow::Error::msg);
        prepared.with_context(|| format!("the sink {name} can't be read"))?;
        archives.push(archive);
    }
    Ok((archives, is_redacted))
}

/// A name in the data directory that isn't taken.
fn free(data: &DataDir, name: &str) -> anyhow::Result<PathBuf> {
    let numbered = (2..100).map(|number| data.path().join(format!("{name}-{number}")));
    let mut paths = std::iter::once(data.path().join(name)).chain(numbered);
    paths
        .find(|path| !path.exists())
        .with_context(|| format!("move away the {name}-… in {}", data.path().display()))
}

fn progress(entries: u64) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::with_draw_target(Some(entries), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(
        "{msg} {wide_bar} {human_pos}/{human_len} events, {eta} left",
    )?);
    bar.set_message(RESTORING);
    Ok(bar)
}

/// Says on the progress line why a destination is waited for, or that it isn't any more.
fn waiting(bar: &ProgressBar, reason: Option<&str>) {
    match reason {
        Some(reason) => {
            let reason: String = reason.chars().take(REASON_SHOWN).collect();
            bar.set_message(format!("waiting: {reason}"));
        }
        None => bar.set_message(RESTORING),
    }
}

/// The log that is being put together.
struct Rebuilding<'a> {
    salvage: &'a Salvage,
    archives: &'a [Box<dyn Archive>],
    /// What the archives are called.
    names: &'a [String],
    import: Import,
    checkpoint: &'a Checkpoint,
    /// The first and the last moment at which an entry may have been appended.
    ends: (Nanos, Nanos),
    /// Entries that nobody has, and why.
    lacking: BTreeMap<u64, String>,
    /// Entries that are here and for which a destination's were taken, since together these are what was signed.
    replaced: Vec<u64>,
    /// The entries that are taken whatever else there is, since only with them it is what was signed.
    pins: BTreeMap<u64, Copied>,
    perhaps_more: Option<String>,
    bar: ProgressBar,
}

impl Rebuilding<'_> {
    /// Puts it together and seals it; gives how many entries behind the checkpoint were good here.
    async fn run(&mut self, older: &[Checkpoint]) -> anyhow::Result<u64> {
        let size = self.checkpoint.size();
        self.fill(0).await?;
        if self.import.root() != self.checkpoint.root() {
            // Every checksum holds, and something was replaced all the same: here, or there.
            self.settle().await?;
        }
        for known in older {
            if self.import.root_at(known.size())? != known.root() {
                bail!(
                    "the checkpoints of {} and {size} entries are of two different logs. Nothing was changed",
                    known.size()
                );
            }
        }
        self.import.seal(self.checkpoint)?;
        let beyond = self.salvage.beyond(size);
        self.keep(size..size + beyond)?;
        self.import.flush()?;
        Ok(beyond)
    }

    /// Takes all that was signed from `from` on: what is good here, and from the destinations what isn't.
    async fn fill(&mut self, from: u64) -> anyhow::Result<()> {
        let left = |indexes: Range<u64>| indexes.start.max(from)..indexes.end;
        for part in self.salvage.parts(self.checkpoint.size()) {
            match part {
                Part::Here(indexes) => self.keep(left(indexes))?,
                Part::Missing { indexes, appended } => self.fetch(left(indexes), appended, false).await?,
            }
        }
        if !self.lacking.is_empty() {
            bail!("nothing was changed");
        }
        Ok(())
    }

    /// Takes what is good here.
    fn keep(&mut self, indexes: Range<u64>) -> anyhow::Result<()> {
        let mut next = indexes.start;
        // Behind a hole there is nothing to put it on: only what else is lacking is of interest.
        while next < indexes.end && self.lacking.is_empty() {
            let entries = self.salvage.read(next, indexes.end)?;
            if entries.is_empty() {
                bail!("entry {next} was good a moment ago and isn't any more: is the disk in order?");
            }
            for entry in entries {
                next = entry.index + 1;
                match self.pins.get(&entry.index).cloned() {
                    Some(pinned) => self.take(entry.index, Ok(pinned), true)?,
                    None => self.push(entry.index, entry.appended, &entry.bytes)?,
                }
            }
        }
        Ok(())
    }

    /// Takes what the destinations have of `indexes`. With `or_here` they are believed first, and what is here fills
    /// what they lack.
    async fn fetch(
        &mut self,
        indexes: Range<u64>,
        appended: (Nanos, Nanos),
        or_here: bool,
    ) -> anyhow::Result<()> {
        let mut walk = Walk::new(self.archives, self.within(appended));
        let (mut aside, mut is_over) = (Aside::default(), false);
        let mut expected = indexes.start;
        while expected < indexes.end {
            let after = self.import.last_appended();
            let judged = match self.pins.get(&expected) {
                Some(pinned) => {
                    drop(aside.take(expected, after));
                    Some(Ok(pinned.clone()))
                }
                None if is_over => Some(aside.take(expected, after)),
                None => aside.next(expected, after),
            };
            if let Some(judged) = judged {
                self.take(expected, judged, or_here)?;
                expected += 1;
                continue;
            }
            let shown = walk.next(&mut |reason: Option<&str>| waiting(&self.bar, reason)).await;
            let shown = shown.map_err(|reason| {
                anyhow::anyhow!(
                    "entry {expected} and what comes after it can't be read: {reason}. Nothing was changed"
                )
            })?;
            match shown {
                Some(shown) => aside.keep(shown, expected..indexes.end),
                None => is_over = true,
            }
            self.perhaps_more = self.perhaps_more.take().or_else(|| walk.perhaps_more().map(str::to_owned));
        }
        Ok(())
    }

    /// These times, both inclusive, as far as entries may have been appended then.
    fn within(&self, (since, until): (Nanos, Nanos)) -> Range<Nanos> {
        since.max(self.ends.0)..until.min(self.ends.1).saturating_add(Duration::from_nanos(1))
    }

    fn take(&mut self, index: u64, judged: Result<Copied, Lacking>, or_here: bool) -> anyhow::Result<()> {
        let here = if or_here { self.salvage.read(index, index + 1)?.pop() } else { None };
        match (judged, here) {
            (Ok(Copied { appended, bytes }), here) => {
                if here.is_some_and(|here| *here.bytes != *bytes) {
                    self.replaced.push(index);
                }
                self.push(index, appended, &bytes)
            }
            (Err(_), Some(here)) => self.push(index, here.appended, &here.bytes),
            (Err(lacking), None) => {
                let reason = match (&lacking, &self.perhaps_more) {
                    (Lacking::Absent, Some(why)) => format!("it doesn't show: {why}"),
                    _ => lacking.to_string(),
                };
                self.lacking.insert(index, reason);
                Ok(())
            }
        }
    }

    fn push(&mut self, index: u64, appended: Nanos, bytes: &[u8]) -> anyhow::Result<()> {
        if !self.lacking.is_empty() {
            return Ok(());
        }
        match self.import.push(appended, bytes) {
            Ok(_) => self.bar.set_position(self.import.size()),
            Err(ImportError::Entry { reason, .. }) => {
                self.lacking.insert(index, reason);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// One line: what nobody has.
    fn told(&self, from: &str, is_redacted: bool) -> String {
        if self.lacking.is_empty() {
            return format!("the log can't be restored from {from}");
        }
        let mut named: Vec<String> = self
            .lacking
            .iter()
            .take(NAMED)
            .map(|(index, reason)| format!("entry {index}: {reason}"))
            .collect();
        if self.lacking.len() > NAMED {
            named.push(format!("and {} more", self.lacking.len() - NAMED));
        }
        let hint = if is_redacted { " (what the sink redacts can't be had from it)" } else { "" };
        format!(
            "{from} lacks {} of the entries that are missing here{hint}: {}",
            self.lacking.len(),
            named.join("; ")
        )
    }
}

fn listed(indexes: &[u64]) -> String {
    let mut named: Vec<String> = indexes.iter().take(NAMED).map(u64::to_string).collect();
    if indexes.len() > NAMED {
        named.push(format!("and {} more", indexes.len() - NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests;
