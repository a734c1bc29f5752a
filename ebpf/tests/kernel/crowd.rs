//! Many threads at the same thing at once, so that on a kernel that preempts itself one finds another in the middle of a hook: none is
//! judged, or told, by what another was at.

use crate::node::{Node, POLICY, Session, next, options};
use custody_node::sensor::{Denial, FileRules, PathRule, PolicyRules, Record, SensorOptions, Tried};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind::PermissionDenied;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the child that is the session's program works.
const GROUND: &str = "CUSTODY_TEST_CROWD";
/// Several for each processor, so that one always waits for another's.
const THREADS: usize = 12;
/// The rule that denies files.
const FILES: u32 = 2;
/// The rule that denies programs.
const PROGRAMS: u32 = 3;
/// A preemption or two happen every 4 ms on each processor.
const FILES_FOR: Duration = Duration::from_secs(20);
const PROGRAMS_EACH: usize = 10;

/// One thread's own files, each with a long name that says whose it is.
struct Own {
    folder: PathBuf,
}

impl Own {
    fn new(ground: &Path, thread: usize) -> Own {
        Own { folder: ground.join(format!("thread-{thread:02}-{}", "x".repeat(150))) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{}", "y".repeat(150)))
    }

    fn make(&self) {
        fs::create_dir_all(self.at("free")).unwrap();
        fs::create_dir_all(self.at("secret")).unwrap();
        File::create(self.at("free").join("one")).unwrap();
        File::create(self.at("secret").join("file")).unwrap();
        fs::hard_link(self.at("secret").join("file"), self.at("second")).unwrap();
        fs::copy("/bin/echo", self.at("program")).unwrap();
        fs::copy("/bin/echo", self.at("forbidden")).unwrap();
    }

    /// What a policy denies of them: a directory, a file by another of its names, and one that isn't there.
    fn denied(&self) -> [PathBuf; 3] {
        [self.at("secret"), self.at("second"), self.at("none")]
    }
}

/// What was done that may not be, and what may be and was refused.
fn files(own: &Own, until: Instant) -> (Vec<String>, u64) {
    let (free, secret) = (own.at("free"), own.at("secret"));
    let (mut wrong, mut rounds) = (Vec::new(), 0);
    let mut must = |what: &str, may: bool, done: std::io::Result<()>| match done {
        Ok(()) if may => {}
        Err(error) if !may && error.kind() == PermissionDenied => {}
        other => wrong.push(format!("{what}: {other:?}")),
    };
    while Instant::now() < until {
        rounds += 1;
        must("open free", true, File::open(free.join("one")).map(drop));
        must("open secret", false, File::open(secret.join("file")).map(drop));
        must("open second", false, File::open(own.at("second")).map(drop));
        must("make none", false, File::create(own.at("none")).map(drop));
        must("make free", true, File::create(free.join("new")).map(drop));
        must("rename free", true, fs::rename(free.join("new"), free.join("renamed")));
        must("rename secret", false, fs::rename(secret.join("file"), free.join("stolen")));
        must("rename to none", false, fs::rename(free.join("renamed"), own.at("none")));
        must("delete free", true, fs::remove_file(free.join("renamed")));
        must("delete secret", false, fs::remove_file(secret.join("file")));
    }
    (wrong, rounds)
}

/// By LSM hooks a denied program can't be started, else it is killed before it says anything.
fn programs(own: &Own, thread: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for _ in 0..PROGRAMS_EACH {
        for (name, may) in [("program", true), ("forbidden", false)] {
            let mark = format!("mark-{thread:02}");
            let said = Command::new(own.at(name)).arg(&mark).output().map(|output| output.stdout);
            if said.as_ref().is_ok_and(|said| *said == format!("{mark}\n").into_bytes()) != may {
                wrong.push(format!("{name}: {said:?}"));
            }
        }
    }
    wrong
}

/// The session's program: each thread says its number, its process's way of naming it, and what went wrong.
fn be_the_session(ground: &Path) {
    let ground = ground.canonicalize().unwrap();
    let each = |thread: usize| {
        let own = Own::new(&ground, thread);
        let mut wrong = programs(&own, thread);
        let mut rounds = 0;
        if std::env::var_os("CUSTODY_TEST_CROWD_FILES").is_some() {
            let (more, done) = files(&own, Instant::now() + FILES_FOR);
            wrong.extend(more);
            rounds = done;
        }
        wrong.truncate(5);
        let tid = rustix::thread::gettid().as_raw_nonzero();
        let told = wrong.into_iter().map(|what| format!("thread {thread}: WRONG {what}"));
        let lines = [format!("thread {thread} is {tid} after {rounds}")];
        println!("{}", lines.into_iter().chain(told).collect::<Vec<_>>().join("\n"));
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || each(thread));
        }
    });
}

fn deny(id: u32, paths: impl Iterator<Item = PathBuf>) -> Vec<PathRule> {
    paths.map(|path| PathRule { id, path }).collect()
}

/// Runs a line in the session, and reads records meanwhile.
fn run(node: &mut Node, session: &mut Session, line: &str) -> String {
    std::thread::scope(|scope| {
        let said = scope.spawn(|| session.run(line));
        while !said.is_finished() {
            node.drain();
            std::thread::sleep(Duration::from_millis(5));
        }
        said.join().unwrap()
    })
}

/// Whether it is one of these of the thread's own, as a whole.
fn is_of(own: &Own, names: &[&str], path: &[u8]) -> bool {
    let of = |name: &str| match name.split_once('/') {
        Some((folder, file)) => own.at(folder).join(file),
        None => own.at(name),
    };
    names.iter().any(|name| of(name).as_os_str().as_encoded_bytes() == path)
}

#[test]
fn each_of_a_crowd_is_judged_and_told_by_what_is_its_own() {
    if let Some(ground) = std::env::var_os(GROUND) {
        return be_the_session(Path::new(&ground));
    }
    let folder = tempfile::tempdir().unwrap();
    let ground = folder.path().canonicalize().unwrap();
    let owns: Vec<Own> = (0..THREADS).map(|thread| Own::new(&ground, thread)).collect();
    owns.iter().for_each(Own::make);
    let watched = owns.iter().map(|own| own.at("free")).collect();
    let mut node = Node::with(SensorOptions { watched, ring_bytes: 16 << 20, ..options() });
    let rules = FileRules {
        denied_paths: deny(FILES, owns.iter().flat_map(Own::denied)),
        denied_programs: deny(PROGRAMS, owns.iter().map(|own| own.at("forbidden"))),
        ..FileRules::default()
    };
    let policy = POLICY + 1 + next();
    node.sensor().set_policy(policy, &PolicyRules { files: rules, ..PolicyRules::default() }).unwrap();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut session = node.session_at(loopback, loopback, policy);
    let with_files =
        if node.has("file open") && node.has("file create") { "CUSTODY_TEST_CROWD_FILES=1 " } else { "" };
    let this = std::env::current_exe().unwrap();
    let said = run(
        &mut node,
        &mut session,
        &format!(
            "{with_files}{GROUND}={} {} --exact --nocapture crowd::each_of_a_crowd_is_judged_and_told_by_what_is_its_own",
            ground.display(),
            this.display()
        ),
    );
    node.drain();
    assert!(!said.contains("WRONG") && said.contains("test result: ok"), "{said}");
    let threads: BTreeMap<u32, usize> = said
        .lines()
        .filter_map(|line| {
            let (thread, rest) = line.strip_prefix("thread ")?.split_once(" is ")?;
            Some((rest.split_once(' ')?.0.parse().ok()?, thread.parse().ok()?))
        })
        .collect();
    assert_eq!(threads.len(), THREADS, "{said}");

    let (mut told_files, mut told_programs) = (0, 0);
    for record in &node.records {
        match record {
            Record::FileOpened(event) => {
                // Who takes a file's place among those that are counted tells of it, whoever of the process opened it.
                let whose = owns.iter().find(|own| is_of(own, &["free/one", "free/new"], &event.path));
                let one = whose.unwrap_or_else(|| panic!("{record:?}")).at("free").join("one");
                let is_one = one.as_os_str().as_encoded_bytes() == event.path;
                assert_eq!(fs::metadata(one).unwrap().ino() == event.inode, is_one, "{record:?}");
                told_files += 1;
            }
            Record::FileRenamed(event) | Record::FileDeleted(event) | Record::FileDenied(event) => {
                let own = &owns[threads[&event.who.tid]];
                let names: &[&str] = match (event.denied, &event.renamed_to) {
                    (Some((Tried::Rename, Denial::Rule(FILES))), _) => &["secret/file", "none"],
                    (Some((_, Denial::Rule(FILES))), _) => &["secret/file", "second", "none"],
                    (Some(_), _) => panic!("{record:?}"),
                    (None, Some(to)) if is_of(own, &["free/renamed"], to) => &["free/new"],
                    (None, Some(_)) => &[],
                    (None, None) => &["free/renamed"],
                };
                assert!(is_of(own, names, &event.path), "{record:?}");
                told_files += 1;
            }
            Record::Executed(executed) => {
                let Some(mark) = executed.args.get(1).and_then(|mark| mark.strip_prefix(b"mark-")) else {
                    continue;
                };
                told_programs += 1;
                let thread: usize = String::from_utf8_lossy(mark).parse().unwrap();
                let name = match executed.denial {
                    None => "program",
                    Some(Denial::Rule(PROGRAMS)) => "forbidden",
                    Some(_) => panic!("{record:?}"),
                };
                assert!(is_of(&owns[thread], &[name], &executed.path), "{record:?}");
                assert!(is_of(&owns[thread], &[name], &executed.given), "{record:?}");
            }
            Record::ExecRefused(refused) => {
                told_programs += 1;
                assert_eq!(refused.denial, Denial::Rule(PROGRAMS), "{record:?}");
                // It holds what was given up to 255 bytes: more than the thread's folder.
                assert!(refused.path.starts_with(&refused.given), "{record:?}");
                assert!(owns.iter().any(|own| is_of(own, &["forbidden"], &refused.path)), "{record:?}");
            }
            _ => {}
        }
    }
    let lost = node.sensor().counters().unwrap().lost;
    eprintln!("{told_files} of files and {told_programs} of programs were told; lost: {lost:?}\n{said}");
    assert_eq!(told_programs, THREADS * PROGRAMS_EACH * 2, "lost: {lost:?}");
    assert!(with_files.is_empty() || told_files > THREADS);
}
