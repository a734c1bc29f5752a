//! Tessera's log on POSIX files, in the same run: another C2SP log with the same producers.

use crate::log::appended;
use crate::table::Row;
use custody_tests::servers::golang;

const ROUNDS: usize = 3;
const SECONDS: &str = "2";

/// Durable appends a second, beside Tessera's.
pub fn rows() -> Vec<Row> {
    let row = |producers| Row {
        name: format!("durable appends/s, {producers} producers"),
        pairs: (0..ROUNDS).map(|_| (appended(producers), theirs(producers))).collect(),
        beside: "Tessera v1.0.4 on POSIX files",
        more_is_better: true,
        aim: None,
    };
    vec![row(1), row(64), row(1024)]
}

fn theirs(producers: usize) -> f64 {
    let directory = tempfile::tempdir().expect("a folder");
    let mut program = golang::tool("appends");
    let output = program.arg(directory.path()).args([&producers.to_string(), SECONDS]).output();
    let output = output.expect("setup built it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}
