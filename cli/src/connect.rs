//! `custody connect PROXY NODE`: ssh's ProxyCommand. It connects, says which node is meant, hands the socket to
//! ssh (`ProxyUseFdpass yes`) and is gone, so there is one layer of encryption and no process that copies. Clients that
//! read the same configuration and know nothing of that have bytes copied; where only the API's port is open, it
//! carries SSH within TLS.

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, dup};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::{IoSlice, IsTerminal as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

/// What the API's port takes for SSH (ALPN).
const SSH_PROTOCOL: &[u8] = b"custody-ssh";

/// How long the proxy's version is waited for; whoever gets the socket then waits on.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// `custody connect`
#[derive(clap::Args)]
pub struct Connect {
    /// Speak to the API's port, and carry SSH within TLS; the file has the CA of its certificate
    #[arg(long, value_name = "CA")]
    tls: Option<PathBuf>,
    /// The SSH proxy, HOST:PORT; with --tls, the API
    proxy: String,
    /// The node's name, with or without .custody; none if SSH says it
    node: Option<String>,
}

/// Connects and passes the socket on, or carries.
pub async fn connect(args: Connect) -> anyhow::Result<()> {
    let preamble = args.node.as_deref().map(preamble).transpose()?.unwrap_or_default();
    match &args.tls {
        Some(ca) => carry(&args.proxy, ca, &preamble).await,
        None if std::io::stdout().is_terminal() => {
            bail!("this command is for ProxyCommand in an ssh_config: `custody login` writes one")
        }
        None => through(&args.proxy, &preamble).await,
    }
}

fn preamble(name: &str) -> anyhow::Result<String> {
    let node = name.strip_suffix(".custody").unwrap_or(name);
    if node.is_empty() || node.len() > 128 || !node.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("«{name}» is no name of a node");
    }
    Ok(format!("CUSTODY-NODE {node}\r\n"))
}

/// Hands the connection to the proxy over, or copies until that ends it.
async fn through(proxy: &str, preamble: &str) -> anyhow::Result<()> {
    let mut socket =
        TcpStream::connect(proxy).with_context(|| format!("the proxy {proxy} can't be reached"))?;
    socket.set_nodelay(true)?;
    socket.write_all(preamble.as_bytes())?;
    if wants_the_socket(&socket)? {
        return hand_over(&socket);
    }
    socket.set_nonblocking(true)?;
    copy(tokio::net::TcpStream::from_std(socket)?).await
}

/// Whether it is OpenSSH's ProxyUseFdpass that started us. That gives one and the same socket as input and output; others give
/// two pipes or two sockets, but libssh one socket as well. Then it shows by who speaks first: who waits for a socket
/// says nothing, and who wants to be connected sends his version at once, long before that of the proxy is here.
fn wants_the_socket(proxy: &TcpStream) -> anyhow::Result<bool> {
    let (input, output) = (fstat(std::io::stdin())?, fstat(std::io::stdout())?);
    let is_socket = FileType::from_raw_mode(output.st_mode) == FileType::Socket;
    if !is_socket || (input.st_dev, input.st_ino) != (output.st_dev, output.st_ino) {
        return Ok(false);
    }
    let stdin = std::io::stdin();
    let mut ready = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(proxy, PollFlags::IN)];
    while let Err(error) = poll(&mut ready, Some(&PATIENCE)) {
        if error != Errno::INTR {
            return Err(error).context("ssh's end of the connection can't be waited for");
        }
    }
    Ok(!ready[0].revents().contains(PollFlags::IN))
}

fn hand_over(socket: &TcpStream) -> anyhow::Result<()> {
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        bail!("the socket can't be handed over");
    }
    // ssh waits for one byte that carries the descriptor.
    sendmsg(std::io::stdout(), &[IoSlice::new(b"\0")], &mut ancillary, SendFlags::empty())
        .context("ssh doesn't take the socket")?;
    Ok(())
}

/// Carries SSH between standard input and output and the API's port until the proxy ends it.
async fn carry(api: &str, ca: &Path, preamble: &str) -> anyhow::Result<()> {
    let Some((host, _)) = api.rsplit_once(':') else { bail!("«{api}» isn't HOST:PORT") };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).with_context(|| format!("«{api}» has no name to check"))?;
    let mut roots = rustls::RootCertStore::empty();
    let read = || format!("the CA file {} can't be used: log in again", ca.display());
    for certificate in CertificateDer::pem_file_iter(ca).with_context(read)? {
        roots.add(certificate.with_context(read)?).with_context(read)?;
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![SSH_PROTOCOL.to_vec()];
    let socket = tokio::net::TcpStream::connect(api)
        .await
        .with_context(|| format!("the API {api} can't be reached"))?;
    socket.set_nodelay(true)?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .with_context(|| format!("no TLS with {api}"))?;
    if stream.get_ref().1.alpn_protocol() != Some(SSH_PROTOCOL) {
        bail!("{api} takes no SSH within TLS: it is no API of Custody, or something on the way ends TLS");
    }
    stream.write_all(preamble.as_bytes()).await?;
    copy(stream).await
}

/// Copies from standard input and to standard output; the end of what we are given is passed on, the end of what comes
/// ends it.
async fn copy(stream: impl AsyncRead + AsyncWrite) -> anyhow::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut given = tokio::fs::File::from_std(dup(std::io::stdin())?.into());
    let mut shown = tokio::fs::File::from_std(dup(std::io::stdout())?.into());
    let up = async {
        tokio::io::copy(&mut given, &mut to).await?;
        to.shutdown().await?;
        std::future::pending().await
    };
    let copied = tokio::select! {
        ended = up => ended,
        ended = tokio::io::copy(&mut from, &mut shown) => ended.map(drop),
    };
    copied.context("the connection broke")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_in_one_line() {
        assert_eq!(preamble("web-1.custody").unwrap(), "CUSTODY-NODE web-1\r\n");
        for bad in ["", ".custody", "we b", "web\r\nSSH", &"x".repeat(129)] {
            assert!(preamble(bad).is_err(), "{bad}");
        }
    }
}
