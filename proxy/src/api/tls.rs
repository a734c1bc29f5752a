//! The listener: TLS 1.3 and 1.2, client certificates when they are shown, and a bound on everything that a stranger
//! may make us hold or wait for. What is public may be served without TLS too, and SSH within TLS.

use super::identity::Peer;
use super::sources::Sources;
use crate::balancer::Balancers;
use crate::ca::x509::ServerIdentity;
use crate::ingest::serve::Ingest;
use crate::ssh::accept::Entrance;
use crate::ssh::stream::Stream;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use custody_core::ingest::PROTOCOL;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::RootCertStore;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::util::MapResponse;

/// What a client asks for (ALPN, RFC 7301) who wants to speak SSH within TLS: where nothing but this port is open.
pub const SSH_PROTOCOL: &[u8] = b"custody-ssh";
/// Connections at once; further ones wait in the kernel.
pub const CONNECTIONS_MAX: usize = 1024;
/// Of one source, in the handshake at once: many may begin together, and nobody has all places.
const SHAKING_PER_SOURCE_MAX: usize = CONNECTIONS_MAX / 2;
/// Of one source, without a client certificate at once: an office behind one address fits, and it takes eight sources to have
/// all places.
const STRANGERS_PER_SOURCE_MAX: usize = 128;
/// How long a connection without a client certificate may begin further requests: the next answer then says that it is the last
/// one, and the place is others'. It isn't cut at once: a request may be on its way to us.
const STRANGER: Duration = Duration::from_secs(60);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's head may take, and a connection may idle.
const HEAD: Duration = Duration::from_secs(15);
/// A request's head, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long a reader may leave what was sent unread before the connection is cut: as long as a subscription may be slow.
const UNREAD_MILLISECONDS: u32 = 1_000 * super::follow::SLOW.as_secs() as u32;
/// The same for SSH within TLS: a machine that sleeps has time to wake.
const SSH_UNREAD_MILLISECONDS: u32 = 15 * 60 * 1_000;
/// How long answers may go on after shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate, the key or the client CA isn't what it should be.
    #[error("the API's TLS can't be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client CA can't verify anybody.
    #[error("the API's TLS can't be set up: the client CA is no use: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The certificate that a listener of ours shows, with its key: from one handshake to the next another may take its place, since no
/// certificate lasts as long as a server may run.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// Begins with this one.
    ///
    /// # Errors
    /// When the certificate or the key isn't what it should be.
    pub fn new(server: ServerIdentity) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(certified(server)?))))
    }

    /// Shows another one from now on; connections that stand are left alone.
    ///
    /// # Errors
    /// As [`Shown::new`]: then the one before goes on being shown.
    pub fn replace(&self, server: ServerIdentity) -> Result<(), TlsError> {
        let next = Arc::new(certified(server)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The one that is shown now.
    #[must_use]
    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn certified(server: ServerIdentity) -> Result<CertifiedKey, TlsError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(CertifiedKey::from_der(vec![server.issued.certificate], server.key, &provider)?)
}

/// A server that shows `shown` and verifies client certificates of `client_ca` where they are shown.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(
    shown: &Arc<Shown>,
    client_ca: &CertificateDer<'static>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client_ca.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::<Shown>::clone(shown));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), SSH_PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// What a listener has beyond its router.
pub struct Secured {
    /// How TLS is spoken; without it nobody is known.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where connections go that speak SSH within TLS.
    pub ssh: Option<Arc<Entrance>>,
    /// Where connections of nodes' agents go.
    pub ingest: Option<Arc<Ingest>>,
    /// Who says by the PROXY protocol whose connection it is.
    pub balancers: Balancers,
    /// Room for connections that speak SSH within TLS.
    carried: Arc<Semaphore>,
    /// Who is in the handshake.
    shaking: Arc<Sources>,
    /// Who asks without a client certificate.
    strangers: Arc<Sources>,
}

impl Secured {
    /// With TLS, if it is given.
    #[must_use]
    pub fn new(tls: Option<Arc<rustls::ServerConfig>>, balancers: Balancers) -> Self {
        Self {
            tls,
            ssh: None,
            ingest: None,
            balancers,
            carried: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            shaking: Sources::new(SHAKING_PER_SOURCE_MAX),
            strangers: Sources::new(STRANGERS_PER_SOURCE_MAX),
        }
    }
}

/// Answers on `listener` with `router` until `shutdown`, and then for ten seconds at most until what is being answered
/// is done.
///
/// # Errors
/// When the listener can't accept any more.
pub async fn serve(
    listener: TcpListener,
    secured: Secured,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let secured = Arc::new(secured);
    let (close, closing) = watch::channel(false);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &room) => accepted?,
        };
        let (stream, address, place) = accepted;
        let (secured, router, closing) = (Arc::clone(&secured), router.clone(), closing.clone());
        tokio::spawn(connection(stream, address, secured, router, closing, place));
    }
    drop(listener);
    close.send_replace(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN, room.acquire_many(all)).await.is_err() {
        tracing::warn!(
            "requests were cut: they were still being answered {} s after shutdown",
            DRAIN.as_secs()
        );
    }
    Ok(())
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return Ok((stream, address, place)),
            // Of one connection that was gone before we took it, or no more files for now.
            Err(error) => {
                tracing::warn!(%error, "a connection wasn't accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    secured: Arc<Secured>,
    router: Router,
    closing: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true).and_then(|()| cut_when_unread(&stream)) {
        tracing::debug!(%peer, %error, "the connection is gone already");
        return;
    }
    let address = match secured.balancers.source(&mut stream, peer).await {
        Ok(address) => address,
        Err(error) => return tracing::warn!(%peer, "{error}"),
    };
    let too_many = || tracing::debug!(%address, "too many connections of one source");
    let Some(tls) = &secured.tls else {
        let Some(_stranger) = secured.strangers.enter(address.ip()) else { return too_many() };
        return answer(stream, Peer { address, certificate: None }, router, closing, STRANGER).await;
    };
    let Some(shaking) = secured.shaking.enter(address.ip()) else { return too_many() };
    let stream =
        match tokio::time::timeout(HANDSHAKE, shake_hands(stream, tls, secured.ingest.as_ref())).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "no TLS handshake"),
            Err(_) => return tracing::debug!(%address, "the TLS handshake took too long"),
        };
    drop(shaking);
    if stream.get_ref().1.alpn_protocol() == Some(SSH_PROTOCOL) {
        // Sessions last: they don't take the places of requests, and have as many of their own.
        let Ok(_carried) = Arc::clone(&secured.carried).try_acquire_owned() else {
            return tracing::debug!(%address, "too many connections speak SSH within TLS");
        };
        drop(place);
        return carry_ssh(stream, address, secured.ssh.as_ref()).await;
    }
    if let Some(ingest) = &secured.ingest
        && stream.get_ref().1.alpn_protocol() == Some(PROTOCOL)
    {
        // Agents hold their connections, and each has one: they don't take the places of requests.
        drop(place);
        return ingest.serve(stream, address).await;
    }
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| certificate.clone().into_owned());
    let stranger = match &certificate {
        Some(_) => None,
        None => match secured.strangers.enter(address.ip()) {
            Some(stranger) => Some(stranger),
            None => return too_many(),
        },
    };
    answer(stream, Peer { address, certificate }, router, closing, STRANGER).await;
    drop((stranger, place));
}

/// TLS, with the certificates that count for what the client wants to speak: agents' for agents, people's for all else.
async fn shake_hands(
    stream: TcpStream,
    tls: &Arc<rustls::ServerConfig>,
    ingest: Option<&Arc<Ingest>>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let is_agent = hello.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == PROTOCOL));
    let config = match ingest {
        Some(ingest) if is_agent => &ingest.tls,
        _ => tls,
    };
    hello.into_stream(Arc::clone(config)).await
}

/// Carries what speaks SSH within TLS to the SSH proxy, until that has ended: a client that stays behind is let go.
async fn carry_ssh(stream: TlsStream<TcpStream>, address: SocketAddr, ssh: Option<&Arc<Entrance>>) {
    // A person may look at a screen for as long as he likes; whether he is still there, the kernel asks.
    let patient = rustix::net::sockopt::set_tcp_user_timeout(stream.get_ref().0, SSH_UNREAD_MILLISECONDS)
        .and_then(|()| rustix::net::sockopt::set_socket_keepalive(stream.get_ref().0, true));
    if let Err(error) = patient {
        return tracing::debug!(%address, %error, "the connection is gone already");
    }
    let Some(ssh) = ssh else { return tracing::debug!(%address, "SSH isn't served here") };
    let (ours, far) = match Stream::pair() {
        Ok(pair) => pair,
        Err(error) => return tracing::warn!(%address, %error, "a connection could not be taken over"),
    };
    if !ssh.enter(ours, address, None) {
        return;
    }
    let ((mut said, mut answers), (mut from_ssh, mut to_ssh)) = (tokio::io::split(stream), far.into_split());
    let inwards = async {
        let copied = tokio::io::copy(&mut said, &mut to_ssh).await;
        // The session hears that the person is gone, and ends.
        copied.and(to_ssh.shutdown().await)?;
        std::future::pending().await
    };
    let outwards = async {
        tokio::io::copy(&mut from_ssh, &mut answers).await?;
        tokio::time::timeout(HANDSHAKE, answers.shutdown()).await?
    };
    let ended: std::io::Result<()> = tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
    };
    tracing::debug!(%address, ?ended, "a connection within TLS ended");
}

/// Answers the requests of one connection. On one without a client certificate the first answer after `stranger` is the last, and
/// says so; if nobody asks for it, the head that doesn't come ends the connection.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    mut closing: watch::Receiver<bool>,
    stranger: Duration,
) {
    let address = peer.address;
    let enough = peer.certificate.is_none().then(|| Instant::now() + stranger);
    let service = MapResponse::new(router.layer(axum::Extension(peer)), move |mut answer: Response| {
        if enough.is_some_and(|enough| Instant::now() >= enough) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    });
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(http);
    let ended = tokio::select! {
        ended = &mut http => ended,
        () = closed(&mut closing) => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection broke");
    }
}

/// Waits until the listener closes; one that is gone has closed.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    let _either = closing.wait_for(|closing| *closing).await.is_ok();
}

/// TCP_USER_TIMEOUT: the kernel cuts a connection whose reader takes nothing for so long, also one that still
/// answers that its window is closed.
fn cut_when_unread(stream: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_tcp_user_timeout(stream, UNREAD_MILLISECONDS).map_err(std::io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Authorities;
    use crate::ca::store::FileKeyStore;
    use axum::routing::get;
    use custody_core::clock::{Clock as _, SystemClock};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, DuplexStream};

    /// What a client that trusts `ca` is shown.
    async fn shown_to_a_client(
        config: &Arc<rustls::ServerConfig>,
        ca: &CertificateDer<'static>,
    ) -> CertificateDer<'static> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let accepting = tokio_rustls::TlsAcceptor::from(Arc::clone(config)).accept(ours);
        let connecting = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, theirs);
        let (accepted, connected) = tokio::join!(accepting, connecting);
        drop(accepted.unwrap());
        let connected = connected.unwrap();
        connected.get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    #[tokio::test]
    async fn who_shows_no_certificate_may_not_keep_a_connection_for_ever() {
        let (_close, closing) = watch::channel(false);
        let connect = |certificate: Option<CertificateDer<'static>>| {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate };
            let router = Router::new().route("/healthz", get(|| async { "ok" }));
            tokio::spawn(answer(ours, peer, router, closing.clone(), Duration::ZERO));
            theirs
        };
        let mut known = connect(Some(CertificateDer::from(vec![0x30, 0])));
        let (mut silent, mut stranger) = (connect(None), connect(None));
        let mut left = Vec::new();
        let silent = tokio::spawn(async move {
            let mut left = Vec::new();
            tokio::time::timeout(HEAD * 2, silent.read_to_end(&mut left)).await
        });
        assert!(ask(&mut stranger).await.contains("\r\nconnection: close\r\n"));
        // Sooner than a head that doesn't come is given up.
        let ended = tokio::time::timeout(HEAD / 2, stranger.read_to_end(&mut left)).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
        for _ in 0..2 {
            assert!(!ask(&mut known).await.contains("connection: close"));
        }
        assert_eq!(silent.await.unwrap().unwrap().unwrap(), 0);
    }

    /// The head of the answer to one request.
    async fn ask(stream: &mut DuplexStream) -> String {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            answer.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(answer).unwrap().to_ascii_lowercase()
    }

    /// Each request is sent some time after the answer to the one before, as over a long line: while the last answer's connection
    /// is idle to us, the next request may be on its way.
    #[tokio::test]
    async fn no_request_of_a_stranger_is_lost_when_its_connection_has_lasted_long_enough() {
        let (_close, closing) = watch::channel(false);
        let router = Router::new().route("/healthz", get(|| async { "ok" }));
        let (connections, mut answers) = (20, 0);
        for _ in 0..connections {
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None };
            tokio::spawn(answer(ours, peer, router.clone(), closing.clone(), Duration::from_millis(50)));
            while !ask(&mut theirs).await.contains("\r\nconnection: close\r\n") {
                answers += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(theirs.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        }
        assert!(answers > connections, "each first answer was the last: {answers}");
    }

    #[tokio::test]
    async fn the_next_handshake_shows_the_certificate_that_has_taken_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(FileKeyStore::open(&dir.path().join("keys")).unwrap());
        let now = SystemClock::new().wall().0 / 1_000_000_000;
        let authorities = Authorities::open(keys, &dir.path().join("ca"), now).unwrap();
        let issue = || authorities.x509_server.issue(now, &["localhost".to_owned()], &[], 3600).unwrap();
        let (first, second) = (issue(), issue());
        let certificates = [&first, &second].map(|server| server.issued.certificate.clone());
        let ca = authorities.x509_server.certificate();
        let shown = Arc::new(Shown::new(first).unwrap());
        let config = server_config(&shown, authorities.x509_client.certificate()).unwrap();
        assert_eq!(shown_to_a_client(&config, ca).await, certificates[0]);
        shown.replace(second).unwrap();
        assert_eq!(shown_to_a_client(&config, ca).await, certificates[1]);
    }
}
