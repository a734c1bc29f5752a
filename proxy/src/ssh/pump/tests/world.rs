//! What a pump works with: a real log, a policy, and on either side a peer with its own end of the transport.

use crate::ca::ssh::SessionRequest;
use crate::ca::{CertifyError, SessionCertifier, SessionCredential};
use crate::session::passage::Passage;
use crate::session::{Access, Session, forward, run};
use crate::ssh::certificate::{Extensions, TrustedAuthorities};
use crate::ssh::message::Message;
use crate::ssh::socket::{LegSocket, SocketError};
use crate::ssh::stream::Stream;
use crate::ssh::transport::host_key::tests::ed25519;
use crate::ssh::transport::host_key::{HostKey, HostKeyAlgorithm};
use crate::ssh::transport::leg::{ClientConfig, Event, Incoming, Leg, ServerConfig};
use crate::ssh::transport::rekey;
use custody_core::clock::{Clock, Nanos, SystemClock};
use custody_core::event::login::{Attempt, Failed};
use custody_core::event::session::Requested;
use custody_core::event::{
    Actor, Draft, EventId, ProducerKind, SessionId, Source, Target, Timestamp, log, node, policy,
};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::{Log, Numbering, Producer};
use custody_core::policy::defaults::genesis;
use custody_core::policy::{Circumstances, Request, What, decide};
use custody_core::recording::{Level, Recorder};
use custody_core::state::follow::Replica;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

const USER: &str = "root";
const NODE: &str = "web-1";

/// The time as a log knows it that may be slow: while the gate is shut, its writer waits for the time.
pub struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    /// Whether the writer waits.
    pub waits: watch::Sender<bool>,
}

impl Gate {
    fn new() -> Self {
        Self { is_shut: Mutex::new(false), opened: Condvar::new(), waits: watch::Sender::new(false) }
    }

    pub fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

impl Clock for Gate {
    fn wall(&self) -> Nanos {
        let mut is_shut = self.is_shut.lock().unwrap();
        while *is_shut {
            self.waits.send_replace(true);
            is_shut = self.opened.wait(is_shut).unwrap();
        }
        SystemClock::new().wall()
    }

    fn monotonic(&self) -> Duration {
        SystemClock::new().monotonic()
    }
}

/// Nothing is certified here: the target is connected already.
struct Nobody;

impl SessionCertifier for Nobody {
    fn certify<'a>(
        &'a self,
        _: &'a SessionRequest,
    ) -> Pin<Box<dyn Future<Output = Result<SessionCredential, CertifyError>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(CertifyError::Unavailable("there is none".to_owned()))))
    }
}

pub struct World {
    pub access: Arc<Access>,
    pub session: Arc<Session>,
    pub gate: Arc<Gate>,
    log: Arc<EmbeddedLog>,
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // A log that is dropped waits for its writer.
        self.gate.open();
    }
}

impl World {
    /// With a person who may do what `text` permits.
    pub async fn new(text: &str) -> Self {
        Self::by(text, Arc::new(SystemClock::new())).await
    }

    /// By this clock, but for the log.
    pub async fn by(text: &str, clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::new());
        let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
        let options = Options::new(signer, Arc::<Gate>::clone(&gate));
        let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let shared: Arc<dyn Log> = log.clone();
        let numbering = |id: &str, kind| Numbering {
            log: Arc::clone(&shared),
            clock: Arc::clone(&clock),
            id: id.to_owned(),
            kind,
            previous: None,
            program: "test".to_owned(),
        };
        let created =
            log::Created { origin: log.origin().to_owned(), verifier_key: log.verifier_key().to_string() };
        let g = genesis(created, USER, 1);
        let system = || Actor::system("test");
        let uploaded = policy::Uploaded { name: "test".to_owned(), text: text.to_owned() };
        let uploaded = Draft::new(system(), uploaded).cause(g.decision.id);
        let added = node::Added {
            address: "192.0.2.10:22".to_owned(),
            agent: node::Agent::None,
            host_key: None,
            labels: BTreeMap::new(),
            name: NODE.to_owned(),
        };
        let added = Draft::new(system(), added).cause(g.decision.id);
        let first = ((g.created, g.decision, g.role), (g.policy, g.user, g.password), (uploaded, added));
        let _log_role = Producer::start(numbering("custody", ProducerKind::Log), first).await.unwrap();
        let proxy = numbering("proxy", ProducerKind::Proxy);
        let proxy = Producer::start(proxy, Vec::<Draft<Failed>>::new()).await.unwrap();
        let replica = Replica::new();
        replica.catch_up(&*log, |_, _| ()).unwrap();
        let (now, nobody) = (clock.wall().0, ed25519());
        let authorities = || Arc::new(TrustedAuthorities::new([nobody.public_key()]));
        let access = Arc::new(Access {
            proxy: Arc::new(proxy),
            replica: Arc::new(replica),
            certifier: Arc::new(Nobody),
            clock,
            recordings: dir.path().join("recordings"),
            source_addresses: Vec::new(),
            auditors: Vec::new(),
            exec_bytes_max: 1 << 20,
            log_outage: Duration::from_secs(600),
            client_authorities: authorities(),
            host_authorities: authorities(),
            live: Arc::default(),
            admission: Arc::default(),
            agents: Arc::default(),
            passwords: None,
        });
        let session = Arc::new(Session {
            id: SessionId::new(),
            actor: system(),
            user: USER.to_owned(),
            source: Source::default(),
            target: Target {
                address: None,
                kind: "node".to_owned(),
                login: Some("root".into()),
                name: NODE.to_owned(),
            },
            circumstances: Circumstances {
                certificate_seconds: 1,
                mfa: false,
                source: "192.0.2.7".parse().unwrap(),
                time: Timestamp::from_nanos(now),
            },
            proved_since: now / 1_000_000_000,
            announced: EventId::new(),
        });
        Self { access, session, gate, log, _dir: dir }
    }

    /// Has the log know of the session, as it does before anything passes.
    pub async fn begin(&self) {
        let session = &self.session;
        let login = session.target.login.clone().unwrap_or_default();
        let request = Request {
            user: session.user.clone(),
            what: What::Connect { node: session.target.name.clone(), login },
            session: Some(session.id),
            circumstances: session.circumstances,
        };
        let decision = self.access.replica.read(|state| decide(state, &request));
        assert!(decision.allowed(), "{}", decision.made.reason);
        let recording = decision.recording.name().to_owned();
        let made = session.draft(decision.made, session.announced);
        let requested = Requested { protocol: "ssh".to_owned(), recording };
        let requested = session.draft(requested, made.id);
        let _durable = self.access.proxy.append((made, requested)).await.unwrap();
    }

    /// Why the fold doesn't take some of the events so far, if it doesn't.
    pub fn refused(&self) -> Vec<&'static str> {
        self.access.replica.catch_up(&*self.log, |_, _| ()).unwrap();
        self.access.replica.read(|state| state.refused().iter().map(|refusal| refusal.reason).collect())
    }

    pub fn passage(&self, level: Level) -> Passage {
        let started = self.session.id.made_at().nanos();
        let recorder = Recorder::create(&self.access.recordings, self.session.id.0, started, level).unwrap();
        Passage::new(recorder, Arc::clone(&self.access.clock), &Extensions::every())
    }

    /// What a session does at its end, but for the event that says so. Gives the recording.
    pub fn close(&self, passage: Passage) -> PathBuf {
        let (recorder, ends, after) = passage.finish();
        for ended in ends {
            run::ended(&self.access, &self.session, ended).unwrap();
        }
        for after in after {
            forward::told(&self.access, &self.session, after).unwrap();
        }
        let (path, now) = (recorder.path().to_owned(), recorder.last_ns());
        recorder.seal(now).unwrap();
        path
    }

    /// Waits until everything that was submitted by now is durable.
    pub async fn durable(&self) {
        let mark =
            Failed { claimed_user: None, method: Attempt::SshCertificate, reason: "a mark".to_owned() };
        let _durable = self.access.proxy.append(Draft::new(Actor::system("test"), mark)).await.unwrap();
    }

    /// All events so far whose type ends like this.
    pub fn events(&self, end: &str) -> Vec<Value> {
        let entries = self.log.read(0, usize::MAX, usize::MAX).unwrap();
        let events = entries.iter().map(|entry| serde_json::from_slice::<Value>(&entry.bytes).unwrap());
        events.filter(|event| event["type"].as_str().unwrap().ends_with(end)).collect()
    }

    /// A person and a target that have both logged in: what the pump has of either, and they themselves. The proxy renews
    /// the keys towards the target after so many bytes.
    pub async fn connected(&self, target_rekey_bytes: u64) -> Ends {
        let rekey = rekey::Policy { bytes: target_rekey_bytes, ..rekey::Policy::default() };
        let (client, near) = logged_in(rekey::Policy::default(), rekey::Policy::default());
        let (far, target) = logged_in(rekey::Policy::default(), rekey);
        let clock = &self.access.clock;
        let pair = |ours: Leg, theirs: Leg| {
            let (stream, other) = Stream::pair().unwrap();
            let ours = LegSocket::new(stream, ours, Arc::clone(clock)).unwrap();
            let theirs = LegSocket::new(Stream::Local(other), theirs, Arc::clone(clock)).unwrap();
            (ours, Peer { socket: theirs, heard: Vec::new() })
        };
        let (client, near) = pair(client, near);
        let (target, far) = pair(target, far);
        for socket in [&client, &near.socket, &target, &far.socket] {
            // From now on it is known that they can be written to.
            socket.stream.writable().await.unwrap();
        }
        Ends { near, client, target, far }
    }
}

/// Both ends of a connection, server and client.
fn logged_in(server_rekey: rekey::Policy, client_rekey: rekey::Policy) -> (Leg, Leg) {
    let mut server = ServerConfig::new(vec![HostKey::new(&ed25519(), None).unwrap()]);
    server.rekey = server_rekey;
    let mut client = ClientConfig::new(HostKeyAlgorithm::all());
    client.rekey = client_rekey;
    let (mut server, mut client) = (Leg::server(Arc::new(server)).unwrap(), Leg::client(client).unwrap());
    while carry(&mut client, &mut server) + carry(&mut server, &mut client) > 0 {}
    server.set_authenticated();
    client.set_authenticated();
    assert!(server.can_send() && client.can_send());
    (server, client)
}

fn carry(from: &mut Leg, to: &mut Leg) -> usize {
    let mut bytes = from.output().to_vec();
    let count = bytes.len();
    from.wrote(count);
    let mut incoming = Incoming::new(&mut bytes, SystemClock::new().monotonic());
    loop {
        let is_host_key = match to.next(&mut incoming).unwrap() {
            None => return count,
            Some(event) => matches!(event, Event::HostKey(_)),
        };
        if is_host_key {
            to.accept_host_key().unwrap();
        }
    }
}

/// What a pump stands between.
pub struct Ends {
    /// The person's client.
    pub near: Peer,
    /// The proxy's leg towards it.
    pub client: LegSocket,
    /// The proxy's leg towards the target.
    pub target: LegSocket,
    /// The target's server.
    pub far: Peer,
}

/// A peer of the proxy's: it says what a test says, and keeps what it hears.
pub struct Peer {
    pub socket: LegSocket,
    pub heard: Vec<Vec<u8>>,
}

impl Peer {
    pub fn say(&mut self, message: Message<'_>) {
        self.socket.leg.send(&message.to_payload()).unwrap();
        self.socket.write().unwrap();
    }

    /// Writes what is taken, and hears once something is there.
    pub async fn turn(&mut self) -> Result<(), SocketError> {
        let Self { socket, heard } = self;
        loop {
            let has_output = !socket.leg.output().is_empty();
            tokio::select! {
                biased;
                readable = socket.stream.readable() => {
                    readable?;
                    break;
                }
                writable = socket.stream.writable(), if has_output => {
                    writable?;
                    socket.write()?;
                }
            }
        }
        socket.hear(|payload, _| {
            heard.push(payload.to_vec());
            Ok::<(), SocketError>(())
        })?;
        socket.write()?;
        Ok(())
    }

    /// Goes on until it has heard what `wanted` takes.
    pub async fn until<T>(&mut self, wanted: impl Fn(&Message<'_>) -> Option<T>) -> T {
        loop {
            let mut heard = self.heard.iter().filter_map(|payload| Message::parse(payload).ok());
            if let Some(found) = heard.find_map(|message| wanted(&message)) {
                return found;
            }
            self.turn().await.unwrap();
        }
    }

    /// Goes on until so many bytes of data have come in all.
    pub async fn until_data(&mut self, bytes: usize) {
        while self.data().len() < bytes {
            self.turn().await.unwrap();
        }
    }

    /// Goes on until the other side has ended it.
    pub async fn until_gone(&mut self) {
        while self.turn().await.is_ok() {}
    }

    /// All data that have come, of whatever channel.
    pub fn data(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for payload in &self.heard {
            if let Ok(Message::Data { data, .. }) = Message::parse(payload) {
                all.extend_from_slice(data);
            }
        }
        all
    }

    /// All that has come on standard error, of whatever channel.
    pub fn errors(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for payload in &self.heard {
            if let Ok(Message::ExtendedData { data, .. }) = Message::parse(payload) {
                all.extend_from_slice(data);
            }
        }
        all
    }
}
