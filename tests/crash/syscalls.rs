//! Each system call of an append, a rotation, a checkpoint and a recovery fails once with EIO, once with ENOSPC, and
//! dies once by SIGKILL, as Tessera's fault test does it: strace says which calls there are, and fails them.
//!
//! The log's writer has a thread of its own, and its clock stands still, so the calls are the same in each run.

use super::events::signer;
use super::ledger::{self, Ledger};
use super::stepping::{Stepping, Tracer};
use custody_core::log::{Checkpoint, Log as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;

/// What touches files. What only touches memory fails in ways of its own: the program dies, as by SIGKILL.
const TRACED: &str = "trace=%file,%desc";
const MEMORY: [&str; 2] = ["mmap", "munmap"];
/// A close gives the descriptor back whatever it says, and what was to be synced is synced before it.
const CAN_NOT_FAIL: [&str; 1] = ["close"];
/// Two appends, of which the second fills the segment; a checkpoint; an append into a new segment; a last checkpoint.
const STEPS: [&str; 4] = ["append", "append", "sign", "append"];
const SEGMENT_BYTES: &str = "segment_bytes=300";

/// One system call of one thread: its name, and the how manieth of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    thread: String,
    name: String,
    number: usize,
    /// As strace shows it.
    line: String,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Error(&'static str),
    Kill,
}

impl Fault {
    fn all(call: &Call) -> Vec<Self> {
        if CAN_NOT_FAIL.contains(&call.name.as_str()) {
            vec![Self::Kill]
        } else {
            vec![Self::Error("EIO"), Self::Error("ENOSPC"), Self::Kill]
        }
    }

    fn inject(self, call: &Call) -> String {
        let Call { name, number, .. } = call;
        match self {
            Self::Error(error) => format!("inject={name}:error={error}:when={number}"),
            Self::Kill => format!("inject={name}:signal=SIGKILL:when={number}"),
        }
    }
}

/// What is done under the tracer.
#[derive(Clone, Copy)]
enum Phase {
    /// The steps, by the log's own threads.
    Working,
    /// Opening the log, by whoever opens it.
    Opening,
}

/// One run with one tracer. Gives the calls that were seen, and what was said outside.
fn run(directory: &Path, phase: Phase, thread: &str, inject: Option<(Fault, &Call)>) -> (Vec<Call>, Ledger) {
    let mut appender = Stepping::start(directory, &[SEGMENT_BYTES]);
    let trace = directory.with_extension("strace");
    let mut options = vec!["-e".to_owned(), TRACED.to_owned()];
    if let Some((fault, call)) = inject {
        options.extend(["-e".to_owned(), fault.inject(call)]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let tracer = match phase {
        Phase::Opening => {
            let tracer = Tracer::attach(appender.pid(), appender.pid(), &trace, &options);
            appender.step("open");
            tracer
        }
        Phase::Working => {
            assert!(appender.step("open"), "it opens");
            let threads = appender.log_threads();
            let (_, id) = threads.iter().find(|(name, _)| name == thread).expect("a thread of the log");
            let tracer = Tracer::attach(appender.pid(), *id, &trace, &options);
            for step in STEPS {
                appender.step(step);
            }
            tracer
        }
    };
    let (status, said) = appender.end();
    tracer.end();
    let shown = std::fs::read_to_string(&trace).expect("the trace");
    let calls = calls(thread, &shown);
    let what = inject.map(|(fault, call)| format!("{fault:?} in {call:?}")).unwrap_or_default();
    assert!(!said.contains("panicked") && said.lines().count() <= 1, "{what}: {said}");
    match inject {
        None => assert!(status.success(), "{status}: {said}"),
        Some((Fault::Kill, _)) => assert_eq!(status.code(), None, "{what}: it wasn't killed; {shown}"),
        Some((Fault::Error(_), _)) => {
            assert!(shown.contains("(INJECTED)"), "{what}: it wasn't reached; {shown}");
            assert!(status.code().is_some(), "{what}: {status}, {said}");
            // Who was refused was told why, in words.
            let refused = !appender.ledger.refused.is_empty() || !appender.ledger.unknown.is_empty();
            assert!(!refused || !appender.ledger.reasons.contains(""), "{what}: nobody said why");
        }
    }
    (calls, appender.ledger.clone())
}

/// The calls in a trace that can be failed: the pipes to the test and memory are left out.
fn calls(thread: &str, trace: &str) -> Vec<Call> {
    let mut counts = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((name, arguments)) = line.split_once('(') else { continue };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = counts.entry(name).or_insert(0);
        *count += 1;
        let pipe = ["0<", "1<", "2<"].iter().any(|descriptor| arguments.starts_with(descriptor));
        if !pipe && !MEMORY.contains(&name) {
            let (thread, name) = (thread.to_owned(), name.to_owned());
            calls.push(Call { thread, name, number: *count, line: line.chars().take(150).collect() });
        }
    }
    calls
}

/// Runs each fault of each call in a directory of its own, and checks each.
fn fail_each(phase: Phase, calls: &[Call], prepare: &(dyn Fn(&Path) -> Ledger + Sync)) {
    let cases: Vec<(Fault, &Call)> =
        calls.iter().flat_map(|call| Fault::all(call).into_iter().map(move |fault| (fault, call))).collect();
    let next = Mutex::new(cases.iter());
    let workers = std::thread::available_parallelism().map_or(2, usize::from) * 2;
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(&(fault, call)) = next.lock().unwrap().next() else { return };
                    let place = TempDir::new().unwrap();
                    let directory = place.path().join("log");
                    let before = prepare(&directory);
                    let (_, mut told) = run(&directory, phase, &call.thread, Some((fault, call)));
                    told.durable.extend(before.durable);
                    told.signed = told.signed.max(before.signed);
                    told.check(&directory, &format!("{fault:?} in {call:?}"));
                }
            });
        }
    });
}

#[test]
fn each_system_call_of_append_rotation_and_checkpoint_fails_once_in_each_way() {
    let clean = |_: &Path| Ledger::default();
    let place = TempDir::new().unwrap();
    let directory = place.path().join("names");
    let mut appender = Stepping::start(&directory, &[SEGMENT_BYTES]);
    appender.step("open");
    let threads = appender.log_threads();
    drop(appender);
    let mut seen = Vec::new();
    for (thread, _) in &threads {
        let (calls, told) = run(&place.path().join(thread), Phase::Working, thread, None);
        assert_eq!((told.durable.len(), told.unknown.len() + told.refused.len()), (3, 0));
        seen.extend(calls);
    }
    let names: BTreeSet<&str> = seen.iter().map(|call| call.name.as_str()).collect();
    for wanted in ["pwrite64", "fdatasync", "openat", "rename", "fsync", "unlink"] {
        assert!(names.contains(wanted), "{wanted} isn't among {names:?}");
    }
    for file in [".seg", ".seg.tmp", "checkpoint.tmp"] {
        assert!(seen.iter().any(|call| call.line.contains(file)), "nothing was done to {file}");
    }
    println!("{} system calls of {threads:?}", seen.len());
    fail_each(Phase::Working, &seen, &clean);
}

/// A log as a crash leaves it. Gives what was acknowledged.
fn wounded(directory: &Path, wound: Wound) -> Ledger {
    let mut told = Ledger::default();
    if wound == Wound::Nothing {
        return told;
    }
    let mut appender = Stepping::start(directory, &[SEGMENT_BYTES]);
    assert!(appender.step("open"));
    for _ in 0..6 {
        assert!(appender.step("append"));
    }
    let (status, said) = appender.end();
    assert!(status.success(), "{said}");
    told.durable = appender.ledger.durable.clone();
    let log = ledger::open(directory).unwrap();
    let older = Checkpoint::sign(3, log.root(3).unwrap(), &*signer()).unwrap();
    drop(log);
    std::fs::write(directory.join("checkpoint"), older.to_string()).unwrap();
    told.signed = 3;
    let segments = directory.join("segments");
    match wound {
        Wound::TornTail => {
            let newest = newest(&segments);
            let mut bytes = std::fs::read(&newest).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            bytes.splice(end.., [200, 0, 0, 0, 9, 9, 9, 9, 9]);
            std::fs::write(&newest, bytes).unwrap();
            std::fs::write(segments.join("00000000000000000006.seg.tmp"), b"half").unwrap();
            std::fs::write(directory.join("checkpoint.tmp"), b"half").unwrap();
        }
        _ => std::fs::write(segments.join("00000000000000000006.seg"), b"CUSTLOG").unwrap(),
    }
    told
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wound {
    /// There is no log yet.
    Nothing,
    TornTail,
    UnfinishedSegment,
}

fn newest(segments: &Path) -> PathBuf {
    std::fs::read_dir(segments).unwrap().map(|item| item.unwrap().path()).max().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn each_call_of_a_recovery(wound: Wound) -> usize {
    let place = TempDir::new().unwrap();
    let model = place.path().join("model");
    let told = wounded(&model, wound);
    let prepare = |directory: &Path| {
        if wound != Wound::Nothing {
            copy(&model, directory);
        }
        told.clone()
    };
    let directory = place.path().join("clean");
    prepare(&directory);
    let (calls, opened) = run(&directory, Phase::Opening, "appender", None);
    assert_eq!(opened.opened.len(), 1);
    assert_eq!(opened.opened[0][0], told.durable.len() as u64);
    println!("{} system calls to recover from {wound:?}", calls.len());
    fail_each(Phase::Opening, &calls, &prepare);
    calls.len()
}

#[test]
fn each_system_call_of_a_recovery_fails_once_in_each_way() {
    assert!(each_call_of_a_recovery(Wound::TornTail) > 30);
}

#[test]
fn each_system_call_of_a_recovery_from_half_a_segment_fails_once_in_each_way() {
    assert!(each_call_of_a_recovery(Wound::UnfinishedSegment) > 30);
}

#[test]
fn each_system_call_of_a_beginning_fails_once_in_each_way() {
    assert!(each_call_of_a_recovery(Wound::Nothing) > 20);
}

/// The order that L4 asks for: contents, name, directory, and only then the first acknowledgement in it.
#[test]
fn contents_then_name_then_directory() {
    let place = TempDir::new().unwrap();
    let (calls, _) = run(&place.path().join("log"), Phase::Working, "log-writer", None);
    for tmp in ["seg.tmp", "checkpoint.tmp"] {
        let at = calls.iter().position(|call| call.name == "rename" && call.line.contains(tmp)).expect(tmp);
        let (before, after) = calls.split_at(at);
        let last = before.iter().rev().find(|call| call.name != "fcntl").unwrap();
        assert!(last.name == "fdatasync" && last.line.contains(tmp), "{last:?} before the rename of {tmp}");
        let next: Vec<&str> = after[1..].iter().map(|call| call.name.as_str()).take(2).collect();
        assert_eq!(next, ["openat", "fsync"], "after the rename of {tmp}");
    }
}
