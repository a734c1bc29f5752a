//! `custody log check`: what a start of `custodyd` would find in a data directory. Reads, and changes nothing.

use crate::verify::directory;
use crate::verify::report::Report;
use clap::Args;
use custody_core::log::embedded::import::finished;
use custody_core::state::State;
use serde_json::json;
use std::path::PathBuf;

/// `custody log check`
#[derive(Args)]
pub struct Check {
    /// A data directory, also of a running custodyd
    directory: PathBuf,
    /// The log's verifier key; the one pinned at login if left out
    #[arg(long)]
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Verifies the log and its recordings, and says what the fold makes of it.
pub fn check(args: &Check) -> anyhow::Result<()> {
    let key = super::key(args.key.as_deref())?;
    let mut report = Report::default();
    let outcome = directory::verify(&args.directory, &key, &[], &mut report).and_then(|state| {
        tell(&state, &mut report);
        // What is signed may be whole beside what nothing vouches for: a start refuses that.
        Ok(finished(&directory::log(&args.directory))?)
    });
    report.print(&outcome, args.json);
    outcome
}

fn tell(state: &State, report: &mut Report) {
    let (gaps, refused) = (state.producers().gaps(), state.refused().count());
    let (unknown, live) = (state.unknown().count(), state.sessions().live().count());
    report.line("missing", format_args!("{gaps} (gaps in producers' numbering)"));
    let unknown_gaps = state.producers().unknown_gaps();
    report.line("unknown gaps", format_args!("{unknown_gaps} (a producer had forgotten what it told)"));
    report.line("refused", format_args!("{refused} (in the log, and not applied)"));
    report.line("unknown", format_args!("{unknown} (of a newer version)"));
    report.line("sessions", format_args!("{live} without an end: the next start says their end"));
    let values =
        [("missing", gaps), ("unknown_gaps", unknown_gaps), ("refused", refused), ("unknown", unknown)];
    for (name, value) in values {
        report.value(name, json!(value));
    }
    report.value("live_sessions", json!(live));
}
