//! Time stamps of checkpoints from an authority (RFC 3161), for whoever doesn't believe the log's clock nor a witness's:
//! `log.timestamped` holds the checkpoint and the authority's answer.

mod protocol;

use crate::config::Timestamping;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::event::{Actor, Draft, Outcome, log};
use custody_core::log::{Checkpoint, Producer};
use protocol::{Question, RESPONSE_BYTES_MAX};
use reqwest::header::CONTENT_TYPE;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How long the authority may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failure it is asked again that soon, or after the usual time if that is sooner.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// Has a checkpoint stamped again and again, until the log stops.
pub async fn stamp(config: Timestamping, producer: Arc<Producer>) {
    let authority = match Authority::new(&config) {
        Ok(authority) => authority,
        Err(error) => {
            tracing::error!("checkpoints can't be stamped: {error:#}");
            return;
        }
    };
    let every = Duration::from_secs(config.every_seconds);
    let log = Arc::clone(producer.log());
    let size = log.follow();
    let mut stamped = 0;
    // A log that has stopped takes no evidence, and no stamp's event either.
    while size.has_changed().is_ok() {
        let pause = match log.checkpoint() {
            // The stamp's own event, and the second's seal behind it, are nothing new to be stamped.
            checkpoint if checkpoint.size() <= stamped => every,
            checkpoint => match authority.stamped(&checkpoint, &producer).await {
                Ok(index) => {
                    stamped = index.saturating_add(2);
                    every
                }
                Err(error) => {
                    tracing::warn!("the checkpoint of {} events isn't stamped: {error:#}", checkpoint.size());
                    every.min(RETRY)
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

struct Authority {
    http: reqwest::Client,
    url: String,
}

impl Authority {
    fn new(config: &Timestamping) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = &config.ca {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&std::fs::read(ca)?)?);
        }
        Ok(Self { http: builder.build()?, url: config.url.clone() })
    }

    /// Asks, and puts the answer into the log. Gives the event's index.
    async fn stamped(&self, checkpoint: &Checkpoint, producer: &Producer) -> anyhow::Result<u64> {
        let text = checkpoint.to_string();
        let mut random = [0; 16];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| anyhow::anyhow!("the system has no random bytes"))?;
        let question = Question::new(Sha256::digest(text.as_bytes()).into(), random)?;
        let request = self.http.post(&self.url).header(CONTENT_TYPE, "application/timestamp-query");
        let mut response = request.body(question.encode()?).send().await?.error_for_status()?;
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await? {
            answer.extend_from_slice(&piece);
            if answer.len() > RESPONSE_BYTES_MAX {
                anyhow::bail!("the answer of {} has more than {RESPONSE_BYTES_MAX} bytes", self.url);
            }
        }
        let at = question.believe(&answer)?;
        let timestamped = log::Timestamped {
            at,
            authority: self.url.clone(),
            checkpoint: text,
            response: STANDARD.encode(&answer),
        };
        let draft = Draft::new(Actor::system("custodyd"), timestamped).outcome(Outcome::Success);
        let durable = producer.append(draft).await?;
        tracing::info!("the checkpoint of {} events is stamped: {at}", checkpoint.size());
        Ok(durable.index())
    }
}
