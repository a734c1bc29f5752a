//! Syslog over TLS, into an rsyslog that writes what it gets to a file.

use super::source::Source;
use super::{Filled, ORIGIN, Store, delivered, events, no_secrets, on_a_new_one, rate, rounds};
use crate::cores::begun;
use crate::table::Row;
use custody_core::log::Log as _;
use custody_sinks::item::Item;
use custody_sinks::sink::Sink as _;
use custody_sinks::syslog::Syslog;
use custody_tests::servers::Rsyslog;
use custody_tests::servers::tls::Identity;
use custody_tests::wait::{DEADLINE, until_true};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What its certificate is for.
const HOST: &str = "localhost";

/// Entries that are read at once.
const READ: usize = 1_000;
const READ_BYTES: usize = 1 << 20;

/// Beside the same messages over one connection from a loop that has them ready. Both have ended when the receiver has read all
/// of them and says so by ending the connection.
pub fn row() -> Row {
    let frames = frames();
    let mut pairs = Vec::new();
    for _ in 0..rounds() {
        let ours = on_a_new_one::<Receiver, _>(|receiver, sink| {
            let took = delivered(sink, Filled::Later);
            receiver.has_all();
            took
        });
        let bare = on_a_new_one::<Receiver, _>(|receiver, _| {
            let took = receiver.take(&frames);
            receiver.has_all();
            took
        });
        pairs.push((rate(ours), rate(bare)));
    }
    Row {
        name: format!("{}, events/s", Receiver::NAME),
        pairs,
        beside: "the same over one connection",
        more_is_better: true,
        aim: Some(0.9),
    }
}

struct Receiver {
    rsyslog: Rsyslog,
    identity: Identity,
    /// Where the authority's certificate lies.
    ca: PathBuf,
    /// What it has written, a line each.
    messages: PathBuf,
}

impl Store for Receiver {
    type Sink = Syslog;
    const NAME: &'static str = "syslog over TLS";

    fn start(dir: &Path) -> Self {
        let (identity, messages) = (Identity::new(), dir.join("messages"));
        let action = format!("action(type=\"omfile\" file=\"{}\" template=\"line\")", messages.display());
        let mut rsyslog = Rsyslog::tls(dir, &identity, &[action.as_str(), "stop"]);
        begun(|| rsyslog.start());
        Self { rsyslog, identity, ca: dir.join("ca.pem"), messages }
    }

    fn port(&self) -> u16 {
        self.rsyslog.service.port()
    }

    fn sink(&self, port: u16) -> Syslog {
        sink(port, &self.ca)
    }
}

impl Receiver {
    /// Also what was only in its queue when it said that it had read it.
    fn has_all(&self) {
        let lines =
            || File::open(&self.messages).map_or(0, |file| BufReader::new(file).split(b'\n').count() as u64);
        until_true("rsyslog has written all of them", DEADLINE, || lines() >= events());
    }

    /// How long it takes to get all of it to there.
    fn take(&self, frames: &[u8]) -> Duration {
        let mut authorities = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.identity.ca.as_bytes()).expect("a certificate");
        authorities.add(ca).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(authorities)
            .with_no_client_auth();
        let name = ServerName::try_from(HOST).expect("a name");
        let begun = Instant::now();
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = TcpStream::connect(self.rsyslog.service.address()).expect("it listens");
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(frames).expect("it takes them");
        stream.conn.send_close_notify();
        stream.flush().expect("it takes the end of them");
        stream.sock.shutdown(Shutdown::Write).expect("it is connected");
        // It says nothing, and then that it ends too.
        std::io::copy(&mut stream, &mut std::io::sink()).expect("it ends in order");
        begun.elapsed()
    }
}

fn sink(port: u16, ca: &Path) -> Syslog {
    let settings = serde_json::json!({ "server": format!("{HOST}:{port}"), "tls": { "ca": ca } });
    Syslog::new(serde_json::from_value(settings).expect("settings"), no_secrets(), ORIGIN)
}

/// A log as the sink sends it.
fn frames() -> Vec<u8> {
    let mut source = Source::new();
    source.fill_to(events());
    let sink = sink(0, Path::new("/nowhere"));
    let (mut frames, mut next) = (Vec::new(), 0);
    while next < events() {
        let entries = source.log.read(next, READ, READ_BYTES).expect("entries");
        next += entries.len() as u64;
        for entry in entries {
            frames.extend(sink.encode(&Item::new(entry)).expect("a message"));
        }
    }
    frames
}
