//! How an agent becomes a node's: by a token that is good once, it gets a certificate for its key. From then on the log
//! knows the key as the node's.

use super::connection::Who;
use super::intake::is_agent;
use crate::ca::IssueError;
use crate::ca::x509::{AgentAuthority, IssuedX509};
use crate::login::secrets::SecretStore;
use crate::login::token::{self, Minted};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use custody_core::clock::Clock;
use custody_core::event::certificate::Authority;
use custody_core::event::hex::to_hex;
use custody_core::event::{Actor, Draft, Outcome, Source, System, Target, Timestamp, node};
use custody_core::log::{Producer, ProducerError};
use custody_core::state::follow::{Replica, Stopped};
use std::sync::Arc;

/// What a token begins with, so that scanners for secrets know it.
const PREFIX: &str = "custody-join~";
/// How long an agent's certificate is good for, in seconds: 30 days. A new one is given over the connection.
const CERTIFICATE_SECONDS: u64 = 30 * 24 * 3600;

/// Why an agent doesn't join. `Display` says no more than whoever asks may know.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token isn't one that counts.
    #[error("the token isn't good (any more): make another with `custody node token`")]
    Token,
    /// The signing request.
    #[error("{0}")]
    Request(String),
    /// The log takes no evidence.
    #[error("the audit log takes no evidence, so nothing was done: tell your administrator")]
    NoEvidence(#[from] ProducerError),
    /// The state is behind.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The secret store, or randomness.
    #[error("the server failed to look the token up: tell your administrator")]
    Failed(String),
}

/// Makes agents those of nodes.
pub struct Joining {
    /// Who signs.
    pub authority: AgentAuthority,
    /// Where tokens' hashes lie.
    pub secrets: Arc<SecretStore>,
    /// The `log` role's own events.
    pub producer: Arc<Producer>,
    /// State, folded from the log.
    pub replica: Arc<Replica>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Whoever holds this is the only one who uses a token up.
    pub joining: tokio::sync::Mutex<()>,
}

/// A fresh token for the agent of `node`; `None` if the system has no randomness.
pub(crate) fn mint(node: &str) -> Option<Minted> {
    token::mint(PREFIX, node)
}

/// Whose secret it is in the secret store: no user's name has a colon.
pub(crate) fn secret_owner(node: &str) -> String {
    format!("node:{node}")
}

impl Joining {
    /// Uses a token up: the node's name, and a certificate for the key that signed the request (PKCS#10, DER).
    /// `node.enrolled` and `certificate.issued` are durable when this returns.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(
        &self,
        token: &str,
        signing_request: &[u8],
        source: Source,
    ) -> Result<(String, String), JoinError> {
        let name = token::claimed(PREFIX, token).ok_or(JoinError::Token)?;
        let _turn = self.joining.lock().await;
        if let Some(last) = self.producer.log().size().checked_sub(1) {
            self.replica.at_least(last).await?;
        }
        let now = Timestamp::from(self.clock.wall());
        let known = self.replica.read(|state| state.nodes().get(name).and_then(|node| node.token.clone()));
        let known = known.filter(|token| now < token.expires).ok_or(JoinError::Token)?;
        let owner = secret_owner(name);
        let stored = self.secrets.get(&owner, known.version);
        let stored = stored.map_err(|error| JoinError::Failed(error.to_string()))?.ok_or(JoinError::Token)?;
        verify_slices_are_equal(stored.as_bytes(), token::hash(token).as_bytes())
            .map_err(|_| JoinError::Token)?;
        let (issued, key) = self.issue(name, signing_request)?;
        let actor = Actor::System(System { system: node::producer(name) });
        let target = Target { kind: "node".to_owned(), name: name.to_owned(), ..Target::default() };
        let enrolled = Draft::new(actor.clone(), node::Enrolled { key: to_hex(&key), name: name.to_owned() })
            .cause(known.event)
            .source(source.clone())
            .target(target.clone())
            .outcome(Outcome::Success);
        let told = Draft::new(actor, issued.told(Authority::AgentX509)?)
            .cause(enrolled.id)
            .source(source)
            .target(target)
            .outcome(Outcome::Success);
        let (_enrolled, told) = self.producer.append((enrolled, told)).await?;
        self.replica.at_least(told.index()).await?;
        if let Err(error) = self.secrets.retire_below(&owner, known.version.saturating_add(1)) {
            tracing::warn!(%error, "a used token's hash couldn't be removed; it counts no longer");
        }
        tracing::info!("an agent has joined as {name}");
        Ok((name.to_owned(), issued.pem))
    }

    /// Another certificate for an agent's key, which must be the one that joined. `certificate.issued` is durable when
    /// this returns.
    pub(super) async fn renew(&self, who: &Who, signing_request: &str) -> Result<String, JoinError> {
        let request = BASE64_STANDARD.decode(signing_request);
        let request = request.map_err(|_| JoinError::Request("the request isn't base64".to_owned()))?;
        let (issued, key) = self.issue(&who.node, &request)?;
        if key != who.key || !self.replica.read(|state| is_agent(state, &who.node, &key)) {
            return Err(JoinError::Request("the key is not the one that joined".to_owned()));
        }
        let actor = Actor::System(System { system: node::producer(&who.node) });
        let told = Draft::new(actor, issued.told(Authority::AgentX509)?).outcome(Outcome::Success);
        let _durable = self.producer.append(told).await?;
        Ok(issued.pem)
    }

    fn issue(&self, node: &str, signing_request: &[u8]) -> Result<(IssuedX509, [u8; 32]), JoinError> {
        let now = self.clock.wall().0 / 1_000_000_000;
        Ok(self.authority.issue(now, signing_request, node, CERTIFICATE_SECONDS)?)
    }
}

impl From<IssueError> for JoinError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Request(why) => Self::Request(why),
            other => Self::Failed(other.to_string()),
        }
    }
}
