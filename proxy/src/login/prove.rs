//! A person proves who he is by a password, wherever it was typed. Whoever fails learns nothing but that he did, after
//! the same work as for everybody else.

use super::password::PasswordVerification;
use super::rate::LoginLimiter;
use super::secrets::SecretStore;
use custody_core::clock::Clock;
use custody_core::state::State;
use custody_core::state::follow::Replica;
use custody_core::state::locks::Subject;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use zeroize::Zeroizing;

/// Passwords that are hashed at once: each takes 19 MiB and a core for some milliseconds.
const HASHES_AT_ONCE: usize = 2;

/// Proves people by their passwords.
pub struct PasswordLogin {
    passwords: Arc<PasswordVerification>,
    secrets: Arc<SecretStore>,
    limiter: Mutex<LoginLimiter>,
    turns: Arc<Semaphore>,
    replica: Arc<Replica>,
    clock: Arc<dyn Clock>,
    attempts: Attempts,
}

/// How attempts came out since the start, wherever the password was typed: for metrics.
#[derive(Debug, Default)]
pub struct Attempts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    limited: AtomicU64,
}

impl Attempts {
    fn count(&self, outcome: &Result<ByPassword, Unproved>) {
        let counter = match outcome {
            Ok(_) => &self.succeeded,
            Err(Unproved::Wrong { .. }) => &self.failed,
            Err(Unproved::Limited { .. }) => &self.limited,
            // That nothing could be verified says nothing of who tried.
            Err(Unproved::Failed(_)) => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// It was the password.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Relaxed)
    }

    /// It wasn't, or nobody has that name, or a lock stood against it.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// It wasn't looked at: there were too many failures before.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.limited.load(Relaxed)
    }
}

/// The proof that somebody knew a user's password, and that no lock stood against it: made by [`PasswordLogin::prove`]
/// alone.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByPassword {
    user: String,
    roles: Vec<String>,
    at: u64,
}

impl ByPassword {
    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user's roles at that moment.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// When, in seconds since 1970.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }
}

/// Why nothing was proved.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// Too many failures before: the password wasn't looked at.
    #[error("too many failed logins: try again in {seconds} s")]
    Limited {
        /// When one more is allowed.
        seconds: u64,
    },
    /// For the log; the person is told less.
    #[error("{reason}")]
    Wrong {
        /// The name that was claimed, if somebody has it. Any other isn't kept: people type passwords into the wrong field.
        claimed_user: Option<String>,
        /// Why.
        reason: &'static str,
    },
    /// It could not be verified.
    #[error("a password could not be verified: {0}")]
    Failed(String),
}

impl From<AcquireError> for Unproved {
    fn from(error: AcquireError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<JoinError> for Unproved {
    fn from(error: JoinError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What the state says of somebody who wants to log in.
enum Known {
    Nobody,
    Without,
    With { version: u64, locked: bool, roles: Vec<String> },
}

impl PasswordLogin {
    /// With the hashes of `secrets`, for the users of `replica`.
    #[must_use]
    pub fn new(
        passwords: PasswordVerification,
        secrets: Arc<SecretStore>,
        limiter: LoginLimiter,
        replica: Arc<Replica>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            passwords: Arc::new(passwords),
            secrets,
            limiter: Mutex::new(limiter),
            turns: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            replica,
            clock,
            attempts: Attempts::default(),
        }
    }

    /// How attempts came out since the start.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Waits for leave to hash a password.
    ///
    /// # Errors
    /// Never, as long as this lives.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.turns).acquire_owned().await
    }

    /// Verifies a password that was typed at `from`.
    ///
    /// # Errors
    /// [`Unproved`]; the attempt was counted against the limits, unless it was one too many.
    pub async fn prove(
        &self,
        user: &str,
        password: Zeroizing<Vec<u8>>,
        from: IpAddr,
    ) -> Result<ByPassword, Unproved> {
        let outcome = self.attempt(user, password, from).await;
        self.attempts.count(&outcome);
        outcome
    }

    async fn attempt(
        &self,
        user: &str,
        password: Zeroizing<Vec<u8>>,
        from: IpAddr,
    ) -> Result<ByPassword, Unproved> {
        // Not the time of day: who sets the clock back must lock nobody out, and who sets it on must forget nothing.
        let attempt = {
            let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            limiter.begin(self.clock.monotonic().as_secs(), user, from)
        };
        let attempt = attempt.map_err(|limited| Unproved::Limited { seconds: limited.seconds })?;
        let now = self.clock.wall();
        let known = self.replica.read(|state| known(state, user, now.into()));
        let is_right = self.verify(user, &known, password).await?;
        let reason = match known {
            Known::With { locked: false, roles, .. } if is_right => {
                self.limiter.lock().unwrap_or_else(PoisonError::into_inner).succeeded(attempt);
                return Ok(ByPassword { user: user.to_owned(), roles, at: now.0 / 1_000_000_000 });
            }
            Known::Nobody => return Err(Unproved::Wrong { claimed_user: None, reason: "no such user" }),
            Known::Without => "no password is set",
            Known::With { locked: true, .. } => "wrong password, or locked",
            Known::With { locked: false, .. } => "wrong password",
        };
        Err(Unproved::Wrong { claimed_user: Some(user.to_owned()), reason })
    }

    /// Costs the same for nobody.
    async fn verify(
        &self,
        user: &str,
        known: &Known,
        password: Zeroizing<Vec<u8>>,
    ) -> Result<bool, Unproved> {
        let version = match known {
            Known::With { version, .. } => Some(*version),
            Known::Nobody | Known::Without => None,
        };
        let turn = self.turn().await?;
        let (secrets, passwords) = (Arc::clone(&self.secrets), Arc::clone(&self.passwords));
        let user = user.to_owned();
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let stored = match version.map(|version| secrets.get(&user, version)).transpose() {
                Ok(stored) => stored.flatten(),
                Err(error) => {
                    tracing::error!(%error, "a password hash can't be read: its user can't log in");
                    None
                }
            };
            passwords.verify(stored.as_ref().map(|hash| hash.as_str()), &password)
        });
        Ok(verified.await?)
    }
}

fn known(state: &State, user: &str, now: custody_core::event::Timestamp) -> Known {
    let Some(found) = state.users().get(user) else { return Known::Nobody };
    let subject = Subject { user, roles: Some(&found.roles), node: None, login: None, session: None };
    let locked = state.locks().matching(&subject, now).is_some();
    match found.password_version {
        Some(version) => Known::With { version, locked, roles: found.roles.iter().cloned().collect() },
        None => Known::Without,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::LoginLimits;
    use super::*;
    use custody_core::clock::SystemClock;

    #[tokio::test]
    async fn each_attempt_is_counted_by_how_it_came_out() {
        let scratch = tempfile::tempdir().unwrap();
        let login = PasswordLogin::new(
            PasswordVerification::new().unwrap(),
            Arc::new(SecretStore::open(&scratch.path().join("secrets")).unwrap()),
            LoginLimiter::new(LoginLimits { user_burst: 2, ..LoginLimits::default() }),
            Arc::new(Replica::new()),
            Arc::new(SystemClock::new()),
        );
        for _ in 0..5 {
            let typed = Zeroizing::new(b"guessed".to_vec());
            let unproved = login.prove("nobody", typed, "192.0.2.7".parse().unwrap()).await;
            assert!(unproved.is_err());
        }
        let attempts = login.attempts();
        let counted = || (attempts.succeeded(), attempts.failed(), attempts.limited());
        assert_eq!(counted(), (0, 2, 3));
        attempts.count(&Ok(ByPassword { user: "ana".to_owned(), roles: Vec::new(), at: 1 }));
        attempts.count(&Err(Unproved::Failed("no memory".to_owned())));
        assert_eq!(counted(), (1, 2, 3));
    }
}
