//! Loaded isn't enforcing: some kernels attach programs that never run. So a thread of the agent becomes a session for a moment, under
//! a policy that allows nothing, and tries; it must be refused. Nothing of this is counted or told.

use super::error::SensorError;
use super::layout::{POLICY_CLOSED, POLICY_SELF_TEST, POLICY_SELF_TEST_MAPS};
use super::record::Tuple;
use super::{Sensor, Tier};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const SESSION: [u8; 16] = [0xff; 16];
const SIGKILL: i32 = 9;
/// Loopback takes no time; something is wrong when it does.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the thread found out.
struct Findings {
    exec: Result<(), String>,
    connect: Result<(), String>,
    datagram: Result<(), String>,
    /// By feature.
    files: Vec<(&'static str, Result<(), String>)>,
}

/// A file to try things on, in a directory of its own.
struct Bait {
    directory: PathBuf,
    file: PathBuf,
}

impl Bait {
    /// Made where there is room for it, while nobody is a session yet.
    fn lay() -> Result<Bait, String> {
        let name = format!("custody-self-test-{}", std::process::id());
        let mut why = String::new();
        for place in [std::env::temp_dir(), "/run".into(), "/dev/shm".into(), "/var/tmp".into()] {
            let directory = place.join(&name);
            let file = directory.join("file");
            match std::fs::create_dir_all(&directory).and_then(|()| File::create(&file)) {
                Ok(_) => return Ok(Bait { directory, file }),
                Err(error) => why = format!("{}: {error}", directory.display()),
            }
        }
        Err(format!("there is no directory to try it in: {why}"))
    }

    /// Tries what a session may do to no file that is denied. Each feature may be tried several times.
    fn touch(&self) -> Vec<(&'static str, Result<(), String>)> {
        let (file, other) = (&self.file, self.directory.join("other"));
        let mode = Permissions::from_mode(0o600);
        let attribute = setxattr(file, "security.custody", b"x", XattrFlags::empty());
        let attribute = attribute.map_err(std::io::Error::from);
        let pipe = mknodat(CWD, &other, FileType::Fifo, Mode::RUSR, 0).map_err(std::io::Error::from);
        let tries = [
            ("file open", "a file, to be opened,", File::open(file).map(drop)),
            ("file rename", "a rename", std::fs::rename(file, &other)),
            ("file link", "a link", std::fs::hard_link(file, &other)),
            ("file delete", "a deletion", std::fs::remove_file(file)),
            ("file permissions", "a change of permissions", std::fs::set_permissions(file, mode)),
            ("file owner", "a change of the owner", chown(file, Some(0), None)),
            ("file attributes", "an attribute", attribute),
            ("file create", "a pipe", pipe),
            ("file create", "a directory", std::fs::create_dir(&other)),
            ("file create", "a symbolic link", symlink(file, &other)),
            ("file delete", "the removal of a directory", std::fs::remove_dir(&self.directory)),
        ];
        tries.into_iter().map(|(feature, what, done)| (feature, refused(done, what))).collect()
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!("{}: it is left there: {error}", self.directory.display());
        }
    }
}

/// Fails where no session could be watched; marks features that don't refuse.
pub(super) fn run(sensor: &mut Sensor) -> Result<(), SensorError> {
    let closed = as_session(sensor, POLICY_CLOSED, None)?;
    closed.exec.map_err(SensorError::NotEnforcing)?;
    let mut found = Vec::new();
    let bait = if sensor.coverage.tier == Tier::Lsm {
        let mapped = as_session(sensor, POLICY_SELF_TEST_MAPS, None)?.exec;
        found.push(("program map deny", mapped));
        Bait::lay().map(Arc::new).map_err(|why| found.push(("file open", Err(why)))).ok()
    } else {
        None
    };
    let unknown = as_session(sensor, POLICY_SELF_TEST, bait)?;
    found.push(("connect deny", closed.connect.and(unknown.connect)));
    found.push(("datagram deny", closed.datagram.and(unknown.datagram)));
    found.extend(unknown.files);
    for (feature, found) in found {
        let Some(entry) = sensor.coverage.features.get_mut(feature).filter(|entry| entry.is_ok()) else {
            continue;
        };
        *entry = found.map_err(|why| format!("self-test: {why}"));
    }
    Ok(())
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> SensorError {
    move |error| SensorError::NotEnforcing(format!("{what}: {error}"))
}

fn as_session(sensor: &mut Sensor, policy: u32, bait: Option<Arc<Bait>>) -> Result<Findings, SensorError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("listening on 127.0.0.1"))?;
    let at = listener.local_addr().map_err(failed("listening on 127.0.0.1"))?;
    let mut near = TcpStream::connect_timeout(&at, PATIENCE).map_err(failed("connecting to 127.0.0.1"))?;
    let (far, peer) = listener.accept().map_err(failed("accepting from 127.0.0.1"))?;
    far.set_read_timeout(Some(PATIENCE)).map_err(failed("setting a time limit"))?;
    // Where the connect hooks go by a table of processes, the whole process is the session for that moment.
    sensor.enter_table(SESSION, policy)?;
    let found = as_tagged_thread(sensor, &mut near, far, Tuple::new(at, peer), (policy, bait));
    sensor.leave_table()?;
    found
}

fn as_tagged_thread(
    sensor: &mut Sensor,
    near: &mut TcpStream,
    far: TcpStream,
    tuple: Tuple,
    (policy, bait): (u32, Option<Arc<Bait>>),
) -> Result<Findings, SensorError> {
    sensor.expect_any(tuple, SESSION, policy)?;
    near.write_all(b"x").map_err(failed("writing to 127.0.0.1"))?;
    let tier = sensor.coverage.tier;
    let thread = std::thread::Builder::new().name("self-test".to_owned());
    let trying = move || try_everything(far, (tier, policy), bait.as_deref());
    let thread = thread.spawn(trying).map_err(failed("starting a thread"))?;
    thread
        .join()
        .map_err(|_| SensorError::NotEnforcing("its thread ended early".to_owned()))?
        .map_err(failed("reading from 127.0.0.1"))
}

/// Runs in a thread that becomes a session by its first read.
fn try_everything(
    mut socket: TcpStream,
    under: (Tier, u32),
    bait: Option<&Bait>,
) -> Result<Findings, std::io::Error> {
    socket.read_exact(&mut [0])?;
    let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let connect =
        |to: SocketAddr| refused(TcpStream::connect_timeout(&to, PATIENCE).map(drop), "a connection");
    let send = |from: SocketAddr, to: SocketAddr| {
        let sent = UdpSocket::bind(from).and_then(|socket| socket.send_to(b"x", to));
        refused(sent.map(drop), "a datagram")
    };
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, listening.port()));
    let has_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    Ok(Findings {
        exec: try_exec(under),
        files: bait.map(Bait::touch).unwrap_or_default(),
        connect: connect(listening).and_then(|()| if has_v6 { connect(v6) } else { Ok(()) }),
        datagram: send((Ipv4Addr::UNSPECIFIED, 0).into(), listening)
            .and_then(|()| if has_v6 { send((Ipv6Addr::UNSPECIFIED, 0).into(), v6) } else { Ok(()) }),
    })
}

fn refused(done: Result<(), std::io::Error>, what: &str) -> Result<(), String> {
    match done {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(format!("{what} should have been refused with EPERM, and failed with: {error}")),
        Ok(()) => Err(format!("{what} should have been refused, and was made")),
    }
}

fn try_exec((tier, policy): (Tier, u32)) -> Result<(), String> {
    let child = Command::new("/bin/sh")
        .args(["-c", ":"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match (tier, child) {
        // It begins, and dies when its own file can't be mapped.
        (Tier::Lsm, Ok(status)) if policy == POLICY_SELF_TEST_MAPS && status.signal().is_some() => Ok(()),
        (Tier::Lsm, Err(error)) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        (Tier::Tracepoint, Ok(status)) if status.signal() == Some(SIGKILL) => Ok(()),
        (_, Ok(status)) => Err(format!("a program should have been refused, and ran ({status})")),
        (_, Err(error)) => Err(format!("/bin/sh can't be started: {error}")),
    }
}
