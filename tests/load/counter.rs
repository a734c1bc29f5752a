//! A loop that runs one numbered program after the other, until it is told to stop: the log has to have each number once.

use crate::process::Running;
use crate::servers::World;
use crate::servers::agent::nothing_is_missing;
use crate::wait::{self, DEADLINE};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// A loop on `web-1`, which outlives its session.
#[derive(Debug)]
pub struct Counter {
    /// The session that it runs in.
    pub ssh: Running,
    at: PathBuf,
    /// It goes on while this is there.
    goes: PathBuf,
    end: PathBuf,
}

impl Counter {
    /// Starts it; `pause` is what the shell does between two numbers, of which `$i` is the last.
    ///
    /// # Panics
    /// When ssh can't be started.
    #[must_use]
    pub fn start(world: &World, pause: &str) -> Self {
        let [at, goes, end] = ["at", "goes", "end"].map(|name| world.dir().join(name));
        std::fs::write(&goes, "").expect("the test's folder");
        let script = format!(
            "trap '' HUP; i=0; while [ -e {} ]; do i=$((i+1)); /bin/true number-$i || exit 9; echo $i >> {}; {pause}; done; echo $i >> {}",
            goes.display(),
            at.display(),
            end.display()
        );
        let mut ssh = world.proxied();
        ssh.arg("root@web-1.custody").arg(script);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { ssh: Running::start("a session that counts", &mut ssh), at, goes, end }
    }

    /// The last number that has run.
    #[must_use]
    pub fn at(&self) -> u64 {
        last(&self.at)
    }

    /// Waits until more than so many further numbers have run.
    ///
    /// # Panics
    /// When they haven't in time.
    pub fn goes_on(&self, numbers: u64) {
        let before = self.at();
        wait::until_true("the session goes on", DEADLINE, || self.at() > before + numbers);
    }

    /// Has the loop end, and checks that the log has each number once, and misses nothing, after so long at most.
    ///
    /// # Panics
    /// When it hasn't.
    pub fn all_is_told(&self, world: &World, within: Duration) {
        std::fs::remove_file(&self.goes).expect("the loop goes on");
        wait::until_true("the loop ends", DEADLINE, || last(&self.end) > 0);
        let last = last(&self.end);
        wait::until_true("the last number is in the log", within, || {
            let newest = world.admin.request("/v1/events?type=command.executed&order=desc&limit=5", &[]);
            newest.text().contains(&format!("number-{last}\""))
        });
        let mut told = BTreeMap::<String, u64>::new();
        world.admin.each_entry("type=command.executed", |entry| {
            let arguments = entry.event["data"]["arguments"].as_array();
            let arguments: Vec<_> = arguments.into_iter().flatten().filter_map(Value::as_str).collect();
            if arguments.get(1).is_some_and(|number| number.starts_with("number-")) {
                *told.entry(arguments.join(" ")).or_default() += 1;
            }
        });
        let wanted: BTreeMap<_, _> =
            (1..=last).map(|number| (format!("/bin/true number-{number}"), 1)).collect();
        assert_eq!(told, wanted);
        nothing_is_missing(world);
    }
}

/// It outlives its session, and what it writes could keep its folder from being removed.
impl Drop for Counter {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.goes));
    }
}

/// The last that a file of numbers has. It only grows: one that is written anew is empty for as long as the disk is busy.
fn last(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map(|(whole, _)| whole);
    whole.and_then(|whole| whole.lines().last()?.parse().ok()).unwrap_or_default()
}
