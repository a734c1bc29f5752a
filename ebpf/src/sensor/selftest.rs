//! Loaded isn't enforcing: some kernels attach programs that never run. So a thread of the agent becomes a session for a moment, under
//! a policy that allows nothing, and tries; it must be refused. Nothing of this is counted or told.

use super::error::SensorError;
use super::layout::{POLICY_CLOSED, POLICY_SELF_TEST};
use super::record::Tuple;
use super::{Sensor, Tier};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
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
}

/// Fails where no session could be watched; marks features that don't refuse.
pub(super) fn run(sensor: &mut Sensor) -> Result<(), SensorError> {
    let closed = as_session(sensor, POLICY_CLOSED)?;
    closed.exec.map_err(SensorError::NotEnforcing)?;
    let unknown = as_session(sensor, POLICY_SELF_TEST)?;
    for (feature, found) in [
        ("connect deny", closed.connect.and(unknown.connect)),
        ("datagram deny", closed.datagram.and(unknown.datagram)),
    ] {
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

fn as_session(sensor: &mut Sensor, policy: u32) -> Result<Findings, SensorError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("listening on 127.0.0.1"))?;
    let at = listener.local_addr().map_err(failed("listening on 127.0.0.1"))?;
    let mut near = TcpStream::connect_timeout(&at, PATIENCE).map_err(failed("connecting to 127.0.0.1"))?;
    let (far, peer) = listener.accept().map_err(failed("accepting from 127.0.0.1"))?;
    far.set_read_timeout(Some(PATIENCE)).map_err(failed("setting a time limit"))?;
    // Where the connect hooks go by a table of processes, the whole process is the session for that moment.
    sensor.enter_table(SESSION, policy)?;
    let found = as_tagged_thread(sensor, &mut near, far, Tuple::new(at, peer), policy);
    sensor.leave_table()?;
    found
}

fn as_tagged_thread(
    sensor: &mut Sensor,
    near: &mut TcpStream,
    far: TcpStream,
    tuple: Tuple,
    policy: u32,
) -> Result<Findings, SensorError> {
    sensor.expect_any(tuple, SESSION, policy)?;
    near.write_all(b"x").map_err(failed("writing to 127.0.0.1"))?;
    let tier = sensor.coverage.tier;
    let thread = std::thread::Builder::new().name("self-test".to_owned());
    let thread = thread.spawn(move || try_everything(far, tier)).map_err(failed("starting a thread"))?;
    thread
        .join()
        .map_err(|_| SensorError::NotEnforcing("its thread ended early".to_owned()))?
        .map_err(failed("reading from 127.0.0.1"))
}

/// Runs in a thread that becomes a session by its first read.
fn try_everything(mut socket: TcpStream, tier: Tier) -> Result<Findings, std::io::Error> {
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
        exec: try_exec(tier),
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

fn try_exec(tier: Tier) -> Result<(), String> {
    let child = Command::new("/bin/sh")
        .args(["-c", ":"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match (tier, child) {
        (Tier::Lsm, Err(error)) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        (Tier::Tracepoint, Ok(status)) if status.signal() == Some(SIGKILL) => Ok(()),
        (_, Ok(status)) => Err(format!("a program should have been refused, and ran ({status})")),
        (_, Err(error)) => Err(format!("/bin/sh can't be started: {error}")),
    }
}
