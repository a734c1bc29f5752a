//! Ends sockets by their cookies, over netlink's sock_diag (CONFIG_INET_DIAG_DESTROY): asks for all sockets of this thread's network
//! namespace and gives those back whose cookies are meant. The layouts are those of linux/inet_diag.h.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with,
};
use std::collections::BTreeMap;
use std::time::Duration;

const NETLINK_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ALL_STATES: u32 = u32::MAX;
/// `struct inet_diag_sockid`, and where its cookie lies.
const ID: usize = 48;
const ID_COOKIE: usize = 40;
/// The kernel answers at once; a socket that stays silent is broken.
const PATIENCE: Duration = Duration::from_secs(5);

type Id = [u8; ID];

/// Ends the sockets of these cookies; gives what became of each that was found.
pub(super) fn destroy(cookies: &[u64]) -> Result<BTreeMap<u64, Result<(), String>>, Errno> {
    let netlink = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    set_socket_timeout(&netlink, Timeout::Recv, Some(PATIENCE))?;
    let mut outcomes = BTreeMap::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        for protocol in [rustix::net::ipproto::TCP, rustix::net::ipproto::UDP] {
            let number = u8::try_from(protocol.as_raw().get()).unwrap_or_default();
            let family = u8::try_from(family.as_raw()).unwrap_or_default();
            for id in list(&netlink, family, number)? {
                let Some(cookie) = cookie(&id).filter(|cookie| cookies.contains(cookie)) else { continue };
                outcomes.insert(cookie, end(&netlink, family, number, &id)?);
            }
        }
    }
    Ok(outcomes)
}

fn cookie(id: &Id) -> Option<u64> {
    id.get(ID_COOKIE..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

fn list(netlink: &OwnedFd, family: u8, protocol: u8) -> Result<Vec<Id>, Errno> {
    send(netlink, SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, family, protocol, &[0; ID])?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, _) = recv(netlink, buffer.as_mut_slice(), RecvFlags::empty())?;
        for message in messages(buffer.get(..length).unwrap_or_default()) {
            match message.kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    return outcome(message.body).map_or(Err(Errno::PROTO), |code| code.map(|()| Vec::new()));
                }
                // `struct inet_diag_msg`: four bytes, then the id.
                SOCK_DIAG_BY_FAMILY => {
                    found.extend(message.body.get(4..).and_then(|rest| rest.first_chunk::<ID>()).copied())
                }
                _ => {}
            }
        }
    }
}

fn end(netlink: &OwnedFd, family: u8, protocol: u8, id: &Id) -> Result<Result<(), String>, Errno> {
    send(netlink, SOCK_DESTROY, REQUEST | ACKNOWLEDGE, family, protocol, id)?;
    let mut buffer = vec![0; 4096];
    let (length, _) = recv(netlink, buffer.as_mut_slice(), RecvFlags::empty())?;
    let answer =
        messages(buffer.get(..length).unwrap_or_default()).find(|message| message.kind == NLMSG_ERROR);
    Ok(match answer.and_then(|message| outcome(message.body)) {
        Some(Ok(()) | Err(Errno::NOENT)) => Ok(()),
        Some(Err(Errno::OPNOTSUPP)) => Err("the kernel is built without CONFIG_INET_DIAG_DESTROY".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the kernel gave no answer".to_owned()),
    })
}

fn send(netlink: &OwnedFd, kind: u16, flags: u16, family: u8, protocol: u8, id: &Id) -> Result<(), Errno> {
    let mut message = Vec::with_capacity(NETLINK_HEADER + 8 + ID);
    let length = u32::try_from(NETLINK_HEADER + 8 + ID).unwrap_or_default();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // sequence and port: one question at a time
    message.extend_from_slice(&[family, protocol, 0, 0]);
    message.extend_from_slice(&ALL_STATES.to_ne_bytes());
    message.extend_from_slice(id);
    sendto(netlink, &message, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0)).map(drop)
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

/// The messages of one datagram; what isn't whole ends them.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(NETLINK_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    })
}

/// The code of an NLMSG_ERROR: 0 is success.
fn outcome(body: &[u8]) -> Option<Result<(), Errno>> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) })
}
