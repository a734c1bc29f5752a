//! One connection to a receiver, from its beginning to the end that confirms what it took.

use super::addresses::{Addresses, Trial};
use super::tls::{Settings, Tls};
use super::{Transport, host_of};
use crate::secret::Secrets;
use crate::sink::Trouble;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Receivers say nothing; what they say all the same is passed over, up to so many bytes.
const HEARD_BYTES_MAX: usize = 64 << 10;
/// How often is looked whether a connection is closed on both sides.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(50);

/// A receiver of syslog.
pub(super) struct Receiver {
    server: String,
    addresses: Addresses,
    transport: Transport,
    tls: Tls,
}

impl Receiver {
    pub(super) fn new(server: String, transport: Transport, tls: Settings, secrets: Secrets) -> Self {
        Self { server, addresses: Addresses::default(), transport, tls: Tls::new(tls, secrets) }
    }

    /// Sends all of `bytes` over a connection of their own, and returns once the receiver has ended it in order: it has
    /// read all of them then.
    ///
    /// # Errors
    /// [`Trouble::Refused`] before the first byte is sent, [`Trouble::Unclear`] after it; [`Trouble::Denied`] for
    /// certificates that aren't accepted.
    pub(super) async fn take(&self, bytes: &[u8]) -> Result<(), Trouble> {
        let (stream, trial) = self.connect().await?;
        self.take_over(stream, bytes).await?;
        trial.served();
        Ok(())
    }

    async fn take_over(&self, stream: TcpStream, bytes: &[u8]) -> Result<(), Trouble> {
        match self.transport {
            Transport::Tcp => {
                let mut stream = stream;
                let sent = async {
                    stream.write_all(bytes).await?;
                    still_open(&mut stream).await?;
                    stream.shutdown().await?;
                    to_the_end(&mut stream).await
                };
                sent.await.map_err(|error| unclear(&error))?;
                closed(&stream).await
            }
            Transport::Tls => {
                let mut stream = self.handshake(stream).await?;
                let sent = async {
                    stream.write_all(bytes).await?;
                    stream.flush().await?;
                    still_open(&mut stream).await?;
                    // `close_notify`, and TCP's FIN behind it.
                    stream.shutdown().await
                };
                if let Err(error) = sent.await {
                    return Err(broken(&mut stream, error).await);
                }
                match to_the_end(&mut stream).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        if !self.tls.trusts_tcp_close() {
                            return Err(Trouble::unclear(
                                "the receiver ended the connection without close_notify, so it isn't known what it took; \
                                 if it always does, see tls.trusts_tcp_close",
                            ));
                        }
                    }
                    Err(error) => return Err(rejected(&error).unwrap_or_else(|| unclear(&error))),
                }
                let (stream, _) = stream.get_mut();
                to_the_end(stream).await.map_err(|error| unclear(&error))?;
                closed(stream).await
            }
        }
    }

    async fn connect(&self) -> Result<(TcpStream, Trial<'_>), Trouble> {
        let refused = |reason: String| Trouble::Refused {
            reason: format!("{}: {reason}", self.server),
            retry_after: None,
        };
        let (stream, trial) = self.addresses.connect(&self.server).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(|error| refused(error.to_string()))?;
        Ok((stream, trial))
    }

    async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Trouble> {
        let denied = |reason: String| Trouble::Denied { reason };
        let config = self.tls.config().map_err(denied)?;
        let name = self.tls.server_name(host_of(&self.server)).map_err(denied)?;
        match timeout(HANDSHAKE, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(rejected(&error).unwrap_or_else(|| Trouble::Refused {
                reason: format!("{}: no TLS: {error}", self.server),
                retry_after: None,
            })),
            Err(_) => Err(Trouble::Refused {
                reason: format!("{}: it doesn't answer to TLS", self.server),
                retry_after: None,
            }),
        }
    }
}

/// Why sending failed: a receiver that doesn't accept our certificate says so after the handshake (TLS 1.3), and it may
/// stand there to be read.
async fn broken(stream: &mut TlsStream<TcpStream>, error: io::Error) -> Trouble {
    if let Some(trouble) = rejected(&error) {
        return trouble;
    }
    match timeout(LOOK_LAST, to_the_end(stream)).await {
        Ok(Err(said)) => rejected(&said).unwrap_or_else(|| unclear(&error)),
        _ => unclear(&error),
    }
}

/// Whether the receiver hasn't ended the connection by itself: then its end is no answer to ours.
async fn still_open(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut passed_over = [0; 1_024];
    tokio::select! {
        biased;
        read = stream.read(&mut passed_over) => match read? {
            0 => Err(io::Error::other("the receiver ended it")),
            _ => Ok(()),
        },
        () = std::future::ready(()) => Ok(()),
    }
}

/// Reads until the other side ends.
async fn to_the_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut passed_over = [0; 1_024];
    let mut heard = 0;
    loop {
        match stream.read(&mut passed_over).await? {
            0 => return Ok(()),
            length => heard += length,
        }
        if heard > HEARD_BYTES_MAX {
            return Err(io::Error::other("it talks as no receiver of syslog does"));
        }
    }
}

/// Waits until the connection is closed on both sides, and not by a reset. Both have ended it here; but if the receiver
/// did so by itself, before it read what we sent last, its reset is still on the way. A socket that is closed has no other
/// side any more (getpeername(2), ENOTCONN).
async fn closed(stream: &TcpStream) -> Result<(), Trouble> {
    let mut look = LOOK_FIRST;
    while stream.peer_addr().is_ok() {
        tokio::time::sleep(look).await;
        look = (look * 2).min(LOOK_LAST);
    }
    match stream.take_error() {
        Ok(None) => Ok(()),
        Ok(Some(error)) | Err(error) => Err(unclear(&error)),
    }
}

fn unclear(error: &io::Error) -> Trouble {
    Trouble::unclear(format!("the connection broke: {error}"))
}

/// What TLS doesn't accept, on one of the sides: a person has to do something.
fn rejected(error: &io::Error) -> Option<Trouble> {
    use rustls::AlertDescription as Alert;
    let reason = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(error) => {
            format!("the receiver's certificate isn't accepted ({error}): see tls.ca and tls.server_name")
        }
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::NoCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired),
        ) => format!(
            "the receiver doesn't accept our certificate ({alert:?}): see tls.certificate and tls.key"
        ),
        _ => return None,
    };
    Some(Trouble::Denied { reason })
}
