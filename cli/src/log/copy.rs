//! `custody log backup` and `restore`: a data directory, copied whole or brought up to date, and verified on its way.
//!
//! The order makes a copy of a running log consistent: the checkpoint is read first, and it only covers what is durable;
//! a recording is anchored only after its bytes were, so files that are copied after the checkpoint hold at least what
//! the entries below it say of them. What a copy holds is checked against the key before it is sealed.

use crate::log::key;
use crate::progress;
use crate::verify::{Report, check_recordings};
use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::log::embedded::import::Import;
use custody_core::log::{Checkpoint, VerifierKey, durable, verify as log_verify};
use custody_core::recording::recording_path;
use custody_core::state::State;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The file in a log's directory that says what it was put back from; `custodyd` tells it in the log and removes it.
const RESTORED: &str = "restored";
/// Directories of a data directory that hold secrets.
const SECRET: [&str; 2] = ["keys", "secrets"];
/// Directories that are copied as they are.
const PUBLIC: [&str; 1] = ["ca"];

/// `custody log backup`
#[derive(Args)]
pub struct Backup {
    /// The data directory; its custodyd may run
    #[arg(long)]
    data: PathBuf,
    /// Where to: a new folder, or that of an earlier backup, which is brought up to date
    #[arg(long, short)]
    output: PathBuf,
    /// The log's verifier key; the one pinned at login if left out
    #[arg(long)]
    key: Option<String>,
    /// With private keys and password hashes: who has such a backup has Custody
    #[arg(long)]
    with_keys: bool,
}

/// Runs `custody log backup`.
pub fn backup(args: &Backup) -> anyhow::Result<()> {
    let key = key(args.key.as_deref())?;
    let copied = copy("custody log backup", &args.data, &args.output, &key, args.with_keys)?;
    println!("{} is a copy of the log {}.", args.output.display(), copied.origin);
    println!("  events       {} ({} of them new)", copied.size, copied.new);
    println!("  recordings   {} files copied", copied.files);
    if !args.with_keys {
        println!("  keys         not in it: back up {} apart, and safely", args.data.join("keys").display());
    }
    Ok(())
}

/// Puts the backup in the folder `backup` back into the data directory `data`.
pub fn put_back(backup: &Path, data: &Path, pinned: Option<&str>) -> anyhow::Result<()> {
    let has_keys = backup.join(SECRET[0]).is_dir();
    let copied = copy("custody log restore BACKUP", backup, data, &key(pinned)?, has_keys)?;
    let told = data.join("log").join(RESTORED);
    durable::write_file(&told, b"backup\n", 0o600)
        .with_context(|| format!("{} can't be written", told.display()))?;
    println!("The log {} is back in {}: {} events.", copied.origin, data.display(), copied.size);
    println!(
        "What came after the backup isn't in it. custodyd asks the witnesses before it goes on; without one nobody"
    );
    println!("can say what is missing. Their copy brings it back: custody log recover --from-witness");
    if !has_keys {
        println!(
            "The backup has no keys: put {} back before you start custodyd.",
            data.join("keys").display()
        );
    }
    Ok(())
}

struct Copied {
    origin: String,
    size: u64,
    /// How many entries the copy hadn't before.
    new: u64,
    /// How many recordings were copied.
    files: u64,
}

/// Copies as the command `what`. Whatever fails, what isn't sealed is taken back, that of an earlier try as well.
fn copy(what: &str, from: &Path, to: &Path, key: &VerifierKey, with_keys: bool) -> anyhow::Result<Copied> {
    let error = match copy_as(what, from, to, key, with_keys) {
        Ok(copied) => return Ok(copied),
        Err(error) => error,
    };
    super::take_back(&to.join("log"), key)
        .with_context(|| format!("{error:#}; and what was copied can't be taken back"))?;
    Err(error)
}

fn copy_as(what: &str, from: &Path, to: &Path, key: &VerifierKey, with_keys: bool) -> anyhow::Result<Copied> {
    let (log, copy) = (from.join("log"), to.join("log"));
    if fs::canonicalize(from).ok().is_some_and(|from| fs::canonicalize(to).is_ok_and(|to| to == from)) {
        bail!("{} can't be copied to itself", from.display());
    }
    let cosigned = read(&log.join("cosigned"))?;
    let note = read(&log.join("checkpoint"))?
        .with_context(|| format!("{} is no data directory: it has no signed log", from.display()))?;
    let trusted = trusted_keys(&log, key, &note)?;
    let signed_by =
        |note: &str| trusted.iter().find_map(|key| Some((Checkpoint::verify(note, key).ok()?, key)));
    let (checkpoint, newest) = signed_by(&note).with_context(|| {
        format!(
            "{} isn't signed by {key}, nor by a key that it handed over to",
            log.join("checkpoint").display()
        )
    })?;
    // An earlier copy may be from before a rotation of the keys.
    let known = read(&copy.join("checkpoint"))?;
    let sealed_by = known.as_deref().and_then(signed_by).map_or(newest, |(_, key)| key);
    let mut import = Import::begin(&copy, sealed_by, &mut |_, _, _| ())
        .with_context(|| format!("{} can't be gone on with", copy.display()))?
        .named(what);
    if import.is_unfinished() {
        // Nothing vouches for what an earlier try has copied, and copying it again costs little.
        import.rewind_to(import.own(), &mut |_, _, _| ())?;
    }
    let had = import.size();
    if had > checkpoint.size() {
        bail!(
            "{} has {had} events, {} has {}: nothing was changed",
            copy.display(),
            log.display(),
            checkpoint.size()
        );
    }
    let bar = progress::pieces("copying")?;
    let mut state = State::new();
    let mut failed = None;
    let verified = log_verify::directory(
        &log,
        key,
        std::slice::from_ref(&checkpoint),
        &mut |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        },
        &mut |entry| {
            if entry.index >= checkpoint.size() || failed.is_some() {
                return;
            }
            // What the fold makes of it only finds the recordings.
            let _order = state.apply(entry);
            if entry.index >= had
                && let Err(error) = import.push(entry.appended, &entry.bytes)
            {
                failed = Some(error);
            }
        },
    );
    bar.finish_and_clear();
    let done = verified
        .with_context(|| format!("{} isn't what was signed: it was not copied", log.display()))
        .and_then(|_| failed.map_or(Ok(()), |error| Err(error.into())))
        .and_then(|()| {
            import.seal(&checkpoint).with_context(|| format!("{} is another log", copy.display()))
        });
    if let Err(error) = done {
        // What was written and isn't sealed must not be taken for the log; what was here before stays.
        import.rewind_to(had, &mut |_, _, _| ())?;
        return Err(error);
    }
    if let Some(cosigned) = cosigned {
        durable::write_file(&copy.join("cosigned"), cosigned.as_bytes(), 0o644)?;
    }
    let files = copy_recordings(&state, &from.join("recordings"), &to.join("recordings"))?;
    for name in PUBLIC.iter().chain(SECRET.iter().filter(|_| with_keys)) {
        copy_tree(&from.join(name), &to.join(name))?;
    }
    let mut report = Report::default();
    let checked = check_recordings(&state, &to.join("recordings"), &mut report);
    report.print(&checked, false);
    checked?;
    Ok(Copied {
        origin: checkpoint.origin().to_owned(),
        size: checkpoint.size(),
        new: checkpoint.size() - had,
        files,
    })
}

/// The pinned key, and those that it handed over to if it doesn't sign any more.
fn trusted_keys(log: &Path, pinned: &VerifierKey, note: &str) -> anyhow::Result<Vec<VerifierKey>> {
    if Checkpoint::verify(note, pinned).is_ok() {
        return Ok(vec![pinned.clone()]);
    }
    let chain = log_verify::key_chain(log, pinned, note)?;
    // By the entries that it covers, and by no others.
    let _newest = chain.verify(note).with_context(|| {
        format!("{} isn't signed by a key that is trusted", log.join("checkpoint").display())
    })?;
    Ok(chain.trusted().to_vec())
}

/// A small text; `None` if there is no such file.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
    }
}

/// Copies the recordings that the log speaks of, as far as the copy hasn't got them whole.
fn copy_recordings(state: &State, from: &Path, to: &Path) -> anyhow::Result<u64> {
    let sessions: Vec<_> = state.sessions().iter().collect();
    let bar = progress::pieces("copying recordings")?;
    bar.set_length(sessions.len() as u64);
    let mut files = 0;
    for (id, session) in sessions {
        bar.inc(1);
        let made = id.made_at().nanos();
        let (source, target) = (recording_path(from, id.0, made), recording_path(to, id.0, made));
        let length = |path: &Path| fs::metadata(path).map(|meta| meta.len()).ok();
        let Some(here) = length(&source) else { continue };
        let sealed = session.recording.sealed.is_some();
        if sealed && length(&target) == Some(here) {
            continue;
        }
        copy_file(&source, &target)?;
        files += 1;
    }
    bar.finish_and_clear();
    Ok(files)
}

/// Copies files that the copy lacks or has otherwise, with their permissions.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let items = match fs::read_dir(from) {
        Ok(items) => items,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", from.display())),
    };
    for item in items {
        let item = item.with_context(|| format!("{} can't be read", from.display()))?;
        let (source, target) = (item.path(), to.join(item.file_name()));
        if item.file_type()?.is_dir() {
            copy_tree(&source, &target)?;
        } else if fs::read(&source)? != fs::read(&target).unwrap_or_default() {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

/// Copies one file durably: whole under its name, or not at all.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let parent = to.parent().unwrap_or(Path::new("."));
        durable::create_directories(parent)?;
        let unfinished = to.with_added_extension(durable::UNFINISHED);
        fs::copy(from, &unfinished)?;
        File::open(&unfinished)?.sync_all()?;
        durable::rename(&unfinished, to)
    };
    write().with_context(|| format!("{} can't be copied to {}", from.display(), to.display()))
}
