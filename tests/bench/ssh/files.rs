//! Files: a large one by `sftp`, many small ones by `scp -r`.

use super::compare::{Question, Samples};
use super::stage::{GCM, Stage, default_cipher};
use super::{Plan, TRANSFER_MAX, transfer};
use crate::table::Row;
use custody_tests::process::run;
use custody_tests::servers::sshd::path;
use std::path::Path;
use std::time::Duration;

/// Bytes of a small file.
const SMALL_BYTES: usize = 4096;
/// Rounds of small files: one is so long that a moment's disturbance is lost in it.
const SMALL_ROUNDS_MAX: usize = 2;

/// `put` and `get` of one large file.
pub fn large(stage: &Stage, plan: &Plan) -> Vec<Row> {
    let source = transfer::zeroes(stage.dir(), plan.mib);
    let copy = stage.dir().join("copy");
    let mut rows = Vec::new();
    for (cipher, cipher_name) in [(default_cipher().as_str(), "default cipher"), (GCM, "aes128-gcm")] {
        for verb in ["put", "get"] {
            let mut rates = Samples::default();
            for round in 0..plan.rounds {
                for way in stage.three(round) {
                    stage.quiet();
                    let mut command = stage.client(way, "sftp", cipher);
                    command.args(["-q", "-b", "-", &way.host()]);
                    let line = format!("{verb} {} {}\n", source.display(), copy.display());
                    let took = run(&mut command, line.as_bytes(), TRANSFER_MAX).ok().took;
                    let copied = std::fs::metadata(&copy).expect("the copy").len();
                    assert_eq!(copied, plan.mib << 20, "{way:?} copied something else");
                    std::fs::remove_file(&copy).expect("the copy");
                    rates.add(way, plan.mib as f64 / took.as_secs_f64());
                }
            }
            let what = format!("sftp {verb} of {} MiB, {cipher_name}", plan.mib);
            let question = Question { what, unit: "MiB/s", more_is_better: true, direct: None, jumped: None };
            rows.extend(rates.rows(&question));
        }
    }
    rows
}

/// Many small files, there and back.
pub fn small(stage: &Stage, plan: &Plan) -> Vec<Row> {
    let source = stage.dir().join("small");
    std::fs::create_dir(&source).expect("a folder");
    for n in 0..plan.files {
        std::fs::write(source.join(n.to_string()), [n as u8; SMALL_BYTES]).expect("a file");
    }
    let copy = stage.dir().join("copies");
    let mut rows = Vec::new();
    for up in [true, false] {
        let mut rates = Samples::default();
        for round in 0..plan.rounds.min(SMALL_ROUNDS_MAX) {
            for way in stage.three(round) {
                stage.quiet();
                let remote = |path: &Path| format!("{}:{}", way.host(), path.display());
                let mut command = stage.client(way, "scp", GCM);
                command.args(["-q", "-r"]);
                if up {
                    command.args([path(&source), &remote(&copy)]);
                } else {
                    command.args([&remote(&source), path(&copy)]);
                }
                let took: Duration = run(&mut command, b"", TRANSFER_MAX).ok().took;
                let copied = std::fs::read_dir(&copy).expect("the copies").count();
                assert_eq!(copied, plan.files, "{way:?} copied something else");
                std::fs::remove_dir_all(&copy).expect("the copies");
                rates.add(way, plan.files as f64 / took.as_secs_f64());
            }
        }
        let what = format!("scp -r of {} files {}", plan.files, if up { "up" } else { "down" });
        let question = Question { what, unit: "files/s", more_is_better: true, direct: None, jumped: None };
        rows.extend(rates.rows(&question));
    }
    rows
}
