//! Who came, and what his proof says of him.

use super::open::OpenError;
use crate::ssh::authenticate::server::Proof;
use crate::ssh::certificate::Extensions;
use custody_core::event::login::Method;
use custody_core::event::{Actor, Person};

/// A person who has proved who he is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user name.
    pub user: String,
    /// How it was proved.
    pub method: Method,
    /// The serial number of the certificate that proved it, if one did.
    pub certificate: Option<String>,
    /// Since when the proof is good, in seconds since 1970: the certificate's first second, or when the password was
    /// verified.
    pub since: u64,
    /// What the session may have at all; policy decides about each.
    pub extensions: Extensions,
    /// The one command that may run, whatever is asked for.
    pub force_command: Option<String>,
}

impl Identity {
    /// What a proof says.
    ///
    /// # Errors
    /// [`OpenError::NoUser`] if a certificate doesn't name exactly one user.
    pub fn of(proof: &Proof) -> Result<Self, OpenError> {
        match proof {
            Proof::Certificate(certificate) => {
                let [user] = certificate.principals.as_slice() else {
                    return Err(OpenError::NoUser);
                };
                Ok(Self {
                    user: user.clone(),
                    method: Method::SshCertificate,
                    certificate: Some(certificate.serial.to_string()),
                    since: certificate.valid_after,
                    extensions: certificate.extensions.clone(),
                    force_command: certificate.force_command.clone(),
                })
            }
            Proof::Password(by) => Ok(Self {
                user: by.user().to_owned(),
                method: Method::KeyboardInteractive,
                certificate: None,
                since: by.at(),
                extensions: Extensions::every(),
                force_command: None,
            }),
        }
    }

    /// As the one who acts, with the roles that the user has now.
    #[must_use]
    pub fn actor(&self, roles: Vec<String>) -> Actor {
        Actor::Person(Person {
            certificate: self.certificate.clone(),
            identity_provider: "local".to_owned(),
            mfa: false,
            roles,
            user: self.user.clone(),
        })
    }
}
