//! How many connections one source may have, so that a few can't shut all others out.

use crate::login::rate::network;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv6 address that are one source: a customer has that many at least, and all addresses in it.
const SOURCE_BITS_V6: u32 = 64;

/// Counts connections by source.
#[derive(Debug)]
pub(super) struct Sources {
    max: usize,
    /// Only sources that have a connection: at most as many as there are connections.
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One of a source's connections, until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct OfSource {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// With so many for each source.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Counts one more connection from `address`, unless its source has as many as it may have.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<OfSource> {
        let source = network(address, SOURCE_BITS_V6);
        let mut taken = self.lock();
        let has = taken.get(&source).copied().unwrap_or_default();
        if has >= self.max {
            return None;
        }
        taken.insert(source, has + 1);
        drop(taken);
        Some(OfSource { sources: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // The map is whole after each statement.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfSource {
    fn drop(&mut self) {
        let mut taken = self.sources.lock();
        if let Some(has) = taken.get_mut(&self.source) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_so_many_and_hinders_no_other() {
        let sources = Sources::new(2);
        let enter = |address: &str| sources.enter(address.parse().unwrap());
        let mut held = vec![enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap()];
        assert!(enter("192.0.2.1").is_none());
        held.push(enter("192.0.2.2").unwrap());
        // All addresses of an IPv6 network that one customer has.
        held.push(enter("2001:db8::1").unwrap());
        held.push(enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::ffff:3").is_none());
        held.push(enter("2001:db8:0:1::1").unwrap());
        drop(held.remove(0));
        held.push(enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        held.clear();
        assert!(sources.lock().is_empty());
    }
}
