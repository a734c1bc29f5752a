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
    /// Another agent has these pins.
    #[error(
        "another agent runs by the pins in {0}: stop it first (in a container too), or give this one a directory of its own (`pins`)"
    )]
    InUse(PathBuf),
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

/// What the loader puts where a program reads a field that it didn't find in the kernel's types, as the verifier tells it.
const FIELD_NOT_FOUND: &str = "invalid func unknown#195896080";

/// All causes in one line; of a verifier's log the last lines before its statistics, which say why.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = inner.source();
    }
    let why = reason(&said);
    if said.contains(FIELD_NOT_FOUND) {
        format!(
            "this kernel's types lack a field that the program reads, which needs a newer version of it: {why}"
        )
    } else {
        why
    }
}

/// The first line, and the last that give a reason.
fn reason(said: &str) -> String {
    const LINES: usize = 4;
    let is_statistics =
        |line: &&str| line.starts_with("verification time ") || line.starts_with("processed ");
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = lines.iter().position(is_statistics).unwrap_or(lines.len());
    let lines = lines.get(..end).unwrap_or_default();
    let tail = lines.len().saturating_sub(LINES).max(1);
    let mut kept: Vec<&str> = lines.first().into_iter().copied().collect();
    kept.extend(lines.get(tail..).unwrap_or_default());
    kept.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 7.3 said it of programs that read a field by its name in earlier ones.
    const LOG: &str = "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22). Verifier output: 0: R1=ctx() R10=fp0
0: (79) r6 = *(u64 *)(r1 +0)
; climb_from(climb, alias ? (void *)alias - bpf_core_field_offset(struct dentry, d_u.d_alias) : 0, 0); @ judge.h:126
317: (b4) w2 = 0                      ; R2=0
321: (85) call unknown#195896080
invalid func unknown#195896080
verification time 1982108 usec
stack depth max 0
subprog 0 (process_exec) main insns_self 376 insns_total 34151 stack 104
processed 34151 insns (limit 1000000) max_states_per_insn 20 total_states 1650 peak_states 3040 mark_read 0
";

    #[test]
    fn the_verifiers_reason_is_told_and_its_statistics_are_not() {
        let said = chain(&std::io::Error::other(LOG));
        assert!(said.starts_with("this kernel's types lack a field that the program reads"), "{said}");
        assert!(said.contains("d_u.d_alias) : 0, 0); @ judge.h:126 | "), "{said}");
        assert!(said.ends_with(" | invalid func unknown#195896080"), "{said}");
        // Whatever it complains of, and from whichever kernel.
        let older =
            LOG.replace("verification time 1982108 usec\n", "").replace("unknown#195896080", "R1 of it");
        let said = chain(&std::io::Error::other(older));
        assert!(said.starts_with("the BPF_PROG_LOAD syscall"), "{said}");
        assert_eq!(chain(&std::io::Error::other("no\n\nlog")), "no | log");
    }
}
