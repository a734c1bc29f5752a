//! Tokens that prove nothing, told in the log: one that has ended and is still shown is a program that reads nothing any more,
//! or somebody who has found it.
//!
//! Anybody may send any token, and no failure is counted against him: so one event speaks for ten minutes, for each service
//! account, token of it that is known, and reason; one for all tokens that name no service account; and one for all that are
//! shown for the served log's entries and are of no reader. No token stands in one.

use super::Api;
use super::error::ApiError;
use custody_core::event::login::{Attempt, Failed};
use custody_core::event::{Actor, Draft, Outcome, Source};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one event speaks for the same refusals.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// Why a token proves nothing, for the log. Whoever shows it may be told less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It is the service account's token of this version, and has run out.
    RunOut(u64),
    /// It is the service account's token of this version, and a lock is on that.
    Locked(u64),
    /// It names a service account and isn't its token, or isn't any more: hashes of tokens that were replaced aren't kept.
    Wrong,
    /// It names a service account that was removed.
    Removed,
    /// It names none that there is or was.
    Unknown,
    /// It was shown for the served log's entries, and no reader that is configured has it.
    NoReader,
}

impl Why {
    fn reason(self) -> &'static str {
        match self {
            Self::RunOut(_) => "the token has run out",
            Self::Locked(_) => "the service account is locked",
            Self::Wrong => "wrong token, or one that was replaced",
            Self::Removed => "the service account was removed",
            Self::Unknown => "no such service account",
            Self::NoReader => "no reader has this token",
        }
    }

    /// Whether the token itself was right, whatever stands against it.
    fn is_proved(self) -> bool {
        matches!(self, Self::RunOut(_) | Self::Locked(_))
    }
}

/// A token that proves nothing.
#[derive(Debug)]
pub(super) struct Refused {
    /// The service account that it names. A name that none has or had isn't kept.
    pub name: Option<String>,
    /// Why.
    pub why: Why,
    /// What is answered.
    pub answer: ApiError,
}

type Key = (Option<String>, Why);

/// Which refusals were told of when, by the monotonic clock. There are only as many as there are and were service accounts.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<Key, Duration>>);

impl Refusals {
    /// Whether this one is to be told at `now`. It counts as told then: of many at once one is.
    fn begin(&self, key: &Key, now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, then| now.saturating_sub(*then) < TOLD_FOR);
        if told.contains_key(key) {
            return false;
        }
        told.insert(key.clone(), now);
        true
    }

    /// It couldn't be told: the next one is.
    fn take_back(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Tells of it where that is due, and gives what is answered. A refusal is no effect that evidence has to precede. All the same
/// whoever showed the right token, and learns what stands against it, learns it once that is durable. Anybody else has shown what
/// every stranger could have made up, and waits for nothing.
pub(super) async fn refuse(api: &Arc<Api>, refused: Refused, source: Source) -> ApiError {
    let Refused { name, why, answer } = refused;
    let key = (name, why);
    if !api.refusals.begin(&key, api.context.clock.monotonic()) {
        return answer;
    }
    let failed = Failed {
        claimed_user: key.0.clone(),
        method: Attempt::ServiceToken,
        reason: why.reason().to_owned(),
    };
    let draft = Draft::new(Actor::system("api"), failed).source(source).outcome(Outcome::Failure);
    let telling = {
        let api = Arc::clone(api);
        // Also when the client goes away.
        tokio::spawn(async move {
            let told = api.context.producer.append(draft).await.map(drop);
            if let Err(error) = &told {
                api.refusals.take_back(&key);
                tracing::warn!(%error, "the log doesn't take that a token was refused");
            }
            told
        })
    };
    if !why.is_proved() {
        return answer;
    }
    match telling.await {
        Ok(Ok(())) => answer,
        Ok(Err(error)) => error.into(),
        Err(error) => ApiError::failed("told of a refused token", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_in_ten_minutes_for_each_service_account_token_and_reason() {
        let refusals = Refusals::default();
        let at = Duration::from_secs;
        let key = |name: &str, why| (Some(name.to_owned()), why);
        assert!(refusals.begin(&key("siem", Why::RunOut(1)), at(100)));
        for other in [
            key("siem", Why::RunOut(2)),
            key("siem", Why::Wrong),
            key("other", Why::RunOut(1)),
            (None, Why::Unknown),
            (None, Why::NoReader),
        ] {
            assert!(refusals.begin(&other, at(101)), "{other:?}");
            assert!(!refusals.begin(&other, at(102)), "{other:?}");
        }
        assert!(!refusals.begin(&key("siem", Why::RunOut(1)), at(699)));
        assert!(refusals.begin(&key("siem", Why::RunOut(1)), at(700)));
        // What the log didn't take is told with the next one.
        refusals.take_back(&key("siem", Why::RunOut(1)));
        assert!(refusals.begin(&key("siem", Why::RunOut(1)), at(701)));
        assert!(refusals.begin(&(None, Why::Unknown), at(2_000)));
        assert_eq!(refusals.0.lock().unwrap().len(), 1, "what is long over isn't kept");
    }
}
