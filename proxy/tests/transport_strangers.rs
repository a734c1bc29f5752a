//! The SSH transport against implementations that others wrote: Debian's `sshd` and `ssh`, and russh.
//! The layers above are spoken by hand here, as far as it takes to move data while keys are renewed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test's helpers fail as the test does"
)]

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use custody_proxy::ssh::transport::cipher::Cipher;
use custody_proxy::ssh::transport::error::Error;
use custody_proxy::ssh::transport::host_key::{HostKey, HostKeyAlgorithm, HostKeyOffered, Scheme};
use custody_proxy::ssh::transport::kex::KexAlgorithm;
use custody_proxy::ssh::transport::leg::{ClientConfig, Event, Incoming, Leg, ServerConfig};
use custody_proxy::ssh::transport::mac::Mac;
use custody_proxy::ssh::transport::rekey::Policy;
use custody_proxy::ssh::transport::wire::{Put, Reader};
use russh::keys::PrivateKey;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{Algorithm, Certificate, EcdsaCurve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[path = "transport_strangers/russh_sides.rs"]
mod russh_sides;

const TIME_LIMIT: Duration = Duration::from_secs(60);
const OURS_OLD_AFTER: u64 = 700_000;

/// A leg on a socket.
struct Connection {
    leg: Leg,
    stream: TcpStream,
    events: VecDeque<Got>,
    host_key: Option<Box<HostKeyOffered>>,
    start: Instant,
}

#[derive(Debug, PartialEq)]
enum Got {
    Ready,
    Message(Vec<u8>),
    /// Bytes came that were no event: perhaps a key exchange has ended, and one may send again.
    Progress,
}

impl Connection {
    fn new(leg: Leg, stream: TcpStream) -> Self {
        Self { leg, stream, events: VecDeque::new(), host_key: None, start: Instant::now() }
    }

    /// The next event; `None` when the peer has hung up.
    async fn next(&mut self) -> Option<Got> {
        let mut buffer = vec![0; 128 * 1024];
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            self.flush().await;
            let read = tokio::time::timeout(TIME_LIMIT, self.stream.read(&mut buffer)).await.unwrap();
            let read = read.unwrap_or(0);
            if read == 0 {
                return None;
            }
            if !self.take(&mut buffer[..read]) {
                return None;
            }
            if self.leg.wants_rekey(self.start.elapsed()) {
                self.leg.start_rekey().unwrap();
            }
            self.events.push_back(Got::Progress);
        }
    }

    /// False once the peer has said goodbye.
    fn take(&mut self, bytes: &mut [u8]) -> bool {
        let mut incoming = Incoming::new(bytes, self.start.elapsed());
        loop {
            match self.leg.next(&mut incoming) {
                Ok(None) => return true,
                Err(Error::PeerDisconnected { .. }) => return false,
                Err(error) => panic!("{error}"),
                Ok(Some(Event::Ready)) => self.events.push_back(Got::Ready),
                Ok(Some(Event::Message(payload))) => self.events.push_back(Got::Message(payload.to_vec())),
                Ok(Some(Event::HostKey(offered))) => {
                    self.host_key = Some(offered);
                    self.leg.accept_host_key().unwrap();
                }
            }
        }
    }

    async fn flush(&mut self) {
        while !self.leg.output().is_empty() {
            let written = self.stream.write(self.leg.output()).await.unwrap();
            self.leg.wrote(written);
        }
    }

    async fn ready(&mut self) {
        loop {
            match self.next().await {
                Some(Got::Ready) => return,
                Some(Got::Progress) => {}
                other => panic!("expected the first keys, got {other:?}"),
            }
        }
    }

    async fn message(&mut self) -> Vec<u8> {
        loop {
            match self.next().await {
                Some(Got::Message(payload)) => return payload,
                Some(Got::Progress) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    async fn expect(&mut self, number: u8) -> Vec<u8> {
        let payload = self.message().await;
        assert_eq!(payload[0], number, "{payload:?}");
        payload
    }
}

/// Each cipher, with each MAC if it needs one.
fn protections() -> Vec<(Cipher, Mac)> {
    let macs = |cipher: Cipher| if cipher.needs_mac() { &Mac::ALL[..] } else { &Mac::ALL[..1] };
    Cipher::ALL.into_iter().flat_map(|cipher| macs(cipher).iter().map(move |mac| (cipher, *mac))).collect()
}

fn old_soon() -> Policy {
    Policy { bytes: OURS_OLD_AFTER, ..Policy::default() }
}

fn message(number: u8, fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![number];
    fields(&mut out);
    out
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

fn ed25519() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn host_certificate(key: &PrivateKey, ca: &PrivateKey) -> Certificate {
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new_with_random_nonce(&mut safe_rng(), public, 0, u64::MAX - 1).unwrap();
    builder.cert_type(CertType::Host).unwrap();
    builder.key_id("host").unwrap();
    builder.valid_principal("127.0.0.1").unwrap();
    builder.sign(ca).unwrap()
}

// --- The target's side: our client leg ----------------------------------------------------------------------

struct Sshd {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
    user: PrivateKey,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn keygen(directory: &Path, arguments: &[&str]) {
    let status =
        Command::new("ssh-keygen").current_dir(directory).args(arguments).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
}

impl Sshd {
    async fn start(settings: &str) -> Self {
        // Debian's sshd wants it; its service makes it, which doesn't run in a container.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let kinds =
            [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")];
        let names = kinds.map(|(kind, bits)| format!("{kind}-{bits}"));
        for ((kind, bits), name) in kinds.iter().zip(&names) {
            keygen(directory.path(), &["-q", "-t", kind, "-b", bits, "-N", "", "-f", name]);
        }
        keygen(directory.path(), &["-q", "-t", "ed25519", "-N", "", "-f", "ca"]);
        for name in &names {
            let public = format!("{name}.pub");
            keygen(directory.path(), &["-q", "-s", "ca", "-h", "-I", "h", "-n", "web-1", &public]);
        }
        let user = ed25519();
        std::fs::write(path("authorized"), user.public_key().to_openssh().unwrap()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = std::fs::File::create(path("config")).unwrap();
        writeln!(config, "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no")
            .unwrap();
        writeln!(config, "PermitRootLogin yes\nAuthorizedKeysFile {}", path("authorized").display()).unwrap();
        for name in &names {
            let key = path(name);
            writeln!(config, "HostKey {0}\nHostCertificate {0}-cert.pub", key.display()).unwrap();
        }
        writeln!(config, "{settings}").unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Self { child, port, directory, user };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return sshd;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("sshd doesn't listen: {}", sshd.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    async fn connect(&self, config: ClientConfig) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection::new(Leg::client(config).unwrap(), stream);
        connection.ready().await;
        connection
    }
}

/// Asks for user authentication; gives what the server answers to `none`.
async fn ask_for_login(connection: &mut Connection, user: &str) -> Vec<u8> {
    connection.leg.send(&message(5, |out| out.put_string(b"ssh-userauth"))).unwrap();
    connection.expect(6).await;
    let none = message(50, |out| {
        out.put_string(user.as_bytes());
        out.put_string(b"ssh-connection");
        out.put_string(b"none");
    });
    connection.leg.send(&none).unwrap();
    connection.message().await
}

/// Logs in with an Ed25519 key (RFC 4252 section 7): the signature covers the session id.
async fn log_in(connection: &mut Connection, user: &str, key: &PrivateKey) {
    let answer = ask_for_login(connection, user).await;
    assert_eq!(answer[0], 51);
    let request = message(50, |out| {
        out.put_string(user.as_bytes());
        out.put_string(b"ssh-connection");
        out.put_string(b"publickey");
        out.put_boolean(true);
        out.put_string(b"ssh-ed25519");
        out.put_string(&key.public_key().to_bytes().unwrap());
    });
    let mut signed = Vec::new();
    signed.put_string(connection.leg.session_id().unwrap());
    signed.extend_from_slice(&request);
    let signature = HostKey::new(key, None).unwrap().sign(Scheme::Ed25519, &signed).unwrap();
    let mut request = request;
    request.put_string(&signature);
    connection.leg.send(&request).unwrap();
    connection.expect(52).await;
    connection.leg.set_authenticated();
}

/// Runs `cat` and sends `bytes` through it; gives what comes back.
async fn through_cat(connection: &mut Connection, bytes: &[u8]) -> Vec<u8> {
    let open = message(90, |out| {
        out.put_string(b"session");
        out.put_uint32(0);
        out.put_uint32(0x7fff_ffff);
        out.put_uint32(32_768);
    });
    connection.leg.send(&open).unwrap();
    let confirmation = loop {
        let payload = connection.message().await;
        if payload[0] != 80 {
            break payload; // 80: hostkeys-00@openssh.com
        }
    };
    assert_eq!(confirmation[0], 91);
    let mut reader = Reader::new(&confirmation[5..]);
    let (channel, mut window) = (reader.uint32().unwrap(), reader.uint32().unwrap() as usize);
    let exec = message(98, |out| {
        out.put_uint32(channel);
        out.put_string(b"exec");
        out.put_boolean(false);
        out.put_string(b"cat");
    });
    connection.leg.send(&exec).unwrap();
    let (mut rest, mut back) = (bytes, Vec::new());
    let mut eof = false;
    loop {
        while !rest.is_empty()
            && window > 0
            && connection.leg.can_send()
            && connection.leg.output().len() < 65_536
        {
            let length = rest.len().min(window).min(32_000);
            let (now, later) = rest.split_at(length);
            let data = message(94, |out| {
                out.put_uint32(channel);
                out.put_string(now);
            });
            connection.leg.send(&data).unwrap();
            (rest, window) = (later, window - length);
        }
        if rest.is_empty() && !eof {
            connection.leg.send(&message(96, |out| out.put_uint32(channel))).unwrap();
            eof = true;
        }
        let payload = match connection.next().await.unwrap() {
            Got::Message(payload) => payload,
            _ => continue,
        };
        let mut reader = Reader::new(&payload[5..]);
        match payload[0] {
            93 => window += reader.uint32().unwrap() as usize,
            94 => back.extend_from_slice(reader.string().unwrap()),
            97 => return back,
            96 | 98 => {}
            other => panic!("message {other}"),
        }
    }
}

#[tokio::test]
async fn debians_sshd_takes_every_algorithm_and_its_host_keys_are_read() {
    let sshd = Sshd::start("").await;
    let protections = protections();
    // Debian's sshd 9.2 has no mlkem768x25519.
    let methods = KexAlgorithm::ALL.into_iter().filter(|kex| *kex != KexAlgorithm::MlKem768X25519);
    for (row, host_key) in HostKeyAlgorithm::all().into_iter().enumerate() {
        for (column, kex) in methods.clone().enumerate() {
            let (cipher, mac) = protections[(row + column) % protections.len()];
            let mut config = ClientConfig::new(vec![host_key]);
            (config.kex, config.ciphers, config.macs) = (vec![kex], vec![cipher], vec![mac]);
            let mut connection = sshd.connect(config).await;
            let offered = connection.host_key.as_ref().unwrap();
            assert_eq!(offered.algorithm, host_key);
            assert_eq!(offered.key.certificate().is_some(), host_key.certificate);
            if let Some(certificate) = offered.key.certificate() {
                certificate.verify_signature().unwrap();
                assert_eq!(certificate.valid_principals(), ["web-1"]);
            }
            log_in(&mut connection, "root", &sshd.user).await;
            // The host key has to be the same again. (Before login sshd signs only once.)
            connection.leg.start_rekey().unwrap();
            assert_eq!(through_cat(&mut connection, b"hello").await, b"hello");
            assert!(!connection.leg.in_exchange());
            assert_eq!(connection.leg.exchanges(), 2, "{kex:?} {cipher:?} {mac:?} {host_key:?}");
            let algorithms = connection.leg.server_sig_algs().unwrap();
            assert!(algorithms.iter().any(|name| name == "rsa-sha2-512"));
        }
    }
}

#[tokio::test]
async fn eight_megabytes_go_through_debians_sshd_while_both_sides_renew_keys() {
    let sshd = Sshd::start("RekeyLimit 1M").await;
    let bytes = noise(8 << 20);
    for (cipher, mac) in protections() {
        let mut config = ClientConfig::new(HostKeyAlgorithm::all());
        (config.ciphers, config.macs, config.rekey) = (vec![cipher], vec![mac], old_soon());
        let mut connection = sshd.connect(config).await;
        log_in(&mut connection, "root", &sshd.user).await;
        let back = through_cat(&mut connection, &bytes).await;
        assert!(back == bytes, "{cipher:?} {mac:?}: {} bytes came back\n{}", back.len(), sshd.log());
        assert!(connection.leg.exchanges() > 8, "{}", connection.leg.exchanges());
    }
    // Only sshd renews keys.
    let mut connection = sshd.connect(ClientConfig::new(HostKeyAlgorithm::all())).await;
    log_in(&mut connection, "root", &sshd.user).await;
    assert!(through_cat(&mut connection, &bytes).await == bytes);
    assert!(connection.leg.exchanges() > 4, "{}", connection.leg.exchanges());
}

// --- The user's side: our server leg ------------------------------------------------------------------------

/// Lets anybody in and sends back what comes, on one channel, until the end of the input. Gives how many key
/// exchanges there were.
async fn serve_echo(stream: TcpStream, config: Arc<ServerConfig>) -> u32 {
    stream.set_nodelay(true).unwrap();
    let mut connection = Connection::new(Leg::server(config).unwrap(), stream);
    connection.ready().await;
    assert_eq!(connection.expect(5).await[5..], *b"ssh-userauth");
    connection.leg.send(&message(6, |out| out.put_string(b"ssh-userauth"))).unwrap();
    connection.expect(50).await;
    connection.leg.send(&[52]).unwrap();
    connection.leg.set_authenticated();
    let (mut window, mut waiting) = (0usize, VecDeque::<u8>::new());
    let mut channel = [0; 4]; // the peer's number for it
    let mut eof = false;
    let mut closed = false;
    while let Some(event) = connection.next().await {
        let payload = if let Got::Message(payload) = event { payload } else { vec![0] };
        let mut reader = Reader::new(payload.get(5..).unwrap_or_default());
        match payload[0] {
            0 | 80 => {}
            90 => {
                let mut reader = Reader::new(&payload[1..]);
                assert_eq!(reader.string().unwrap(), b"session");
                let peer = reader.uint32().unwrap();
                channel = peer.to_be_bytes();
                window = reader.uint32().unwrap() as usize;
                let confirm = message(91, |out| {
                    out.put_uint32(peer);
                    out.put_uint32(peer);
                    out.put_uint32(0x7fff_ffff);
                    out.put_uint32(32_768);
                });
                connection.leg.send(&confirm).unwrap();
            }
            93 => window += reader.uint32().unwrap() as usize,
            94 => waiting.extend(reader.string().unwrap()),
            96 => eof = true,
            97 => closed = true,
            98 => {
                reader.string().unwrap();
                if reader.boolean().unwrap() {
                    connection.leg.send(&[99, payload[1], payload[2], payload[3], payload[4]]).unwrap();
                }
            }
            other => panic!("message {other}"),
        }
        while !waiting.is_empty() && window > 0 && connection.leg.can_send() {
            let length = waiting.len().min(window).min(32_000);
            let data: Vec<u8> = waiting.drain(..length).collect();
            window -= length;
            let data = message(94, |out| {
                out.extend_from_slice(&channel);
                out.put_string(&data);
            });
            connection.leg.send(&data).unwrap();
        }
        if eof && waiting.is_empty() {
            eof = false;
            let status = message(98, |out| {
                out.extend_from_slice(&channel);
                out.put_string(b"exit-status");
                out.put_boolean(false);
                out.put_uint32(7);
            });
            connection.leg.send(&status).unwrap();
            for number in [96, 97] {
                connection.leg.send(&message(number, |out| out.extend_from_slice(&channel))).unwrap();
            }
        }
        if closed {
            connection.flush().await;
            return connection.leg.exchanges();
        }
    }
    connection.leg.exchanges()
}

struct Known {
    directory: tempfile::TempDir,
}

impl Known {
    /// A known_hosts file that knows one CA, or one key.
    fn write(line: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("known"), line).unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("known")
    }
}

/// Runs `ssh` against a server leg of ours with `input`; gives exchanges, output, status and what it said.
async fn stock_ssh(
    config: Arc<ServerConfig>,
    known: &Known,
    options: &[String],
    input: Vec<u8>,
) -> (u32, Vec<u8>, Option<i32>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut command = tokio::process::Command::new("ssh");
    command.args(["-F", "none", "-v", "-p", &port, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
    command.args(["-o", "GlobalKnownHostsFile=none", "-o", "IdentityAgent=none", "-o", "IdentityFile=none"]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", known.path().display()));
    for option in options {
        command.args(["-o", option]);
    }
    command.args(["nobody@127.0.0.1", "anything"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeding = tokio::spawn(async move { drop(stdin.write_all(&input).await) });
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve_echo(stream, config).await
    };
    let (exchanges, output) =
        tokio::time::timeout(TIME_LIMIT, async { tokio::join!(serving, child.wait_with_output()) })
            .await
            .unwrap();
    feeding.await.unwrap();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (exchanges, output.stdout, output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debians_ssh_takes_every_algorithm_and_our_host_key() {
    let (key, ca) = (ed25519(), ed25519());
    let certificate = host_certificate(&key, &ca);
    let plain = Known::write(&format!("[127.0.0.1]:* {}\n", key.public_key().to_openssh().unwrap()));
    let by_ca = Known::write(&format!("@cert-authority * {}\n", ca.public_key().to_openssh().unwrap()));
    let config = |certificate: Option<&Certificate>| {
        let mut config = ServerConfig::new(vec![HostKey::new(&key, certificate).unwrap()]);
        config.kex = KexAlgorithm::ALL.to_vec();
        config.macs = Mac::ALL.to_vec();
        Arc::new(config)
    };
    let methods = KexAlgorithm::ALL.into_iter().filter(|kex| *kex != KexAlgorithm::MlKem768X25519);
    let knowing = [(&plain, None), (&by_ca, Some(&certificate))];
    for (row, (cipher, mac)) in protections().into_iter().enumerate() {
        for (column, kex) in methods.clone().enumerate() {
            let (known, certificate) = knowing[(row + column) % 2];
            let options = [
                format!("KexAlgorithms={}", kex.name()),
                format!("Ciphers={}", cipher.name()),
                format!("MACs={}", mac.name()),
            ];
            let (exchanges, output, status, said) =
                stock_ssh(config(certificate), known, &options, b"hello".to_vec()).await;
            assert_eq!((output.as_slice(), status, exchanges), (&b"hello"[..], Some(7), 1), "{said}");
            assert!(said.contains("server-sig-algs=<ssh-ed25519,"), "{said}");
        }
    }
    for curve in [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521] {
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ecdsa { curve }).unwrap();
        let known = Known::write(&format!("[127.0.0.1]:* {}\n", key.public_key().to_openssh().unwrap()));
        let config = Arc::new(ServerConfig::new(vec![HostKey::new(&key, None).unwrap()]));
        let (_, output, _, said) = stock_ssh(config, &known, &[], b"hello".to_vec()).await;
        assert_eq!(output, b"hello", "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debians_ssh_sends_eight_megabytes_while_both_sides_renew_keys() {
    let key = ed25519();
    let known = Known::write(&format!("[127.0.0.1]:* {}\n", key.public_key().to_openssh().unwrap()));
    let input = noise(8 << 20);
    for (cipher, policy) in [
        (Cipher::ChaCha20Poly1305, Policy::default()),
        (Cipher::Aes128Gcm, old_soon()),
        (Cipher::Aes256Gcm, old_soon()),
        (Cipher::Aes128Ctr, Policy::default()),
        (Cipher::Aes256Ctr, old_soon()),
    ] {
        let mut config = ServerConfig::new(vec![HostKey::new(&key, None).unwrap()]);
        config.rekey = policy;
        let options = ["RekeyLimit=1M".to_owned(), format!("Ciphers={}", cipher.name())];
        let (exchanges, output, status, said) =
            stock_ssh(Arc::new(config), &known, &options, input.clone()).await;
        assert!(output == input, "{} bytes came back: {said}", output.len());
        assert_eq!(status, Some(7));
        assert!(exchanges > 5, "{exchanges}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debians_ssh_refuses_a_host_key_that_it_does_not_know() {
    let known = Known::write(&format!("[127.0.0.1]:* {}\n", ed25519().public_key().to_openssh().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let child = tokio::process::Command::new("ssh")
        .args(["-F", "none", "-p", &port, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known.path().display()))
        .args(["nobody@127.0.0.1", "true"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let config = Arc::new(ServerConfig::new(vec![HostKey::new(&ed25519(), None).unwrap()]));
    let mut connection = Connection::new(Leg::server(config).unwrap(), stream);
    while let Some(event) = connection.next().await {
        assert_eq!(event, Got::Progress, "it never gets to new keys");
    }
    assert!(
        String::from_utf8_lossy(&child.wait_with_output().await.unwrap().stderr)
            .contains("verification failed")
    );
}
