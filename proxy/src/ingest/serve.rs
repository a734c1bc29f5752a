//! Where agents come in: TLS with a certificate of the agents' authority, on the port of the API; and what happens
//! when one doesn't come back.

use super::agents::Agents;
use super::connection::{self, Ended, Who};
use super::intake::{Intake, is_agent};
use super::join::Joining;
use super::refusals::Refusal;
use crate::api::tls::{Shown, TlsError};
use crate::ca::x509::{AgentAuthority, sole_common_name};
use crate::session::live::{EndCause, LiveSessions};
use custody_core::clock::Clock;
use custody_core::event::producer::{Refused, Signed};
use custody_core::event::session::EndReason;
use custody_core::event::{Actor, Draft, EventData as _, EventId, Outcome, Target, node};
use custody_core::ingest::{PROTOCOL, SILENCE_MILLISECONDS_MAX};
use custody_core::state::State;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long an agent may be away, or there without anything of it being taken, before it counts as lost.
const AWAY_MAX: Duration = Duration::from_millis(SILENCE_MILLISECONDS_MAX);
/// The same after a start of the log: agents look for it with growing patience.
const AWAY_AT_START_MAX: Duration = Duration::from_secs(15);
/// How often it is looked.
const EVERY: Duration = Duration::from_millis(250);

/// What agents reach.
pub struct Ingest {
    /// How TLS is spoken with them.
    pub tls: Arc<rustls::ServerConfig>,
    /// Those that are there.
    pub agents: Arc<Agents>,
    /// Where their events go.
    pub intake: Intake,
    /// How they join.
    pub joining: Arc<Joining>,
    /// Sessions that end when their node's agent is lost.
    pub live: Arc<LiveSessions>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// TLS 1.3 with the certificate that is shown, and with agents' certificates of `authority` and no others.
///
/// # Errors
/// When the authority isn't what it should be.
pub fn server_config(
    shown: &Arc<Shown>,
    authority: &AgentAuthority,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::<Shown>::clone(shown));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

impl Ingest {
    /// Serves one agent whose handshake is done.
    pub async fn serve(&self, stream: TlsStream<TcpStream>, address: SocketAddr) {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let Some(who) = certificate.and_then(who) else {
            return tracing::warn!(%address, "an agent's certificate names no node and no Ed25519 key");
        };
        if !self.intake.replica.read(|state| is_agent(state, &who.node, &who.key)) {
            return tracing::warn!(
                %address,
                "somebody came as the agent of {} with a key that didn't join, or no longer counts",
                who.node
            );
        }
        let mut linked = self.agents.connected(&who.node, self.clock.monotonic());
        tracing::info!(%address, "the agent of {} is connected", who.node);
        let ended = connection::serve(self, &who, &mut linked, stream).await;
        let now = self.clock.monotonic();
        tracing::warn!(%address, "the agent of {} is no longer connected: {ended}", who.node);
        let Ended::Refused(refusal) = ended else { return linked.ended(now) };
        if linked.ended_refused(now, &refusal) {
            self.tell_refused(&who.node, &refusal).await;
        }
    }

    /// Nothing of an agent is taken, and it won't change by itself: somebody has to know.
    async fn tell_refused(&self, name: &str, refusal: &Refusal) {
        // A batch speaks by its signature.
        let attempted = Signed::TYPE.to_owned();
        let refused = Refused { attempted, producer: node::producer(name), reason: refusal.reason.clone() };
        let draft = Draft::new(Actor::system("custodyd"), refused).outcome(Outcome::Denied);
        let told = match self.intake.producer.append(draft).await {
            Ok(told) => {
                tracing::error!("nothing is taken of what the agent of {name} sends: {refusal}");
                Some(told.id())
            }
            Err(error) => {
                tracing::error!(
                    "that nothing is taken of the agent of {name} could not be recorded: {error}"
                );
                None
            }
        };
        self.agents.told_refusal(name, refusal, told);
    }

    /// Says which agents are lost, and ends the sessions that need them; as long as the program runs. Those that the
    /// state knows have a while to come back.
    pub async fn watch(self: Arc<Self>) {
        let watched = |state: &State| -> Vec<String> {
            let there = |node: &custody_core::state::nodes::Node| {
                node.watched.as_ref().is_some_and(|watched| watched.lost.is_none())
            };
            state.nodes().iter().filter(|(_, node)| there(node)).map(|(name, _)| name.to_owned()).collect()
        };
        let start = self.clock.monotonic().saturating_add(AWAY_AT_START_MAX.saturating_sub(AWAY_MAX));
        self.agents.await_return(self.intake.replica.read(watched), start);
        loop {
            tokio::time::sleep(EVERY).await;
            let before = self.clock.monotonic().saturating_sub(AWAY_MAX);
            for node in self.agents.lost(before) {
                // Telling of another takes its time.
                if self.agents.lost(before).contains(&node) {
                    self.lost(&node).await;
                }
            }
        }
    }

    async fn lost(&self, name: &str) {
        let refusal = self.agents.refusal(name);
        let away = AWAY_MAX.as_secs();
        let (reason, why) = match &refusal {
            Some((refusal, _)) => (
                format!("nothing of it was taken for {away} s: {refusal}"),
                "sends nothing that the log takes",
            ),
            None if self.agents.is_there(name) => (
                format!("nothing of it has arrived for {away} s, though it is connected"),
                "is connected, and nothing that it sees reaches the log",
            ),
            None => (format!("nothing was heard of it for {away} s"), "is gone"),
        };
        let detail = format!("the agent of {name} {why}, so nobody would see what the session does");
        // One that has just joined and of which nothing was ever taken can't be missed yet: what the log knows of it is the refusal, if that.
        if self.intake.replica.read(|state| never_heard(state, name)) {
            tracing::warn!("the agent of {name} is lost, of which nothing was ever taken: {reason}");
            self.end_sessions(name, &detail, refusal.and_then(|(_, told)| told));
            return self.agents.told_lost(name);
        }
        let target = Target { kind: "node".to_owned(), name: name.to_owned(), ..Target::default() };
        let lost = node::Lost { name: name.to_owned(), reason: reason.clone() };
        let draft = Draft::new(Actor::system("custodyd"), lost).target(target).outcome(Outcome::Failure);
        match self.intake.producer.append(draft).await {
            Ok(told) => {
                tracing::warn!("the agent of {name} is lost: {reason}");
                // First, since what nobody watches any more ends for that too, and this is why.
                self.end_sessions(name, &detail, Some(told.id()));
                self.agents.told_lost(name);
            }
            // Next time.
            Err(error) => tracing::error!("that the agent of {name} is lost could not be recorded: {error}"),
        }
    }

    fn end_sessions(&self, name: &str, detail: &str, cause: Option<EventId>) {
        let restrained = self.agents.restrained(name);
        let live: Vec<_> = self.intake.replica.read(|state| {
            let required = state.nodes().get(name).is_some_and(|node| node.agent == node::Agent::Required);
            let here = state.sessions().live().filter(|(_, session)| session.opened.node == name);
            here.map(|(id, _)| id).filter(|id| required || restrained.contains(id)).collect()
        });
        for session in live {
            let cause = EndCause { reason: EndReason::NodeLost, detail: detail.to_owned(), cause };
            self.live.end(session, cause);
        }
    }
}

/// Whether the state knows nothing that a node's agent, with the key that counts now, has said of itself.
fn never_heard(state: &State, name: &str) -> bool {
    state.nodes().get(name).is_none_or(|node| node.watched.is_none())
}

/// What a verified certificate says: the node's name and the agent's key.
fn who(certificate: &CertificateDer<'_>) -> Option<Who> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let key = (&*certificate.public_key().subject_public_key.data).try_into().ok()?;
    Some(Who { node: sole_common_name(&certificate)?, key })
}
