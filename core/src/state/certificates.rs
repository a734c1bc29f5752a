//! Certificates that are valid or will be: what has run out by the time of appending is let go.

use crate::event::Timestamp;
use crate::event::certificate::{Authority, Issued};
use serde::Serialize;
use std::collections::BTreeMap;

/// A certificate that hasn't run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Who signed.
    pub authority: Authority,
    /// `SHA256:…` of the certified key.
    pub key: String,
    /// Serial number, decimal.
    pub serial: String,
    /// The index of the event.
    pub since: u64,
    /// Whom or what it names.
    pub subject: String,
    /// First moment of validity.
    pub valid_from: Timestamp,
    /// Last moment of validity.
    pub valid_until: Timestamp,
}

/// By the moment at which they run out, then by index.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    by_end: BTreeMap<(Timestamp, u64), Certificate>,
    issued: u64,
}

impl Certificates {
    /// Those that haven't run out, by the moment at which they do.
    pub fn iter(&self) -> impl Iterator<Item = &Certificate> {
        self.by_end.values()
    }

    /// How many were issued since the log began.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// The certificate with this serial number, where it hasn't run out.
    #[must_use]
    pub fn with_serial(&self, authority: Authority, serial: &str) -> Option<&Certificate> {
        self.iter().find(|certificate| certificate.authority == authority && certificate.serial == serial)
    }

    pub(super) fn issued_one(&mut self, index: u64, data: Issued) {
        self.issued = self.issued.saturating_add(1);
        let Issued { authority, key, principals: _, serial, subject, valid_from, valid_until } = data;
        let certificate =
            Certificate { authority, key, serial, since: index, subject, valid_from, valid_until };
        self.by_end.insert((valid_until, index), certificate);
    }

    /// Lets go of what ran out before `appended`.
    pub(super) fn passed(&mut self, appended: Timestamp) {
        while let Some(first) = self.by_end.first_entry() {
            if first.key().0 >= appended {
                break;
            }
            first.remove();
        }
    }
}

impl Serialize for Certificates {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            issued: u64,
            valid: Vec<&'a Certificate>,
        }
        Shown { issued: self.issued, valid: self.iter().collect() }.serialize(serializer)
    }
}
