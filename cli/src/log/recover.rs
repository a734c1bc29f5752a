//! `custody log recover --from-witness`: what a witness has and this directory hasn't is brought back, offline, under
//! the log's own signature and the witness's.

use crate::progress;
use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::clock::{Clock, SystemClock};
use custody_core::log::embedded::OpenError;
use custody_core::log::embedded::import::{Import, ImportError, finished};
use custody_core::log::tree::verify_consistency;
use custody_core::log::{Checkpoint, CosignerKey, Log as _, VerifierKey, durable};
use custody_witness::copy::first_difference;
use custody_witness::inspect::AHEAD_MAX;
use custody_witness::origin_hash;
use custody_witness::source::{Source, http_client};
use std::path::{Path, PathBuf};

/// The note for the next `custodyd run`: what the log came back from.
const RESTORED: &str = "restored";

/// `custody log recover`
#[derive(Args)]
pub struct Recover {
    /// The witness's URL, as the log's configuration has it
    #[arg(long, value_name = "URL")]
    from_witness: String,
    /// The log's verifier key, as `custodyd init` printed it
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The witness's verifier key
    #[arg(long, value_name = "KEY")]
    witness: String,
    /// The data directory, of a custodyd that doesn't run
    #[arg(long)]
    data: PathBuf,
    /// A file with the token that lets the witness's copy be read
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// A PEM file with the authorities that the witness's certificate is checked against
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Bring nothing back: take back what a try that was cut off has brought, and have the log as it was before it
    #[arg(long)]
    give_up: bool,
}

/// What was held against what the witness has cosigned, and isn't that.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refuted(String);

/// Runs `custody log recover`.
///
/// What is here must be the beginning of what the witness has. Nothing is changed before that is known. Until what was
/// fetched is held against what the witness has cosigned, a note beside it keeps the log from being opened: killed, or
/// without an answer, this goes on with it the next time. What is shown to be wrong is taken back, and so it is when a person
/// gives it up.
pub async fn recover(args: Recover) -> anyhow::Result<()> {
    let key = VerifierKey::parse(&args.key)?;
    let log = args.data.join("log");
    if args.give_up {
        return give_up(&log, &key);
    }
    let Err(error) = bring_back(&args, &key, &log, &SystemClock::new()).await else { return Ok(()) };
    if is_refuted(&error) {
        super::take_back(&log, &key)
            .with_context(|| format!("{error:#}; and what was brought can't be taken back"))?;
        return Err(error);
    }
    match finished(&log) {
        Err(OpenError::Unfinished { .. }) => Err(error.context(
            "not all was brought back; what was is kept, and the log stays closed: the same command goes on with it, and with \
             --give-up takes it back",
        )),
        _ => Err(error),
    }
}

/// Whether what was brought is shown to be wrong. Whatever else fails, it may well be right, and be most of what is missing.
fn is_refuted(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refuted>().is_some()
        || matches!(
            error.downcast_ref::<ImportError>(),
            Some(ImportError::Entry { .. } | ImportError::Root { .. })
        )
}

/// Takes back what a try that was cut off has brought.
fn give_up(log: &Path, key: &VerifierKey) -> anyhow::Result<()> {
    if finished(log).is_ok() {
        println!("There is nothing to give up: {} holds nothing that was cut off.", log.display());
        return Ok(());
    }
    super::take_back(log, key)?;
    println!("What was brought is taken back: the log is as it was before.");
    Ok(())
}

async fn bring_back(args: &Recover, key: &VerifierKey, log: &Path, clock: &dyn Clock) -> anyhow::Result<()> {
    let witness = CosignerKey::parse(&args.witness)?;
    let token = match &args.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("the token in {} can't be read", path.display()))?,
        ),
        None => None,
    };
    let url = format!("{}/{}", args.from_witness.trim_end_matches('/'), origin_hash(key.name()));
    let source = Source::new(http_client(args.ca.as_deref())?, &url, token.as_deref())?;

    let note = source.checkpoint().await?;
    let checkpoint = Checkpoint::verify(&note, key).context("what the witness has isn't this log")?;
    let cosigned = witness.verify(checkpoint.note()).context("what the witness has isn't cosigned by it")?;
    let mut import = Import::begin(log, key, &mut |_, _, _| {})?.named("custody log recover --from-witness");
    let (ours, theirs) = (import.own(), checkpoint.size());
    if ours >= theirs {
        if import.is_unfinished() {
            import.rewind_to(ours, &mut |_, _, _| {})?;
        }
        if import.root_at(theirs)? != checkpoint.root() {
            bail!(other_history(&import, &source, theirs).await);
        }
        if let Some(lost) = import.lost() {
            bail!("{}", still_lost(witness.name(), ours, lost));
        }
        println!(
            "Nothing is missing: the witness {} has cosigned {theirs} entries, here are {ours}.",
            witness.name()
        );
        return Ok(());
    }
    // What was fetched before this was cut off is gone on with, if it is what the witness has.
    if import.size() > ours
        && (import.size() > theirs || !is_beginning(&import, &source, &checkpoint).await?)
    {
        import.rewind_to(ours, &mut |_, _, _| {})?;
    }
    if !is_beginning(&import, &source, &checkpoint).await? {
        bail!(other_history(&import, &source, theirs).await);
    }
    if let Err(error) = fetch(&mut import, &source, theirs, clock).await {
        let is_kept = import.is_unfinished() && !is_refuted(&error);
        return Err(if is_kept { error } else { error.context("nothing was brought back") });
    }
    if import.root() != checkpoint.root() {
        let line = "what the witness serves isn't what it has cosigned: nothing of it was kept";
        bail!(Refuted(line.to_owned()));
    }
    if let Some(lost) = import.lost().filter(|lost| lost.size() > theirs) {
        let line = still_lost(witness.name(), theirs, lost);
        import.flush()?;
        bail!("{} entries were brought back, but {line}", theirs - ours);
    }
    // First the note: if this is cut off in between, the log says one time too many that it was brought back.
    durable::write_file(&log.join(RESTORED), b"witness\n", 0o600)
        .context("the note for custodyd can't be left")?;
    import.seal(&checkpoint)?;
    println!("{} entries were brought back: {theirs} are here now.", theirs - ours);
    println!("  cosigned by  {} at {}", witness.name(), cosigned.at());
    println!("  root         {}", checkpoint.root());
    println!("Next: `custodyd run`, which says in the log that they came from a witness.");
    Ok(())
}

/// Whether what is here is a beginning of what the witness has cosigned.
async fn is_beginning(import: &Import, source: &Source, checkpoint: &Checkpoint) -> anyhow::Result<bool> {
    let (here, theirs) = (import.size(), checkpoint.size());
    let proof = source.consistency(here, theirs).await?;
    Ok(verify_consistency(here, &import.root(), theirs, &checkpoint.root(), &proof))
}

/// Fetches what is missing of the first `size` entries. Nothing vouches for it yet.
async fn fetch(import: &mut Import, source: &Source, size: u64, clock: &dyn Clock) -> anyhow::Result<()> {
    let bar = progress::events("bringing back")?;
    bar.set_length(size);
    bar.set_position(import.size());
    while import.size() < size {
        for entry in source.next(import.size(), size).await? {
            // Times aren't under the signature, and what comes after is never earlier. It may well be this clock that is wrong: what
            // came before is kept.
            let ahead = entry.appended.saturating_since(clock.wall());
            if ahead > AHEAD_MAX {
                bail!(
                    "the witness says that entry {} was appended {} s in the future: is the clock of this machine right?",
                    import.size(),
                    ahead.as_secs()
                );
            }
            import.push(entry.appended, &entry.bytes)?;
        }
        bar.set_position(import.size());
    }
    bar.finish_and_clear();
    Ok(())
}

/// One line: what even the witness doesn't have.
fn still_lost(witness: &str, have: u64, lost: &Checkpoint) -> String {
    format!(
        "the log has signed {} entries, and the witness {witness} has no more than the {have} that are here: go on without \
         the others with `custodyd new-epoch`",
        lost.size()
    )
}

/// Why what is here can't be completed with what the witness has.
async fn other_history(import: &Import, source: &Source, size: u64) -> Refuted {
    let mut line = "what is here isn't the beginning of what the witness has".to_owned();
    if let Some(copy) = import.log()
        && let Ok(Some(index)) = first_difference(&copy, source, size).await
    {
        line = format!("{line}: entry {index} is the first that differs (of {} here)", copy.size());
    }
    Refuted(format!(
        "{line}. Nothing was changed: keep this directory as evidence, and recover into an empty one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::stub::{self, Answer};
    use custody_core::clock::Nanos;
    use custody_core::event::log::Read;
    use custody_core::event::{Actor, Draft, Family, ProducerKind, ProducerRef, Timestamp, canonical};
    use custody_core::log::embedded::{EmbeddedLog, Options};
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::tile::{self, Tile};
    use custody_core::log::{Cosigner, Entry, ProducerKey, Record, Signer, times};
    use std::sync::{Arc, Mutex};
    use tempfile::TempDir;
    use uuid::Uuid;

    const ORIGIN: &str = "custody.test/log";
    /// The log's own, before the witness is asked.
    const OWN: u64 = 10;
    /// More than the bundles that are fetched at once, and they are more than what is written at once.
    const ALL: u64 = 1_100;

    fn signer() -> Arc<dyn Signer> {
        Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap())
    }

    fn witness() -> Cosigner {
        Cosigner::new(Arc::new(Ed25519Signer::from_seed("witness.test", &[9; 32]).unwrap()))
    }

    fn event(seq: u64, query: &str) -> Vec<u8> {
        let producer =
            ProducerRef { boot: Uuid::from_u128(1), id: "custody".into(), kind: ProducerKind::Log, seq };
        let draft =
            Draft::new(Actor::system("test"), Read { purpose: "search".into(), query: query.repeat(5_000) });
        canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(1))).unwrap()
    }

    fn open(directory: &Path) -> Result<EmbeddedLog, OpenError> {
        EmbeddedLog::open(directory, Options::new(signer(), Arc::new(SystemClock::new())))
    }

    /// What the witness has, and a data directory that has the beginning of it.
    struct Place {
        scratch: TempDir,
        entries: Vec<Entry>,
        theirs: Arc<EmbeddedLog>,
    }

    impl Place {
        fn new() -> Place {
            let scratch = TempDir::new().unwrap();
            let theirs = open(&scratch.path().join("witness")).unwrap();
            for seq in 0..ALL {
                let producer = ProducerKey { id: "custody".into(), boot: Uuid::from_u128(1), seq };
                let record = Record { producer, tag: Family::Log.tag(), bytes: event(seq, "x").into() };
                drop(theirs.submit(vec![record]).unwrap());
            }
            theirs.close();
            let entries = theirs.read(0, usize::MAX, usize::MAX).unwrap();
            let place = Place { scratch, entries, theirs: Arc::new(theirs) };
            let mut import = place.begin();
            place.entries[..OWN as usize].iter().for_each(|entry| {
                import.push(entry.appended, &entry.bytes).unwrap();
            });
            import.seal(&Checkpoint::sign(OWN, import.root(), &*signer()).unwrap()).unwrap();
            place
        }

        fn log(&self) -> PathBuf {
            self.scratch.path().join("data/log")
        }

        fn begin(&self) -> Import {
            Import::begin(&self.log(), &signer().verifier_key(), &mut |_, _, _| {}).unwrap()
        }

        /// Of a witness that gives of each path what `meddle` makes of it, or closes the connection.
        async fn recover(
            &self,
            meddle: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
        ) -> anyhow::Result<()> {
            recover(self.args(meddle)).await
        }

        fn args(&self, meddle: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + 'static) -> Recover {
            let mut checkpoint = self.theirs.checkpoint();
            let cosigned = witness().cosign(checkpoint.note(), Timestamp::from_seconds(1)).unwrap();
            checkpoint.put_line(cosigned.line().clone());
            let (log, prefix) = (Arc::clone(&self.theirs), format!("/{}/", origin_hash(ORIGIN)));
            let url = stub::serve(move |path| {
                let path = path.strip_prefix(&prefix).unwrap();
                let bytes = match (path, times::parse_path(path)) {
                    ("checkpoint", _) => checkpoint.to_string().into_bytes(),
                    (_, Some(bundle)) => times::render(&*log, bundle, ALL).unwrap().unwrap(),
                    _ => tile::render(&*log, Tile::parse(path).unwrap(), ALL).unwrap().unwrap(),
                };
                meddle(path, bytes).map_or(Answer::Nothing, Answer::Body)
            });
            Recover {
                from_witness: url,
                key: signer().verifier_key().to_string(),
                witness: witness().key().to_string(),
                data: self.scratch.path().join("data"),
                token_file: None,
                ca: None,
                give_up: false,
            }
        }

        /// A try was killed in the middle; so many entries are here. They are what the witness has, or aren't.
        fn cut_off(&self, genuine: bool) -> u64 {
            let mut import = self.begin().named("custody log recover --from-witness");
            for entry in &self.entries[OWN as usize..] {
                let other = event(entry.index, "z");
                let bytes = if genuine { &entry.bytes[..] } else { &other[..] };
                import.push(entry.appended, bytes).unwrap();
            }
            drop(import);
            self.assert_unfinished()
        }

        /// The log isn't opened with what lies there. Gives how many entries that are.
        fn assert_unfinished(&self) -> u64 {
            assert!(matches!(open(&self.log()), Err(OpenError::Unfinished { own: OWN, .. })));
            self.begin().size()
        }

        /// The log is as it was before anything was tried.
        fn assert_untouched(&self) {
            let log = open(&self.log()).unwrap();
            assert_eq!((log.size(), log.checkpoint().size()), (OWN, OWN));
            assert_eq!(log.read(0, usize::MAX, usize::MAX).unwrap(), self.entries[..OWN as usize]);
        }

        fn assert_whole(&self) {
            let log = open(&self.log()).unwrap();
            assert_eq!((log.size(), log.root(ALL).unwrap()), (ALL, self.theirs.root(ALL).unwrap()));
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_brought_back() {
        let place = Place::new();
        place.recover(|_, bytes| Some(bytes)).await.unwrap();
        place.assert_whole();
    }

    /// Times that are an hour later.
    fn ahead(bytes: &[u8], width: u16) -> Option<Vec<u8>> {
        let times = times::parse(bytes, width).unwrap();
        let later = times.iter().map(|Nanos(time)| time + 3_600_000_000_000);
        Some(later.flat_map(u64::to_be_bytes).collect())
    }

    fn breaks_off(path: &str, bytes: Vec<u8>) -> Option<Vec<u8>> {
        // The fifth bundle is asked for when the first four have been written.
        if path.starts_with("tile/entries/004") { None } else { Some(bytes) }
    }

    #[tokio::test]
    async fn a_witness_that_breaks_off_in_the_middle_leaves_the_log_closed_and_the_next_try_goes_on() {
        let place = Place::new();
        let error = place.recover(breaks_off).await.unwrap_err();
        assert!(format!("{error:#}").contains("the same command goes on with it"), "{error:#}");
        let here = place.assert_unfinished();
        assert!(here > 256, "{here}");
        let asked: Arc<Mutex<Vec<u64>>> = Arc::default();
        let notes = Arc::clone(&asked);
        let watched = move |path: &str, bytes: Vec<u8>| {
            if let Some(tile) = Tile::parse(path).filter(|tile| tile.level.is_none()) {
                notes.lock().unwrap().push(tile.number);
            }
            Some(bytes)
        };
        place.recover(watched).await.unwrap();
        place.assert_whole();
        let asked = asked.lock().unwrap();
        assert!(asked.iter().all(|number| *number >= here / 256), "{here} were here: {asked:?}");
    }

    #[tokio::test]
    async fn a_witness_that_breaks_off_at_once_leaves_the_log_as_it_was() {
        let place = Place::new();
        let error = place.recover(|path, bytes| (path == "checkpoint").then_some(bytes)).await.unwrap_err();
        assert!(!format!("{error:#}").contains("goes on with it"), "{error:#}");
        place.assert_untouched();
    }

    /// What was brought is worth hours, perhaps, and an argument is soon put right.
    #[tokio::test]
    async fn what_was_brought_is_kept_whatever_a_later_try_is_told() {
        let place = Place::new();
        let here = place.cut_off(true);
        let args = || place.args(|_, bytes| Some(bytes));
        let other = Cosigner::new(Arc::new(Ed25519Signer::from_seed("other.test", &[8; 32]).unwrap()));
        for wrong in [
            Recover { token_file: Some(place.scratch.path().join("not there")), ..args() },
            Recover { ca: Some(place.scratch.path().join("not there")), ..args() },
            Recover { from_witness: "http://127.0.0.1:9".to_owned(), ..args() },
            Recover { witness: other.key().to_string(), ..args() },
        ] {
            let error = recover(wrong).await.unwrap_err();
            assert!(format!("{error:#}").contains("with --give-up takes it back"), "{error:#}");
            assert_eq!(place.assert_unfinished(), here, "{error:#}");
        }
        recover(args()).await.unwrap();
        place.assert_whole();
    }

    #[tokio::test]
    async fn whoever_gives_a_try_up_has_the_log_as_it_was() {
        let place = Place::new();
        place.cut_off(true);
        // Nobody is asked.
        let nobody = || Recover {
            from_witness: "http://127.0.0.1:9".to_owned(),
            give_up: true,
            ..place.args(|_, _| None)
        };
        recover(nobody()).await.unwrap();
        place.assert_untouched();
        recover(nobody()).await.unwrap();
        place.assert_untouched();
    }

    #[tokio::test]
    async fn entries_that_the_witness_has_not_cosigned_are_taken_back() {
        let place = Place::new();
        let lies = |path: &str, mut bytes: Vec<u8>| {
            if path.starts_with("tile/entries/") {
                let at = bytes.len() - 1_000;
                bytes[at] = b'y';
            }
            Some(bytes)
        };
        let error = place.recover(lies).await.unwrap_err();
        assert!(error.to_string().contains("isn't what it has cosigned"), "{error:#}");
        place.assert_untouched();
    }

    #[tokio::test]
    async fn a_time_of_appending_in_the_future_is_not_taken() {
        let ahead_from = |number: u64| {
            move |path: &str, bytes: Vec<u8>| {
                let Some(bundle) = times::parse_path(path).filter(|bundle| bundle.number >= number) else {
                    return Some(bytes);
                };
                ahead(&bytes, bundle.width)
            }
        };
        let place = Place::new();
        let error = place.recover(ahead_from(0)).await.unwrap_err();
        assert!(format!("{error:#}").contains("in the future"), "{error:#}");
        place.assert_untouched();
        // What came before is as good as ever, if it is this machine's clock that is wrong.
        let error = place.recover(ahead_from(4)).await.unwrap_err();
        assert!(format!("{error:#}").contains("in the future"), "{error:#}");
        let here = place.assert_unfinished();
        assert!(here > 256, "{here}");
        place.recover(|_, bytes| Some(bytes)).await.unwrap();
        place.assert_whole();
    }

    /// Killed in the middle: the log isn't opened with what lies there, and the next try finishes it, whatever that is.
    #[tokio::test]
    async fn a_try_that_was_cut_off_is_finished_by_the_next() {
        for genuine in [true, false] {
            let place = Place::new();
            place.cut_off(genuine);
            place.recover(|_, bytes| Some(bytes)).await.unwrap();
            place.assert_whole();
        }
    }
}
