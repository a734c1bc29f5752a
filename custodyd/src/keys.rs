//! Keys of the `log` role: what signs checkpoints, and who certifies sessions.

use custody_core::clock::Clock;
use custody_core::event::certificate::{Authority, Issued};
use custody_core::event::{Actor, Draft, Outcome, Timestamp};
use custody_core::log::note::{Note, NoteError, SignatureLine};
use custody_core::log::{Producer, Signer, VerifierKey};
use custody_proxy::ca::ssh::{IssuedSsh, SessionRequest};
use custody_proxy::ca::store::{KeyAlgorithm, KeyStore, KeyStoreError, PublicPart};
use custody_proxy::ca::{Authorities, CertifyError, SessionCertifier, SessionCredential};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

/// The name of the log's signing key in the key store.
const LOG_KEY: &str = "log-signer";

/// How many signing keys a log may have had in its life: the store has no list of its keys, so they are numbered, and
/// those that were retired may be gone.
const LOG_KEYS_MAX: u32 = 100;

/// Why the log's keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A key that should sign isn't in the store.
    #[error("the log's signing key {0} is missing: put it back from the backup of the keys")]
    Missing(String),
    /// A key in the store isn't what signs checkpoints.
    #[error("the key {0} is of another kind than Ed25519")]
    Kind(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    /// The origin can't name a key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// No further key can be made.
    #[error("the log has had {LOG_KEYS_MAX} signing keys: begin a new epoch")]
    Exhausted,
}

/// One of the log's keys; the private half stays in the key store.
#[derive(Clone)]
struct LogKey {
    /// Its name in the store.
    name: String,
    key: VerifierKey,
}

/// The keys that sign checkpoints: one, or two while they are rotated.
pub struct Keyring {
    store: Arc<dyn KeyStore>,
    origin: String,
    /// The first of them is the oldest. Held for moments only.
    signing: RwLock<(LogKey, Vec<LogKey>)>,
}

impl Keyring {
    /// Makes the first key of a log that is being begun, or takes the one that an attempt before made.
    pub fn create(store: Arc<dyn KeyStore>, origin: &str) -> Result<Self, KeyringError> {
        if store.load(LOG_KEY)?.is_none() {
            let _public = store.generate(LOG_KEY, KeyAlgorithm::Ed25519)?;
        }
        Self::open(store, origin, None)
    }

    /// The keys that have signed `checkpoint`, the log's newest, where there is one: which keys the log's events name
    /// is known only once the log is open. A log whose keys are gone doesn't get another one unasked.
    pub fn open(
        store: Arc<dyn KeyStore>,
        origin: &str,
        checkpoint: Option<&Note>,
    ) -> Result<Self, KeyringError> {
        let all = log_keys(&*store, origin)?;
        let has_signed =
            |log_key: &&(u32, LogKey)| checkpoint.is_some_and(|note| note.verify(&log_key.1.key).is_ok());
        let mut signing: Vec<LogKey> = all.iter().filter(has_signed).map(|(_, key)| key.clone()).collect();
        if signing.is_empty() {
            // None of ours has signed it: opening the log with the first one says so better than this could.
            signing.extend(all.into_iter().map(|(_, key)| key).next());
        }
        let signing = oldest_first(signing).ok_or_else(|| KeyringError::Missing(format!("{LOG_KEY}.key")))?;
        Ok(Self { store, origin: origin.to_owned(), signing: RwLock::new(signing) })
    }

    /// Makes a further key, which signs nothing yet.
    pub fn generate(&self) -> Result<VerifierKey, KeyringError> {
        let newest = log_keys(&*self.store, &self.origin)?.last().map_or(1, |(number, _)| *number);
        let number = newest.saturating_add(1);
        if number > LOG_KEYS_MAX {
            return Err(KeyringError::Exhausted);
        }
        let _public = self.store.generate(&name(number), KeyAlgorithm::Ed25519)?;
        let made = log_key(&*self.store, &self.origin, number)?;
        Ok(made.ok_or_else(|| KeyringError::Missing(name(number)))?.key)
    }

    /// From now on just these keys sign, as the log's events name them.
    pub fn sign_with(&self, keys: &[String]) -> Result<(), KeyringError> {
        let all = log_keys(&*self.store, &self.origin)?;
        let find = |key: &String| all.iter().find(|(_, ours)| ours.key.to_string() == *key);
        let signing = keys
            .iter()
            .map(|key| {
                let found = find(key).map(|(_, ours)| ours.clone());
                found.ok_or_else(|| KeyringError::Missing(key.clone()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(signing) = oldest_first(signing) {
            *self.signing.write().unwrap_or_else(PoisonError::into_inner) = signing;
        }
        Ok(())
    }

    fn signing(&self) -> (LogKey, Vec<LogKey>) {
        self.signing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sign_as(&self, log_key: &LogKey, message: &[u8]) -> Result<[u8; 64], NoteError> {
        let failed = |why: String| NoteError::Signing(log_key.key.to_string(), why);
        let signature = self.store.sign(&log_key.name, message).map_err(|error| failed(error.to_string()))?;
        signature.try_into().map_err(|_| failed("an Ed25519 signature has 64 bytes".to_owned()))
    }
}

impl Signer for Keyring {
    fn verifier_key(&self) -> VerifierKey {
        self.signing().0.key
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], NoteError> {
        self.sign_as(&self.signing().0, message)
    }

    fn lines(&self, text: &str) -> Result<Vec<SignatureLine>, NoteError> {
        let (oldest, others) = self.signing();
        std::iter::once(&oldest)
            .chain(&others)
            .map(|log_key| {
                let signature = self.sign_as(log_key, text.as_bytes())?.to_vec();
                Ok(SignatureLine { name: log_key.key.name().to_owned(), id: log_key.key.id(), signature })
            })
            .collect()
    }
}

fn oldest_first(keys: Vec<LogKey>) -> Option<(LogKey, Vec<LogKey>)> {
    let mut keys = keys.into_iter();
    keys.next().map(|oldest| (oldest, keys.collect()))
}

/// All of the log's keys that the store has, by number.
fn log_keys(store: &dyn KeyStore, origin: &str) -> Result<Vec<(u32, LogKey)>, KeyringError> {
    let mut keys = Vec::new();
    for number in 1..=LOG_KEYS_MAX {
        keys.extend(log_key(store, origin, number)?.map(|key| (number, key)));
    }
    Ok(keys)
}

/// The name of the log's `number`-th key in the store.
fn name(number: u32) -> String {
    if number == 1 { LOG_KEY.to_owned() } else { format!("{LOG_KEY}-{number}") }
}

fn log_key(store: &dyn KeyStore, origin: &str, number: u32) -> Result<Option<LogKey>, KeyringError> {
    let name = name(number);
    match store.load(&name)? {
        Some(PublicPart::Ed25519(public)) => {
            Ok(Some(LogKey { key: VerifierKey::new(origin, public)?, name }))
        }
        Some(_) => Err(KeyringError::Kind(name)),
        None => Ok(None),
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
