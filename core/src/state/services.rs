//! Service accounts: their roles, and which of their tokens count. Whether one has run out is asked with a time that the
//! asker brings.

use crate::event::{Timestamp, service};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A token, by the version of its hash in the secret store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// The first moment at which it counts no longer.
    pub expires: Timestamp,
    /// When it was made: the time of appending.
    pub set: Timestamp,
    /// The version of its hash.
    pub version: u64,
}

impl Token {
    /// Whether it still counts at `now`.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// The token before this one, while it was left to count for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Token>,
    /// Roles held now.
    pub roles: BTreeSet<String>,
    /// The index of the event that made it.
    pub since: u64,
    /// Its token.
    pub token: Token,
}

impl Service {
    /// Its tokens, run out or not, the newest first.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        std::iter::once(self.token).chain(self.previous)
    }
}

/// All service accounts, and the names that were used once.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Services {
    present: BTreeMap<String, Service>,
    removed: BTreeMap<String, u64>,
}

impl Services {
    /// One that exists now.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.present.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Service)> {
        self.present.iter().map(|(name, service)| (name.as_str(), service))
    }

    /// Whether one has or had this name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.present.contains_key(name) || self.removed.contains_key(name)
    }

    pub(super) fn created(
        &mut self,
        index: u64,
        appended: Timestamp,
        data: service::Created,
    ) -> Result<(), &'static str> {
        if self.knows(&data.name) {
            return Err("a service account has or had this name");
        }
        let service::Created { expires, name, roles, secret_version } = data;
        let token = Token { expires, set: appended, version: secret_version };
        let roles = roles.into_iter().collect();
        self.present.insert(name, Service { previous: None, roles, since: index, token });
        Ok(())
    }

    pub(super) fn changed(&mut self, data: service::Changed) -> Result<(), &'static str> {
        let service = self.present.get_mut(&data.name).ok_or(NO_SERVICE)?;
        service.roles = data.roles.into_iter().collect();
        Ok(())
    }

    pub(super) fn token_set(
        &mut self,
        appended: Timestamp,
        data: service::TokenSet,
    ) -> Result<(), &'static str> {
        let service = self.present.get_mut(&data.name).ok_or(NO_SERVICE)?;
        let before = service.token;
        if data.secret_version <= before.version {
            return Err("the token is older than the one that counts");
        }
        // However long it is left to count, it was never good for longer than it was made for.
        service.previous =
            data.previous_until.map(|until| Token { expires: until.min(before.expires), ..before });
        service.token = Token { expires: data.expires, set: appended, version: data.secret_version };
        Ok(())
    }

    pub(super) fn removed(&mut self, index: u64, data: service::Removed) -> Result<(), &'static str> {
        self.present.remove(&data.name).ok_or(NO_SERVICE)?;
        self.removed.insert(data.name, index);
        Ok(())
    }

    pub(super) fn role_removed(&mut self, role: &str) {
        for service in self.present.values_mut() {
            service.roles.remove(role);
        }
    }
}

const NO_SERVICE: &str = "there is no such service account";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn a_token_counts_until_it_runs_out_or_is_replaced() {
        let mut services = Services::default();
        let created =
            service::Created { expires: at(100), name: "siem".into(), roles: vec![], secret_version: 3 };
        services.created(7, at(10), created.clone()).unwrap();
        assert!(services.created(8, at(11), created).is_err());
        let set = |version, expires, previous_until| service::TokenSet {
            expires: at(expires),
            name: "siem".into(),
            previous_until,
            secret_version: version,
        };
        let counting = |services: &Services, now| -> Vec<u64> {
            let tokens = services.get("siem").unwrap().tokens();
            tokens.filter(|token| token.counts(at(now))).map(|token| token.version).collect()
        };
        assert_eq!((counting(&services, 99), counting(&services, 100)), (vec![3], vec![]));
        assert!(services.token_set(at(12), set(3, 200, None)).is_err(), "not newer");
        services.token_set(at(20), set(4, 200, Some(at(50)))).unwrap();
        assert_eq!((counting(&services, 49), counting(&services, 50)), (vec![4, 3], vec![4]));
        services.token_set(at(30), set(5, 300, Some(at(900)))).unwrap();
        assert_eq!(counting(&services, 199), [5, 4]);
        assert_eq!(counting(&services, 200), [5], "it isn't made good for longer than it was");
        services.token_set(at(40), set(6, 300, None)).unwrap();
        assert_eq!(counting(&services, 41), [6]);
        services.removed(9, service::Removed { name: "siem".into() }).unwrap();
        assert!(services.get("siem").is_none() && services.knows("siem"));
        assert!(services.token_set(at(41), set(7, 300, None)).is_err());
    }
}
