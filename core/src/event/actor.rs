//! Who an event happens on behalf of.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// On whose behalf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Actor {
    /// A person whose identity has been proved.
    Person(Person),
    /// A part of Custody itself, or somebody whose identity isn't proved yet.
    System(System),
}

/// Read at once, since each event has one: what derives would keep all of it first, and try one kind after the other.
impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            certificate: Option<String>,
            identity_provider: Option<String>,
            mfa: Option<bool>,
            roles: Option<Vec<String>>,
            system: Option<String>,
            user: Option<String>,
        }
        match Fields::deserialize(deserializer)? {
            Fields {
                certificate,
                identity_provider: Some(identity_provider),
                mfa: Some(mfa),
                roles: Some(roles),
                user: Some(user),
                ..
            } => Ok(Self::Person(Person { certificate, identity_provider, mfa, roles, user })),
            Fields { system: Some(system), .. } => Ok(Self::System(System { system })),
            _ => Err(D::Error::custom("an actor is neither a person nor a system")),
        }
    }
}

/// A person, as proved by a certificate or a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Person {
    /// Serial number of the certificate that proved it, decimal (it can exceed 2^53).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<String>,
    /// Who vouched for the person: `local`, or the name of an OIDC provider.
    pub identity_provider: String,
    /// Whether a second factor was given at login.
    pub mfa: bool,
    /// Roles held at that moment, sorted.
    pub roles: Vec<String>,
    /// The user's name in Custody.
    pub user: String,
}

/// A part of Custody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct System {
    /// Its name: `custodyd`, `proxy`, `bootstrap` …
    pub system: String,
}

impl Actor {
    /// A part of Custody by its name.
    #[must_use]
    pub fn system(name: &str) -> Self {
        Self::System(System { system: name.to_owned() })
    }

    /// The user's name, where it is a person.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Person(person) => Some(&person.user),
            Self::System(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_actor_is_a_person_or_a_system_and_nothing_in_between() {
        let person = json!({
            "certificate": "7", "identity_provider": "local", "mfa": true, "roles": ["admin"], "user": "alice",
        });
        let read = |value| serde_json::from_value::<Actor>(value);
        let alice = read(person.clone()).unwrap();
        assert_eq!(alice.user(), Some("alice"));
        assert_eq!(serde_json::to_value(&alice).unwrap(), person);
        assert_eq!(read(json!({ "system": "proxy" })).unwrap(), Actor::system("proxy"));
        assert_eq!(serde_json::to_value(Actor::system("proxy")).unwrap(), json!({ "system": "proxy" }));
        // A version to come may say more.
        assert_eq!(read(json!({ "system": "proxy", "zone": 1 })).unwrap(), Actor::system("proxy"));
        for field in ["identity_provider", "mfa", "roles", "user"] {
            let mut person = person.clone();
            person.as_object_mut().unwrap().remove(field);
            read(person).unwrap_err();
        }
        read(json!({})).unwrap_err();
        read(json!("alice")).unwrap_err();
    }
}
