//! What the API may do with this daemon's log and its keys.

use crate::keys::Keyring;
use custody_core::log::embedded::EmbeddedLog;
use custody_proxy::api::operate::Operations;
use std::sync::Arc;
use std::time::Duration;

/// The log of this process and the keys that sign it.
pub struct LogOperations {
    /// The log.
    pub log: Arc<EmbeddedLog>,
    /// Its keys.
    pub keyring: Arc<Keyring>,
}

impl Operations for LogOperations {
    fn is_full(&self) -> bool {
        *self.log.filled().borrow()
    }

    fn clock_ahead(&self) -> Option<Duration> {
        *self.log.clock_ahead().borrow()
    }

    fn confirm_clock(&self) {
        self.log.confirm_clock();
    }

    fn generate_key(&self) -> Result<String, String> {
        self.keyring.generate().map(|key| key.to_string()).map_err(|error| error.to_string())
    }

    fn sign_with(&self, keys: &[String]) -> Result<(), String> {
        self.keyring.sign_with(keys).map_err(|error| error.to_string())
    }
}
