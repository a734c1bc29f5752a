//! Where SSH connections come in, and the story of one.

use super::admission::{LOGIN_TIMEOUT, Place, Refused, TYPING_TIMEOUT};
use super::authenticate::{self, server::Denied};
use super::certificate::Extensions;
use super::client::{self, Client, ClientError};
use super::host_proof::{self, HostProver};
use super::jump;
use super::pump;
use super::relay::Side;
use super::socket::LegSocket;
use super::stream::Stream;
use super::target::{self, Means, TargetError};
use super::transport::leg::ServerConfig;
use super::transport::reason;
use crate::balancer::Balancers;
use crate::ca::ssh::Permission;
use crate::ingest::agents::Seen;
use crate::session::close::{self, Moved};
use crate::session::identity::Identity;
use crate::session::live::{EndCause, Enlisted};
use crate::session::open::{self, OpenError, Opened};
use crate::session::passage::Passage;
use crate::session::{Access, Session, rights};
use custody_core::event::login::{Attempt, Failed};
use custody_core::event::session::{EndReason, Started};
use custody_core::event::{ByteString, Draft, Outcome, node};
use custody_core::recording::{Level, Recorder};
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How long a farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Where connections come in, whatever way they came.
pub struct Entrance {
    /// What the next connection is shown.
    config: RwLock<Arc<ServerConfig>>,
    access: Arc<Access>,
    connections: Arc<Semaphore>,
}

impl Entrance {
    /// For at most `connections_max` connections at once.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, access: Arc<Access>, connections_max: usize) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max));
        Self { config: RwLock::new(config), access, connections }
    }

    /// Shows this from the next connection on: host keys' certificates don't last as long as a proxy may run.
    pub fn show(&self, config: Arc<ServerConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a connection in, which is served from now on, to the node that its way has named, if it has. False: there
    /// are too many, and it is closed.
    pub fn enter(self: &Arc<Self>, stream: Stream, from: SocketAddr, node: Option<String>) -> bool {
        let Some(connection) = self.connection(from) else { return false };
        let Some(place) = self.place(from) else { return false };
        let entrance = Arc::clone(self);
        tokio::spawn(async move {
            let _connection = connection;
            entrance.serve_one(stream, from, node, place).await;
        });
        true
    }

    /// The same for a connection that may be a balancer's, who then says whose it is: the place is that person's.
    fn enter_balanced(self: &Arc<Self>, mut stream: TcpStream, peer: SocketAddr, balancers: &Arc<Balancers>) {
        let Some(connection) = self.connection(peer) else { return };
        let (entrance, balancers) = (Arc::clone(self), Arc::clone(balancers));
        tokio::spawn(async move {
            let _connection = connection;
            match balancers.source(&mut stream, peer).await {
                Ok(from) => {
                    let Some(place) = entrance.place(from) else { return };
                    entrance.serve_one(Stream::Tcp(stream), from, None, place).await;
                }
                Err(error) => tracing::warn!(%peer, "{error}"),
            }
        });
    }

    fn connection(&self, from: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let connection = Arc::clone(&self.connections).try_acquire_owned();
        connection.map_err(|_| self.refuse(from, Refused::Connections)).ok()
    }

    /// A place among those who have proved nothing yet.
    fn place(&self, from: SocketAddr) -> Option<Place> {
        let place = self.access.admission.enter(from.ip(), self.access.clock.monotonic());
        place.map_err(|why| self.refuse(from, why)).ok()
    }

    fn refuse(&self, from: SocketAddr, why: Refused) {
        self.access.admission.count(why);
        tracing::debug!(%from, "a connection was closed at once: too many {}", why.name());
    }

    async fn serve_one(
        self: Arc<Self>,
        stream: Stream,
        from: SocketAddr,
        node: Option<String>,
        mut place: Place,
    ) {
        let access = &self.access;
        let config = self.config();
        let welcome = Box::pin(client::welcome(stream, from, node, Arc::clone(&config), access));
        let patience = if access.passwords.is_some() { TYPING_TIMEOUT } else { LOGIN_TIMEOUT };
        let welcomed = tokio::select! {
            welcomed = tokio::time::timeout(patience, welcome) => welcomed,
            () = place.displaced() => {
                access.admission.count(Refused::Displaced);
                tracing::debug!(%from, "a client that dawdled was closed: another needed its place");
                return;
            }
        };
        drop(place);
        match welcomed {
            Ok(Ok(client)) if client.is_jump() => Box::pin(jumps(client, from, &self)).await,
            Ok(Ok(client)) => proved(client, from, config, access).await,
            Ok(Err(error)) => {
                access.admission.count(error.refused());
                Box::pin(unproved(access, from, error)).await;
            }
            Err(_) => {
                access.admission.count(Refused::Timeout);
                tracing::debug!(%from, "a client took too long to log in");
            }
        }
    }
}

/// Serves until `stop` says so; sessions that live then go on by themselves.
pub async fn serve(
    listener: TcpListener,
    entrance: Arc<Entrance>,
    balancers: Balancers,
    mut stop: watch::Receiver<bool>,
) {
    let balancers = Arc::new(balancers);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => entrance.enter_balanced(stream, peer, &balancers),
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A person who names no node: that he came is durable before he hears that he may, and then nodes can be reached from
/// here.
async fn jumps(client: Client, from: SocketAddr, entrance: &Arc<Entrance>) {
    let Client { mut socket, proved, .. } = client;
    let version = socket.leg.peer_version();
    let came = async {
        let identity = Identity::of(proved.proof())?;
        open::came(&entrance.access, &identity, from, version.as_deref()).await
    };
    if let Err(error) = came.await {
        if error.came_before_the_decision() {
            record_refusal(&entrance.access, from, error.to_string()).await;
        }
        return turn_away(socket, &error.to_string()).await;
    }
    let (success, _authenticated) = proved.accept();
    // A client that left meanwhile shows at the next read.
    let _left = socket.leg.send(&success);
    socket.leg.set_authenticated();
    // What it carries comes in by the entrance again: boxed, or the future would hold itself.
    let served: BoxFuture<'_, ()> = Box::pin(jump::serve(socket, from, entrance));
    served.await;
}

/// A client that proved nothing: if it showed a certificate, that is an event.
async fn unproved(access: &Access, from: SocketAddr, error: ClientError) {
    let denied = match error {
        // That was told when it happened.
        ClientError::Refused(Denied::Password)
        | ClientError::Fault { denied: Some(Denied::Password), .. } => {
            return;
        }
        ClientError::NoEvidence(error) => {
            tracing::error!(%from, "a failed login could not be recorded: {error}");
            return;
        }
        ClientError::Refused(denied) | ClientError::Fault { denied: Some(denied), .. } => denied,
        other => {
            tracing::debug!(%from, "a client left before it proved anything: {other}");
            return;
        }
    };
    record_refusal(access, from, denied.to_string()).await;
}

async fn record_refusal(access: &Access, from: SocketAddr, reason: String) {
    let failed = Failed { claimed_user: None, method: Attempt::SshCertificate, reason };
    if let Err(error) = open::refused(access, from, failed).await {
        tracing::error!(%from, "a failed login could not be recorded: {error}");
    }
}

/// A session in which messages may pass.
struct Begun {
    session: Arc<Session>,
    enlisted: Enlisted,
    client: LegSocket,
    target: LegSocket,
    passage: Passage,
    /// While it is held, the node's agent watches.
    seen: Option<Seen>,
}

/// The person is proved: decide, connect, relay, close.
///
/// A future has room for its largest step as long as it lasts. So what comes before and after the relay is boxed: a
/// session that waits for its person keeps nothing of it.
async fn proved(client: Client, from: SocketAddr, config: Arc<ServerConfig>, access: &Arc<Access>) {
    let Some(begun) = Box::pin(begin(client, from, config, access)).await else { return };
    let Begun { session, enlisted, client, target, mut passage, seen } = begun;
    let course = pump::relay(access, &session, client, target, &mut passage, enlisted.end.clone()).await;
    let (recorder, ends, after) = passage.finish();
    for ended in ends {
        if let Err(error) = crate::session::run::ended(access, &session, ended) {
            tracing::warn!(session = %session.id, "the end of a command could not be recorded: {error}");
        }
    }
    for after in after {
        if let Err(error) = crate::session::forward::told(access, &session, after) {
            tracing::warn!(session = %session.id, "the end of a connection could not be recorded: {error}");
        }
    }
    let moved = Moved { bytes_in: course.bytes_in, bytes_out: course.bytes_out };
    // Its connection is closed: nobody has to see its processes any more, which are on their way out.
    drop(seen);
    Box::pin(end(access, &session, &course.end, moved, Some(recorder))).await;
}

/// Decides, connects, and tells the client that it is in; `None` if that comes to nothing, which it was told then.
async fn begin(
    client: Client,
    from: SocketAddr,
    config: Arc<ServerConfig>,
    access: &Arc<Access>,
) -> Option<Begun> {
    let Client { mut socket, proved, node } = client;
    let wanted = client::login_and_node(proved.user_name(), node.as_deref());
    let version = socket.leg.peer_version();
    let opening = async {
        let identity = Identity::of(proved.proof())?;
        let opened = open::open(access, &identity, wanted, from, version.as_deref()).await?;
        Ok((identity, opened))
    };
    let (identity, opened) = match opening.await {
        Ok(opened) => opened,
        Err(error) => {
            if let OpenError::NoEvidence(cause) = &error {
                tracing::error!(%from, "no evidence, no session: {cause}");
            }
            if error.came_before_the_decision() {
                record_refusal(access, from, error.to_string()).await;
            }
            turn_away(socket, &error.to_string()).await;
            return None;
        }
    };
    let Opened { session, index, permit, trust, recording, watch } = opened;
    // From here on whoever follows the log can end it.
    let mut enlisted = access.live.enlist(session.id);
    rights::look_at_new(access, session.id, index).await;

    let Identity { extensions, force_command, .. } = identity;
    let means = Means {
        trust: &trust,
        watch: &watch,
        certifier: &*access.certifier,
        source_addresses: &access.source_addresses,
        permissions: permissions(&extensions),
        force_command: force_command.as_deref(),
        clock: Arc::clone(&access.clock),
    };
    let connecting = async {
        tokio::select! {
            biased;
            ended = enlisted.end.wait_for(Option::is_some) => Err(match ended {
                Ok(cause) => cause.clone(),
                Err(_) => None,
            }),
            connected = target::connect(permit, means) => Ok(connected),
        }
    };
    let target = match connecting.await {
        Ok(Ok(target)) => target,
        Ok(Err(error)) => {
            failed(access, &session, socket, error).await;
            return None;
        }
        Err(cause) => {
            let cause = cause.unwrap_or_else(|| unavailable("the proxy stops".to_owned()));
            end(access, &session, &cause, Moved::default(), None).await;
            turn_away(socket, &cause.detail).await;
            return None;
        }
    };

    let recorder = match record(access, &session, recording.name()) {
        Ok(recorder) => recorder,
        Err(detail) => {
            let cause = EndCause { reason: EndReason::RecordingFailed, detail, cause: None };
            end(access, &session, &cause, Moved::default(), None).await;
            turn_away(socket, &cause.detail).await;
            return None;
        }
    };
    let started = Started {
        host_key: target.host_key,
        host_proof: target.host_proof.to_owned(),
        serial: target.serial.to_string(),
        server: ByteString::from(target.version.as_str()),
        watched: target.seen.is_some(),
    };
    let draft =
        session.draft(started, target.announced).source(session.source.clone()).outcome(Outcome::Success);
    if let Err(error) = access.proxy.append(draft).await {
        tracing::error!(session = %session.id, "the start of a session could not be recorded: {error}");
        let detail = OpenError::NoEvidence(error).to_string();
        let cause = EndCause { reason: EndReason::LogUnavailable, detail, cause: None };
        end(access, &session, &cause, Moved::default(), Some(recorder)).await;
        turn_away(socket, &cause.detail).await;
        return None;
    }

    let (success, _authenticated) = proved.accept();
    let mut said = Ok(());
    for banner in target.banners.iter().flat_map(|text| authenticate::banners(text)) {
        said = said.and_then(|()| socket.leg.send(&banner));
    }
    said = said.and_then(|()| socket.leg.send(&success));
    socket.leg.set_authenticated();
    said = said.and_then(|()| socket.leg.send(&host_proof::announcement(&config)));
    if let Err(error) = said {
        tracing::info!(session = %session.id, "the client left during login: {error}");
    }

    let mut passage = Passage::new(recorder, Arc::clone(&access.clock), &extensions);
    passage.force_command(force_command);
    passage.prove_hosts(HostProver::new(config, &socket.leg));
    Some(Begun { session, enlisted, client: socket, target: target.socket, passage, seen: target.seen })
}

/// What the target may let the session do: what the person's certificate permits. Each thing is decided when it is
/// asked for.
fn permissions(extensions: &Extensions) -> Vec<Permission> {
    [
        (extensions.pty, Permission::Pty),
        (extensions.port_forwarding, Permission::PortForwarding),
        (extensions.agent_forwarding, Permission::AgentForwarding),
        (extensions.x11_forwarding, Permission::X11Forwarding),
        (true, Permission::UserRc),
    ]
    .into_iter()
    .filter_map(|(permitted, permission)| permitted.then_some(permission))
    .collect()
}

fn record(access: &Access, session: &Session, level: &str) -> Result<Recorder, String> {
    let level = Level::from_name(level).unwrap_or(Level::Terminal);
    let started = session.id.made_at().nanos();
    let mut recorder = Recorder::create(&access.recordings, session.id.0, started, level)
        .map_err(|error| format!("the session can't be recorded: {error}"))?;
    recorder.set_plain_output_bytes_max(access.exec_bytes_max);
    let sealed = recorder.seal_input_to(started, &access.auditors);
    sealed.map_err(|error| format!("the session can't be recorded: {error}"))?;
    Ok(recorder)
}

/// The target can't be used: the person is told why, and it is an event; so is a host key that isn't trusted.
async fn failed(access: &Access, session: &Session, socket: LegSocket, error: TargetError) {
    let mut cause = unavailable(error.to_string());
    if let TargetError::HostKey { refused, .. } = &error {
        let data = node::HostKeyRefused {
            expected: refused.expected.clone(),
            got: refused.got.clone(),
            reason: refused.reason.clone(),
        };
        let draft = Draft::new(session.actor.clone(), data)
            .cause(session.announced)
            .session(session.id)
            .target(session.target.clone())
            .outcome(Outcome::Denied);
        cause.reason = EndReason::HostKeyRefused;
        cause.cause = Some(draft.id);
        if let Err(error) = access.proxy.append(draft).await {
            tracing::error!(session = %session.id, "a refused host key could not be recorded: {error}");
        }
    }
    end(access, session, &cause, Moved::default(), None).await;
    turn_away(socket, &cause.detail).await;
}

fn unavailable(detail: String) -> EndCause {
    EndCause { reason: EndReason::TargetUnavailable, detail, cause: None }
}

async fn end(access: &Access, session: &Session, cause: &EndCause, moved: Moved, recorder: Option<Recorder>) {
    if let Err(error) = close::close(access, session, cause, moved, recorder).await {
        // The next start finds a session without an end, and says so.
        tracing::error!(session = %session.id, "the end of a session could not be recorded: {error}");
    }
}

/// Tells the client why, in the one line that every client shows, and lets it go.
async fn turn_away(mut socket: LegSocket, line: &str) {
    // A client that is gone already can't be told.
    let _gone = socket.leg.disconnect(reason::BY_APPLICATION, &format!("custody: {line}"));
    let _late = tokio::time::timeout(FAREWELL_TIMEOUT, socket.flush()).await;
    tracing::info!(side = %Side::Client, "turned away: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a future takes, though there is none yet.
    fn bytes_of<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_that_waits_keeps_no_room_for_its_beginning() {
        type Proved = (Client, SocketAddr, Arc<ServerConfig>, &'static Arc<Access>);
        let bytes = bytes_of(|(client, from, config, access): Proved| proved(client, from, config, access));
        assert!(bytes <= 8 * 1024, "{bytes} bytes for each session");
    }
}
