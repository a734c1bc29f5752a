//! `custody connect PROXY NODE`: ssh's ProxyCommand. It connects, says which node is meant, hands the socket to
//! ssh (`ProxyUseFdpass yes`) and is gone, so there is one layer of encryption and no process that copies. Where only
//! the API's port is open, it stays and carries SSH within TLS.

use anyhow::{Context as _, bail};
use rustix::io::dup;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

/// What the API's port takes for SSH (ALPN).
const SSH_PROTOCOL: &[u8] = b"custody-ssh";

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
        None => hand_over(&args.proxy, &preamble),
    }
}

fn preamble(name: &str) -> anyhow::Result<String> {
    let node = name.strip_suffix(".custody").unwrap_or(name);
    if node.is_empty() || node.len() > 128 || !node.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("«{name}» is no name of a node");
    }
    Ok(format!("CUSTODY-NODE {node}\r\n"))
}

fn hand_over(proxy: &str, preamble: &str) -> anyhow::Result<()> {
    let mut socket =
        TcpStream::connect(proxy).with_context(|| format!("the proxy {proxy} can't be reached"))?;
    socket.set_nodelay(true)?;
    socket.write_all(preamble.as_bytes())?;

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
    let (from, to) = tokio::io::split(stream);
    let given = tokio::fs::File::from_std(dup(std::io::stdin())?.into());
    let shown = tokio::fs::File::from_std(dup(std::io::stdout())?.into());
    copy(given, to, from, shown).await.context("the connection broke")
}

/// Copies both ways; the end of what we are given is passed on, the end of what comes ends it.
async fn copy(
    mut given: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut from: impl AsyncRead + Unpin,
    mut shown: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let up = async {
        tokio::io::copy(&mut given, &mut to).await?;
        to.shutdown().await?;
        std::future::pending().await
    };
    tokio::select! {
        ended = up => ended,
        ended = tokio::io::copy(&mut from, &mut shown) => ended.map(drop),
    }
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
