//! `make bench`: what Custody costs, beside the least that could do the same in the same run. Writes a table and
//! bench.json. Numbers from a busy or another machine can't be compared; the two columns of one run can.

mod log;
mod ssh;
mod table;

use table::Row;

fn main() {
    // `cargo bench` hands its own flags over; there is nothing to choose here.
    let mut rows: Vec<Row> = Vec::new();
    let only = std::env::var("CUSTODY_BENCH").unwrap_or_else(|_| "log,replay,ssh".to_owned());
    for part in only.split(',') {
        match part {
            "log" => rows.extend(log::appends()),
            "replay" => rows.push(log::replay()),
            "ssh" => rows.extend(ssh::rows()),
            other => panic!("CUSTODY_BENCH={other}: log, replay and ssh are there"),
        }
    }
    println!("{}", table::text(&rows));
    let path = custody_tests::root().join("bench.json");
    std::fs::write(&path, table::json(&rows)).expect("bench.json");
    println!("written to {}", path.display());
}
