//! `custody connect PROXY NODE`: ssh's ProxyCommand. It connects, says which node is meant, hands the socket to
//! ssh (`ProxyUseFdpass yes`) and is gone, so there is one layer of encryption and no process that copies.

use anyhow::{Context as _, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd as _;

/// `custody connect`
#[derive(clap::Args)]
pub struct Connect {
    /// The SSH proxy, HOST:PORT
    proxy: String,
    /// The node's name, with or without .custody
    node: String,
}

/// Connects and passes the socket on.
pub fn connect(args: Connect) -> anyhow::Result<()> {
    let node = args.node.strip_suffix(".custody").unwrap_or(&args.node);
    if node.is_empty() || node.len() > 128 || !node.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("«{}» is no name of a node", args.node);
    }
    let mut socket = TcpStream::connect(&args.proxy)
        .with_context(|| format!("the proxy {} can't be reached", args.proxy))?;
    socket.set_nodelay(true)?;
    socket.write_all(format!("CUSTODY-NODE {node}\r\n").as_bytes())?;

    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        bail!("the socket can't be handed over");
    }
    // ssh waits for one byte that carries the descriptor.
    sendmsg(std::io::stdout(), &[IoSlice::new(b"\0")], &mut ancillary, SendFlags::empty())
        .context("ssh doesn't take the socket: this command is for ProxyCommand with ProxyUseFdpass yes")?;
    Ok(())
}
