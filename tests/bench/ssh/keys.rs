//! Keystrokes in a terminal: from the key to its echo, with nothing else going on and beside a transfer.

use super::Plan;
use super::compare::{Question, Samples, at_most};
use super::stage::{GCM, Stage, Way};
use crate::table::Row;
use crate::usage;
use custody_tests::wait;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Keys of a round.
const KEYS: usize = 300;
/// From an echo to the next key.
const PAUSE: Duration = Duration::from_millis(5);
/// A transfer that has brought so many bytes runs as it will go on.
const FLOWING_BYTES: u64 = 32 << 20;

/// What goes on beside.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    /// A transfer on a connection of its own.
    Session,
    /// A transfer on another channel of the terminal's connection.
    Channel,
}

pub fn rows(stage: &Stage, plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for (beside, name, aim) in [
        (Beside::Nothing, "idle", at_most(0.85)),
        (Beside::Session, "beside a session's bulk", at_most(1.0)),
        (Beside::Channel, "beside a channel's bulk", None),
    ] {
        let (mut middle, mut late) = (Samples::default(), Samples::default());
        for round in 0..plan.rounds {
            for way in stage.three(round) {
                let mut trips = measured(stage, way, beside);
                trips.sort_by(f64::total_cmp);
                middle.add(way, trips[KEYS / 2]);
                late.add(way, trips[KEYS * 99 / 100]);
            }
        }
        for (samples, percentile, jumped) in [(middle, "p50", aim), (late, "p99", None)] {
            let what = format!("key {name}, {percentile}");
            rows.extend(samples.rows(&Question {
                what,
                unit: "µs",
                more_is_better: false,
                direct: None,
                jumped,
            }));
        }
    }
    rows
}

fn measured(stage: &Stage, way: Way, beside: Beside) -> Vec<f64> {
    stage.quiet();
    let socket = stage.dir().join("control");
    let transfer = match beside {
        Beside::Nothing => None,
        Beside::Session => Some(Transfer::start(stage, way, None)),
        Beside::Channel => Some(Transfer::start(stage, way, Some(&socket))),
    };
    let mut command = stage.client(way, "ssh", GCM);
    if matches!(beside, Beside::Channel) {
        command.arg("-S").arg(&socket);
    }
    let trips = round_trips(command.args(["-tt", &way.host(), "stty raw -echo; printf ready; exec cat"]));
    drop(transfer);
    trips
}

/// Microseconds of each key.
fn round_trips(command: &mut Command) -> Vec<f64> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh");
    let mut keys = child.stdin.take().expect("piped");
    let mut screen = child.stdout.take().expect("piped");
    let mut shown = [0; 5];
    screen.read_exact(&mut shown).expect("a terminal");
    assert_eq!(&shown, b"ready");
    let mut key = || {
        std::thread::sleep(PAUSE);
        let start = Instant::now();
        keys.write_all(b"x").expect("a terminal");
        screen.read_exact(&mut shown[..1]).expect("an echo");
        start.elapsed().as_secs_f64() * 1e6
    };
    let trips = (0..KEYS).map(|_| key()).collect();
    child.kill().expect("ssh");
    child.wait().expect("ssh");
    trips
}

/// A download without end, as long as this value lives.
struct Transfer(Child);

impl Transfer {
    /// Starts it, shares its connection by the socket `shared`, and waits until it flows.
    fn start(stage: &Stage, way: Way, shared: Option<&Path>) -> Self {
        let mut command = stage.client(way, "ssh", GCM);
        if let Some(socket) = shared {
            // It says each time that the keys don't come from a terminal.
            command.arg("-M").arg("-S").arg(socket).stderr(Stdio::null());
        }
        command.args([&way.host(), "cat /dev/zero"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("ssh");
        let pid = child.id();
        wait::until_true("the transfer flows", wait::DEADLINE, || usage::read_bytes(pid) > FLOWING_BYTES);
        Self(child)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // SIGTERM: a master that shares its connection takes its socket away.
        custody_tests::process::send(self.0.id(), rustix::process::Signal::TERM);
        drop(self.0.wait());
    }
}
