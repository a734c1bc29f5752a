//! Keys of the `log` role: what signs checkpoints, and who certifies sessions.

use custody_core::clock::Clock;
use custody_core::event::certificate::{Authority, Issued};
use custody_core::event::{Actor, Draft, Outcome, Timestamp};
use custody_core::log::note::NoteError;
use custody_core::log::{Producer, Signer, VerifierKey};
use custody_proxy::ca::ssh::{IssuedSsh, SessionRequest};
use custody_proxy::ca::store::{KeyAlgorithm, KeyStore, PublicPart};
use custody_proxy::ca::{Authorities, CertifyError, SessionCertifier, SessionCredential};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The name of the log's signing key in the key store.
const LOG_KEY: &str = "log-signer";

/// Signs checkpoints with a key that stays in the key store.
pub struct LogSigner {
    store: Arc<dyn KeyStore>,
    key: VerifierKey,
}

impl LogSigner {
    /// The log's key; `make` it where a log is begun. A log whose key is gone must not get another one unasked.
    pub fn open(store: Arc<dyn KeyStore>, origin: &str, make: bool) -> anyhow::Result<Self> {
        let public = match store.load(LOG_KEY)? {
            Some(public) => public,
            None if make => store.generate(LOG_KEY, KeyAlgorithm::Ed25519)?,
            None => anyhow::bail!(
                "the log's signing key {LOG_KEY}.key is missing: put it back from the backup of the keys"
            ),
        };
        let PublicPart::Ed25519(public) = public else {
            anyhow::bail!("the log's signing key {LOG_KEY}.key is of another kind than Ed25519");
        };
        Ok(Self { key: VerifierKey::new(origin, public)?, store })
    }
}

impl Signer for LogSigner {
    fn verifier_key(&self) -> VerifierKey {
        self.key.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], NoteError> {
        let failed = |why: String| NoteError::Signing(self.key.name().to_owned(), why);
        let signature = self.store.sign(LOG_KEY, message).map_err(|error| failed(error.to_string()))?;
        signature.try_into().map_err(|_| failed("an Ed25519 signature has 64 bytes".to_owned()))
    }
}

/// Certifies sessions' keys in the same process: `certificate.issued` is durable before the certificate is given out.
pub struct Certifier {
    /// The authorities.
    pub authorities: Arc<Authorities>,
    /// The `log` role's events.
    pub producer: Arc<Producer>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Certifier {
    async fn issue(&self, request: &SessionRequest) -> Result<SessionCredential, CertifyError> {
        let now = self.clock.wall().0 / 1_000_000_000;
        let issued = self.authorities.ssh_target.issue(now, request)?;
        let mut draft = Draft::new(Actor::system("custodyd"), about(Authority::TargetSsh, &issued))
            .outcome(Outcome::Success);
        draft.session = request.session.parse().ok();
        let _durable = self
            .producer
            .append(draft)
            .await
            .map_err(|error| CertifyError::Unavailable(error.to_string()))?;
        Ok(issued)
    }
}

/// What the log says of an SSH certificate.
pub fn about(authority: Authority, issued: &IssuedSsh) -> Issued {
    Issued {
        authority,
        key: issued.key_fingerprint.clone(),
        principals: issued.principals.clone(),
        serial: issued.serial.to_string(),
        subject: issued.key_id.clone(),
        valid_from: Timestamp::from_seconds(issued.valid_after),
        valid_until: Timestamp::from_seconds(issued.valid_before),
    }
}

impl SessionCertifier for Certifier {
    fn certify<'a>(
        &'a self,
        request: &'a SessionRequest,
    ) -> Pin<Box<dyn Future<Output = Result<SessionCredential, CertifyError>> + Send + 'a>> {
        Box::pin(self.issue(request))
    }
}
