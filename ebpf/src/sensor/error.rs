//! What can go wrong with the sensor, each in a line that says what to do.

use std::path::{Path, PathBuf};

/// Why the sensor can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// The kernel or the loader refused.
    #[error("{what}: {why}")]
    Kernel {
        /// What was being done, to what.
        what: String,
        /// The kernel's answer, of the verifier's its last lines.
        why: String,
    },
    /// A file or a directory.
    #[error("{path}: {what}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Without these programs nothing is evidence.
    #[error(
        "this kernel can't watch sessions: {feature}: {why}; `custodyd node --check` says what to change"
    )]
    Missing {
        /// Which part.
        feature: &'static str,
        /// What it said.
        why: String,
    },
    /// It loads and attaches, and doesn't refuse.
    #[error("the self-test failed: {0}; no session may be opened on this node")]
    NotEnforcing(String),
    /// An option that can't be.
    #[error("a ring of {0} bytes can't be: it is a power of two, from {min} up", min = super::RING_BYTES_MIN)]
    Ring(u32),
    /// A rule that can't be kept.
    #[error("rule {id}: {why}")]
    Rule {
        /// Its number.
        id: u32,
        /// What is wrong with it.
        why: String,
    },
    /// Sessions need a policy that the kernel knows.
    #[error("policy {0} hasn't been set: set it before sessions are opened under it")]
    NoPolicy(u32),
    /// The numbers at the end are the sensor's own.
    #[error("policy {0} is reserved: number policies from 0 up")]
    ReservedPolicy(u32),
}

impl SensorError {
    pub(super) fn kernel(what: impl Into<String>, why: impl std::error::Error) -> SensorError {
        SensorError::Kernel { what: what.into(), why: chain(&why) }
    }

    pub(super) fn file(path: &Path, what: &'static str, source: std::io::Error) -> SensorError {
        SensorError::File { path: path.to_owned(), what, source }
    }
}

/// All causes in one line; of a verifier's log the last lines, which say why.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    const LINES: usize = 4;
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = inner.source();
    }
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = lines.len().saturating_sub(LINES).max(1);
    let mut kept: Vec<&str> = lines.first().into_iter().copied().collect();
    kept.extend(lines.get(tail..).unwrap_or_default());
    kept.join(" | ")
}
