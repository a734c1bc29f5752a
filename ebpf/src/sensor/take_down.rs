//! Ends connections that were made before their peer was denied, or by the peer.

use super::error::SensorError;
use super::layout::connection;
use super::record::{Connection, Denial, decode_connection};
use super::rules::{PolicyRules, Protocol};
use super::sock_diag;
use aya::maps::{HashMap, MapData};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const UDP: u32 = 17;
/// Of a socket that isn't in the network namespace where it was looked for.
const NOT_FOUND: &str = "its socket isn't in its process's network namespace";
/// How long a socket that has ended may still be known as one.
const ENDING: Duration = Duration::from_millis(200);

/// A connection that its policy denies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenDown {
    /// Which, and what denies it.
    pub connection: Connection,
    /// Whether it was ended; why not.
    pub ended: Result<(), String>,
}

/// Under which policies there are connections.
pub(super) fn policies(
    connections: &HashMap<MapData, u64, [u8; connection::SIZE]>,
) -> Result<BTreeSet<u32>, SensorError> {
    let mut policies = BTreeSet::new();
    for entry in connections.iter() {
        let (_, bytes) =
            entry.map_err(|error| SensorError::kernel("listing the sessions' connections", error))?;
        policies.extend(decode_connection(&bytes, false).map(|connection| connection.who.policy));
    }
    Ok(policies)
}

pub(super) fn take_down(
    connections: &HashMap<MapData, u64, [u8; connection::SIZE]>,
    policy: u32,
    rules: Option<&PolicyRules>,
) -> Result<Vec<TakenDown>, SensorError> {
    // A socket is found in its own network namespace alone. Datagram sockets don't say which it is: they are looked for in that of
    // their process, under 0.
    let mut by_namespace: BTreeMap<u32, Vec<Connection>> = BTreeMap::new();
    for entry in connections.iter() {
        let (_, bytes) =
            entry.map_err(|error| SensorError::kernel("listing the sessions' connections", error))?;
        let Some(mut connection) = decode_connection(&bytes, false) else { continue };
        if connection.who.policy != policy {
            continue;
        }
        connection.denial = denial(rules, &connection);
        if connection.denial.is_some() {
            by_namespace.entry(connection.net_namespace).or_default().push(connection);
        }
    }
    let mut taken = Vec::new();
    for (namespace, group) in by_namespace {
        if namespace == 0 {
            for connection in group {
                taken.extend(end(
                    &PathBuf::from(format!("/proc/{}/ns/net", connection.who.pid)),
                    vec![connection],
                ));
            }
        } else {
            taken.extend(match find(namespace, &group) {
                Some(path) => end(&path, group),
                None => none_ended(group, "no process is left in its network namespace"),
            });
        }
    }
    still_there(connections, &mut taken);
    Ok(taken)
}

/// Whoever wasn't found has ended by itself meanwhile, or is somewhere else: a process may leave the network namespace of its sockets.
fn still_there(connections: &HashMap<MapData, u64, [u8; connection::SIZE]>, taken: &mut [TakenDown]) {
    let since = Instant::now();
    for one in taken.iter_mut().filter(|one| one.ended.as_ref().is_err_and(|why| why == NOT_FOUND)) {
        let is_gone =
            || connections.get(&one.connection.cookie, 0).is_err_and(|error| super::is_absent(&error));
        // What ends is still known for a moment, which is one for all of them.
        while !is_gone() && since.elapsed() < ENDING {
            std::thread::sleep(ENDING / 10);
        }
        if is_gone() {
            one.ended = Ok(());
        }
    }
}

/// No rules: nobody says what may be reached, so nothing may.
pub(super) fn denial(rules: Option<&PolicyRules>, connection: &Connection) -> Option<Denial> {
    let Some(rules) = rules else { return Some(Denial::NoPolicy) };
    let protocol = if connection.protocol == UDP { Protocol::Udp } else { Protocol::Tcp };
    rules.denial(IpAddr::V6(Ipv6Addr::from(connection.remote)), connection.remote_port, protocol)
}

/// A process's door to a network namespace: that of whoever connected, else of anybody who is there.
fn find(namespace: u32, group: &[Connection]) -> Option<PathBuf> {
    let is = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|stat| stat.ino() == u64::from(namespace));
    let own = group.iter().map(|connection| PathBuf::from(format!("/proc/{}/ns/net", connection.who.pid)));
    let ours = PathBuf::from("/proc/self/ns/net");
    own.chain([ours]).find(is).or_else(|| {
        let everyone =
            std::fs::read_dir("/proc").ok()?.filter_map(Result::ok).map(|entry| entry.path().join("ns/net"));
        everyone.into_iter().find(is)
    })
}

/// In a thread of its own, which goes into the namespace and ends there.
fn end(namespace: &PathBuf, group: Vec<Connection>) -> Vec<TakenDown> {
    let door = match File::open(namespace) {
        Ok(door) => door,
        Err(error) => return none_ended(group, &format!("{}: {error}", namespace.display())),
    };
    let spoken = group.clone();
    let work = move || -> Result<Vec<TakenDown>, String> {
        move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("entering its network namespace: {error}"))?;
        let cookies: Vec<u64> = spoken.iter().map(|connection| connection.cookie).collect();
        let outcomes = sock_diag::destroy(&cookies)
            .map_err(|error| format!("asking the kernel for its sockets: {error}"))?;
        let ended = |connection: Connection| {
            let outcome = outcomes.get(&connection.cookie).cloned();
            TakenDown { connection, ended: outcome.unwrap_or_else(|| Err(NOT_FOUND.to_owned())) }
        };
        Ok(spoken.into_iter().map(ended).collect())
    };
    let thread = std::thread::Builder::new().name("take-down".to_owned()).spawn(work);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(taken))) => taken,
        Ok(Ok(Err(why))) => none_ended(group, &why),
        Ok(Err(_)) => none_ended(group, "the thread for it ended early"),
        Err(error) => none_ended(group, &format!("starting a thread for it: {error}")),
    }
}

fn none_ended(group: Vec<Connection>, why: &str) -> Vec<TakenDown> {
    group.into_iter().map(|connection| TakenDown { connection, ended: Err(why.to_owned()) }).collect()
}
