//! Who may begin: places for connections that have proved nothing yet, in all and per source, and the count of
//! those that were turned away.
//!
//! A stranger costs a socket, a key exchange and at most some 40 KiB until [`LOGIN_TIMEOUT`]; what is bounded here
//! is how many of them there are at once. When all places are taken, the newcomer gets that of the one who has
//! dawdled longest: an honest login is over by then. If nobody has dawdled yet, a source that has many places gives one
//! to a source that has fewer, so that a few sources can't shut others out, however fast they come. A refusal before
//! anybody was proved is counted and no event: a flood of strangers must not fill the log.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a client may take from its first byte to the proof of who its person is, as sshd's `LoginGraceTime`.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The same where people may have to type a password.
pub const TYPING_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections that haven't proved anything, at once: 40 MiB of memory at the very most.
pub const UNPROVED_MAX: usize = 1024;
/// The same from one source: an Ansible run with 100 forks behind one address fits, and it takes eight sources
/// to fill all places.
pub const UNPROVED_PER_SOURCE_MAX: usize = 128;
/// Who has a place for shorter than this keeps it: a login over a slow line, to a busy proxy.
pub const DISPLACED_AFTER: Duration = Duration::from_secs(3);
/// Bits of an IPv6 address that are one source: a customer has that many at least, and all addresses in it.
const SOURCE_BITS_V6: u32 = 64;

/// Why a connection came to nothing before its person was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There are too many connections in all.
    Connections,
    /// There are too many that have proved nothing.
    Unproved,
    /// There are too many of those from one source.
    Source,
    /// It dawdled, and another needed its place.
    Displaced,
    /// It took longer than [`LOGIN_TIMEOUT`].
    Timeout,
    /// It isn't SSH, or broke its rules or limits.
    Protocol,
    /// It is SSH, but there is no algorithm that both have.
    Incompatible,
    /// It showed no certificate that is believed, or tried too often.
    Authentication,
    /// It left by itself.
    Left,
}

impl Refused {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Connections,
        Self::Unproved,
        Self::Source,
        Self::Displaced,
        Self::Timeout,
        Self::Protocol,
        Self::Incompatible,
        Self::Authentication,
        Self::Left,
    ];

    /// Its label in the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Unproved => "unproved",
            Self::Source => "source",
            Self::Displaced => "displaced",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Incompatible => "incompatible",
            Self::Authentication => "authentication",
            Self::Left => "left",
        }
    }
}

/// Places and counters. Shared by the listener, its connections and the metrics.
#[derive(Debug)]
pub struct Admission {
    unproved_max: usize,
    per_source_max: usize,
    taken: Mutex<Taken>,
    refused: [AtomicU64; Refused::ALL.len()],
}

#[derive(Debug, Default)]
struct Taken {
    /// In the order in which they came; the key is what [`Place`] has.
    places: BTreeMap<u64, Holder>,
    /// Only sources that have a place: at most as many as there are places.
    by_source: BTreeMap<IpAddr, usize>,
    next: u64,
}

#[derive(Debug)]
struct Holder {
    source: IpAddr,
    since: Duration,
    /// Dropped when the place goes to another.
    _displaces: oneshot::Sender<()>,
}

impl Taken {
    /// Frees a place, if it is taken still.
    fn free(&mut self, number: u64) {
        let Some(holder) = self.places.remove(&number) else { return };
        if let Some(of_source) = self.by_source.get_mut(&holder.source) {
            *of_source = of_source.saturating_sub(1);
            if *of_source == 0 {
                self.by_source.remove(&holder.source);
            }
        }
    }

    /// Frees a place for a connection from `newcomer` at `now`: the oldest, if it is old enough, or else the oldest of the
    /// source that has most, if that has more than the newcomer's source will have.
    fn displace(&mut self, newcomer: IpAddr, now: Duration) -> bool {
        let oldest = self.places.first_key_value();
        let dawdler = oldest.filter(|(_, holder)| now.saturating_sub(holder.since) >= DISPLACED_AFTER);
        let Some(number) = dawdler.map(|(number, _)| *number).or_else(|| self.of_the_greediest(newcomer))
        else {
            return false;
        };
        self.free(number);
        true
    }

    fn of_the_greediest(&self, newcomer: IpAddr) -> Option<u64> {
        let has = self.by_source.get(&newcomer).copied().unwrap_or_default();
        let (greediest, most) = self.by_source.iter().max_by_key(|(_, of_source)| **of_source)?;
        let oldest = || self.places.iter().find(|(_, holder)| holder.source == *greediest);
        (*most > has + 1).then(oldest)?.map(|(number, _)| *number)
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(UNPROVED_MAX, UNPROVED_PER_SOURCE_MAX)
    }
}

impl Admission {
    /// With so many places in all and per source.
    #[must_use]
    pub fn new(unproved_max: usize, per_source_max: usize) -> Self {
        let refused = std::array::from_fn(|_| AtomicU64::new(0));
        Self { unproved_max, per_source_max, taken: Mutex::default(), refused }
    }

    /// Takes a place for a connection from `address` at `now` (since any fixed moment), until the place is dropped or
    /// goes to another.
    ///
    /// # Errors
    /// [`Refused::Unproved`] or [`Refused::Source`]: not counted yet.
    pub fn enter(self: &Arc<Self>, address: IpAddr, now: Duration) -> Result<Place, Refused> {
        let source = source(address);
        let mut taken = self.lock();
        if taken.by_source.get(&source).is_some_and(|of_source| *of_source >= self.per_source_max) {
            return Err(Refused::Source);
        }
        if taken.places.len() >= self.unproved_max && !taken.displace(source, now) {
            return Err(Refused::Unproved);
        }
        let (displaces, displaced) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        *taken.by_source.entry(source).or_default() += 1;
        taken.places.insert(number, Holder { source, since: now, _displaces: displaces });
        drop(taken);
        Ok(Place { admission: Arc::clone(self), number, displaced })
    }

    /// Counts a connection that came to nothing.
    pub fn count(&self, why: Refused) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// How many came to nothing since the start, for each reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        Refused::ALL.into_iter().zip(&self.refused).map(|(why, counter)| (why, counter.load(Relaxed)))
    }

    /// How many have a place now.
    #[must_use]
    pub fn unproved(&self) -> usize {
        self.lock().places.len()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // What is changed under it is changed by statements that can't panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of a connection that has proved nothing yet. Dropped, it is free.
#[must_use]
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Place {
    /// Waits until the place has gone to another.
    pub async fn displaced(&mut self) {
        // Nothing is ever sent: the sender goes with the place.
        let _gone = (&mut self.displaced).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.lock().free(self.number);
    }
}

/// What counts as one source: an IPv4 address, or the network that one IPv6 customer has.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - SOURCE_BITS_V6))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn places_are_bounded_in_all_and_per_source_and_come_back() {
        let admission = Arc::new(Admission::new(5, 2));
        let enter = |from| admission.enter(address(from), NOW);
        let mut held = Vec::new();
        for from in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            held.push(enter(from).unwrap());
        }
        assert_eq!(enter("192.0.2.1").err(), Some(Refused::Source));
        assert_eq!(enter("::ffff:192.0.2.1").err(), Some(Refused::Source));
        held.push(enter("192.0.2.2").unwrap());
        held.push(enter("192.0.2.3").unwrap());
        assert_eq!(enter("192.0.2.3").err(), Some(Refused::Unproved), "nobody has more than it would have");
        assert_eq!(admission.unproved(), 5);
        drop(held.remove(0));
        held.push(enter("192.0.2.1").unwrap());
        held.clear();
        assert_eq!(admission.unproved(), 0);
        assert!(admission.lock().by_source.is_empty(), "sources are forgotten");
    }

    #[tokio::test]
    async fn when_all_are_taken_the_one_who_dawdled_longest_goes() {
        let admission = Arc::new(Admission::new(3, 3));
        let enter = |from, seconds| admission.enter(address(from), NOW + Duration::from_secs(seconds));
        let mut first = enter("192.0.2.1", 0).unwrap();
        let mut second = enter("192.0.2.4", 1).unwrap();
        let third = enter("192.0.2.2", 2).unwrap();
        assert_eq!(enter("192.0.2.3", 2).err(), Some(Refused::Unproved), "nobody has dawdled yet");
        let fourth = enter("192.0.2.3", 3).unwrap();
        first.displaced().await;
        tokio::select! {
            biased;
            () = second.displaced() => panic!("one place was enough"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(admission.unproved(), 3);
        drop(first);
        assert_eq!(admission.unproved(), 3, "its place isn't its own any more");
        drop((second, third, fourth));
        assert_eq!(admission.unproved(), 0);
        assert!(admission.lock().by_source.is_empty());
    }

    #[tokio::test]
    async fn few_sources_dont_shut_others_out_however_fast_they_come() {
        let admission = Arc::new(Admission::new(6, 4));
        let enter = |from| admission.enter(address(from), NOW);
        let mut first = enter("192.0.2.1").unwrap();
        let mut held: Vec<_> = (0..3).map(|_| enter("192.0.2.1").unwrap()).collect();
        held.extend([enter("192.0.2.2").unwrap(), enter("192.0.2.2").unwrap()]);
        held.push(enter("192.0.2.3").unwrap());
        first.displaced().await;
        held.push(enter("192.0.2.3").unwrap());
        // Two each.
        for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(enter(from).err(), Some(Refused::Unproved), "{from}");
        }
        held.push(enter("192.0.2.4").unwrap());
        assert_eq!(admission.unproved(), 6);
        drop((first, held));
        assert_eq!(admission.unproved(), 0);
        assert!(admission.lock().by_source.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let admission = Arc::new(Admission::new(5, 1));
        let _held = admission.enter(address("2001:db8:0:1::1"), NOW).unwrap();
        let same = admission.enter(address("2001:db8:0:1:ffff::2"), NOW);
        assert_eq!(same.err(), Some(Refused::Source));
        let _other = admission.enter(address("2001:db8:0:2::1"), NOW).unwrap();
    }

    #[test]
    fn each_reason_has_its_counter() {
        let admission = Admission::default();
        for (times, why) in (1..).zip(Refused::ALL) {
            for _ in 0..times {
                admission.count(why);
            }
        }
        let counts: Vec<_> = admission.refused().collect();
        assert!(counts.iter().zip(1..).all(|((_, count), times)| *count == times), "{counts:?}");
    }
}
