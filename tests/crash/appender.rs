//! A process that does nothing but append: what the tests of this folder kill, starve and lie to.
//!
//! ```text
//! appender DIRECTORY [producers=1] [events=1] [batch=1] [segment_bytes=67108864] [boot=1] [step=0]
//! ```
//! Each producer appends `events` events in batches, and waits for each batch. It says, at once and a line each:
//!
//! ```text
//! opened <entries> <bytes cut> <bytes rewritten>
//! durable <producer> <seq> <index>       acknowledged
//! refused <producer> <seq> <why>         certainly not in the log
//! unknown <producer> <seq> <why>         perhaps in the log
//! signed <size> | unsigned <why>
//! ```
//! With `step=1` it says `ready` and waits for a line before it opens the log, and waits before each batch: the line
//! `sign` asks for a checkpoint, any other for the batch. The log's clock stands still then, so that it signs when it
//! is asked to: what the log's threads do is the same in each run.

mod events;

use custody_core::clock::{Clock, ManualClock, Nanos, SystemClock};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::{AppendError, Log, Pending, Receipt, Record, SubmitError};
use events::{record, signer};
use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Longer than the log waits between two signatures.
const SIGNATURE_DUE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Wanted {
    directory: PathBuf,
    producers: u64,
    events: u64,
    batch: u64,
    segment_bytes: u64,
    boot: u64,
    step: bool,
}

fn main() -> ExitCode {
    match wanted().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("appender: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wanted() -> Result<Wanted, String> {
    let mut words = std::env::args().skip(1);
    let directory = words.next().ok_or("which directory?")?.into();
    let mut wanted = Wanted {
        directory,
        producers: 1,
        events: 1,
        batch: 1,
        segment_bytes: 64 << 20,
        boot: 1,
        step: false,
    };
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: name=number"))?;
        let value: u64 = value.parse().map_err(|_| format!("{word}: not a number"))?;
        match name {
            "producers" => wanted.producers = value,
            "events" => wanted.events = value,
            "batch" => wanted.batch = value.max(1),
            "segment_bytes" => wanted.segment_bytes = value,
            "boot" => wanted.boot = value,
            "step" => wanted.step = value == 1,
            _ => return Err(format!("{word}: what is that?")),
        }
    }
    Ok(wanted)
}

fn run(wanted: Wanted) -> Result<(), String> {
    let still = Arc::new(ManualClock::new(Nanos(1_800_000_000_000_000_000)));
    let clock: Arc<dyn Clock> = if wanted.step { still.clone() } else { Arc::new(SystemClock::new()) };
    let options = Options { segment_bytes: wanted.segment_bytes, ..Options::new(signer(), clock) };
    if wanted.step {
        say(&"ready");
        let _go = asked();
    }
    let log = Arc::new(EmbeddedLog::open(&wanted.directory, options).map_err(|error| error.to_string())?);
    let found = log.recovery();
    say(&format_args!("opened {} {} {}", found.entries, found.cut_bytes, found.rewritten_bytes));
    if wanted.step {
        step(&log, &still, &wanted);
    } else {
        all_at_once(&log, &wanted)?;
    }
    log.close();
    Ok(())
}

/// One producer that does what it is told, until nobody tells it anything.
fn step(log: &EmbeddedLog, clock: &ManualClock, wanted: &Wanted) {
    let mut seq = 0;
    while let Some(line) = asked() {
        if line == "sign" {
            clock.advance(SIGNATURE_DUE);
            match log.sign_now().wait_blocking() {
                Ok(checkpoint) => say(&format_args!("signed {}", checkpoint.size())),
                Err(error) => say(&format_args!("unsigned {error}")),
            }
        } else {
            let answer = log.submit(batch(wanted, 0, seq)).map(Pending::wait_blocking);
            let _goes_on = report(0, seq..seq + wanted.batch, answer);
            seq += wanted.batch;
        }
    }
}

/// All producers side by side, each until its first failure.
fn all_at_once(log: &Arc<EmbeddedLog>, wanted: &Wanted) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let produce = |producer| {
            let (log, wanted) = (Arc::clone(log), wanted.clone());
            tokio::spawn(async move {
                let mut seq = 0;
                while seq < wanted.events {
                    let answer = match log.submit(batch(&wanted, producer, seq)) {
                        Ok(pending) => Ok(pending.await),
                        Err(error) => Err(error),
                    };
                    if !report(producer, seq..seq + wanted.batch, answer) {
                        return;
                    }
                    seq += wanted.batch;
                }
            })
        };
        let producers: Vec<_> = (0..wanted.producers).map(produce).collect();
        for producer in producers {
            producer.await.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

fn batch(wanted: &Wanted, producer: u64, first: u64) -> Vec<Record> {
    (first..first + wanted.batch).map(|seq| record(wanted.boot, producer, seq)).collect()
}

/// Says what became of a batch; whether it is in the log.
fn report(
    producer: u64,
    seqs: std::ops::Range<u64>,
    answer: Result<Result<Vec<Receipt>, AppendError>, SubmitError>,
) -> bool {
    let (word, why) = match answer {
        Ok(Ok(receipts)) => {
            for (seq, receipt) in seqs.zip(receipts) {
                say(&format_args!("durable {producer} {seq} {}", receipt.index));
            }
            return true;
        }
        Ok(Err(error)) if error.is_unknown() => ("unknown", error.to_string()),
        Ok(Err(error)) => ("refused", error.to_string()),
        Err(error) => ("refused", error.to_string()),
    };
    for seq in seqs {
        say(&format_args!("{word} {producer} {seq} {why}"));
    }
    false
}

/// A line to whoever listens, in one write. If nobody does any more, there is nobody to tell that.
fn say(line: &dyn Display) {
    let line = format!("{line}\n");
    let _unheard = std::io::stdout().lock().write_all(line.as_bytes());
}

/// The next line that is asked; `None` when nobody asks any more.
fn asked() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(1..) => Some(line.trim_end().to_owned()),
        _ => None,
    }
}
