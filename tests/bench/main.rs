//! `make bench`: what Custody costs, beside the least that could do the same in the same run. Writes a table and
//! bench.json. Numbers from a busy or another machine can't be compared; the two columns of one run can.

mod cores;
mod environment;
mod growth;
mod log;
mod node;
mod replay;
mod search;
mod sinks;
mod ssh;
mod table;
mod tessera;
mod usage;

use table::Row;

fn main() {
    if let Ok(producers) = std::env::var(log::CHILD) {
        println!("{:.1}", log::appended(producers.parse().expect("a number")));
        return;
    }
    // `cargo bench` hands its own flags over; there is nothing to choose here.
    let mut rows: Vec<Row> = Vec::new();
    let only = std::env::var("CUSTODY_BENCH")
        .unwrap_or_else(|_| "log,tessera,growth,replay,search,sinks,ssh,node".to_owned());
    for part in only.split(',') {
        match part {
            "log" => rows.extend(log::appends()),
            "tessera" => rows.extend(tessera::rows()),
            "growth" => rows.extend(growth::rows()),
            "replay" => rows.extend(replay::rows()),
            "search" => rows.extend(search::rows()),
            "sinks" => rows.extend(sinks::rows()),
            "ssh" => rows.extend(ssh::rows()),
            "node" => rows.extend(node::rows()),
            other => {
                panic!(
                    "CUSTODY_BENCH={other}: log, tessera, growth, replay, search, sinks, ssh and node are there"
                )
            }
        }
    }
    println!("{}", table::text(&rows));
    let path = custody_tests::root().join("bench.json");
    std::fs::write(&path, table::json(&rows)).expect("bench.json");
    println!("written to {}", path.display());
}
