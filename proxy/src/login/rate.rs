//! How often a login may fail, for each user and each source: a leaky bucket each, in bounded memory.
//!
//! An attempt is counted when it *begins*, so that a thousand at once are no way around, and given back when it
//! succeeds. Names that no user has are counted like others: the limit tells nothing about who exists.
//!
//! Whoever fails often enough under a user's name uses up what that name has from everywhere. A network from which the user has
//! logged in has an allowance of its own for that name, so nobody elsewhere keeps the user out.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};

/// The networks that an address counts for, by the bits that an IPv6 address has of them, and how many times the burst of a
/// source each has. One host chooses among all addresses of 64 bits, and whoever has 48 among 65,536 such networks.
const SOURCES: [(u32, u32); 3] = [(SOURCE_BITS, 1), (56, 2), (48, 4)];
/// Networks that a user has logged in from which are remembered.
const PLACES_MAX: usize = 32;
/// Bits of one source's IPv6 network.
const SOURCE_BITS: u32 = 64;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginLimits {
    /// Failures at once for one user name; and from each network from which that user has logged in, as many apart from these.
    pub user_burst: u32,
    /// Failures at once from one source: an IPv4 address, or the first 64 bits of an IPv6 address. The first 56 bits, which a
    /// household gets, and the first 48, which anybody gets who asks for a site's, have twice and four times as many.
    pub source_burst: u32,
    /// Seconds after which one more is allowed, for both.
    pub seconds_each: u64,
    /// User names, sources, and users with the networks that they have logged in from, that are remembered at most.
    pub entries_max: usize,
}

impl Default for LoginLimits {
    /// Ten for a user, thirty for a source (an office behind one address), one more every 20 s: at most 4,330
    /// guesses a day against one user, with all the addresses in the world that this user hasn't logged in from.
    fn default() -> Self {
        Self { user_burst: 10, source_burst: 30, seconds_each: 20, entries_max: 10_000 }
    }
}

/// An attempt that may go on. Give it to [`LoginLimiter::succeeded`] if the login succeeds; else drop it: it has
/// been counted.
#[must_use]
#[derive(Debug)]
pub struct Attempt {
    user: u64,
    /// The user at this network.
    place: u64,
    /// Which of the two it was counted for.
    counted: u64,
    sources: Vec<IpAddr>,
}

/// Too many failures: nothing is verified, the password isn't even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins: try again in {seconds} s")]
pub struct TooManyFailures {
    /// When one more is allowed.
    pub seconds: u64,
}

/// Counts failed logins. Time is given with each call, in seconds since any fixed moment; it may stand still or go
/// back, which only makes waiting longer.
#[derive(Debug)]
pub struct LoginLimiter {
    limits: LoginLimits,
    /// User names by a keyed hash: strangers choose them, so neither their length nor their hash may be theirs.
    users: Buckets<u64>,
    /// For each of [`SOURCES`].
    sources: [Buckets<IpAddr>; SOURCES.len()],
    /// For each user the networks that he has logged in from, the latest last. Only who knows his password adds to it.
    places: HashMap<u64, VecDeque<u64>>,
    hasher: RandomState,
}

impl LoginLimiter {
    /// Starts with no failures.
    pub fn new(limits: LoginLimits) -> Self {
        Self {
            limits,
            users: Buckets { entries: HashMap::new() },
            sources: SOURCES.map(|_| Buckets { entries: HashMap::new() }),
            places: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Begins an attempt: it counts as failed until [`succeeded`](Self::succeeded).
    ///
    /// # Errors
    /// [`TooManyFailures`] if user or source have used theirs up; such an attempt isn't counted.
    pub fn begin(&mut self, now: u64, user: &str, source: IpAddr) -> Result<Attempt, TooManyFailures> {
        let place = self.hasher.hash_one((user, network(source, SOURCE_BITS)));
        let user = self.hasher.hash_one(user);
        let is_known = self.places.get(&user).is_some_and(|places| places.contains(&place));
        let counted = if is_known { place } else { user };
        // An IPv4 address is one source.
        let levels = if source.to_canonical().is_ipv4() { 1 } else { SOURCES.len() };
        let sources: Vec<IpAddr> =
            SOURCES.iter().take(levels).map(|(bits, _)| network(source, *bits)).collect();
        let LoginLimits { user_burst, source_burst, seconds_each, entries_max } = self.limits;
        let mut wait = self.users.wait(now, &counted, user_burst, seconds_each);
        for ((buckets, source), (_, times)) in self.sources.iter().zip(&sources).zip(SOURCES) {
            let burst = source_burst.saturating_mul(times);
            wait = wait.max(buckets.wait(now, source, burst, seconds_each));
        }
        if wait > 0 {
            return Err(TooManyFailures { seconds: wait });
        }
        self.users.add(now, counted, seconds_each, entries_max);
        for (buckets, source) in self.sources.iter_mut().zip(&sources) {
            buckets.add(now, *source, seconds_each, entries_max);
        }
        Ok(Attempt { user, place, counted, sources })
    }

    /// Gives an attempt back. Earlier failures stay counted: whoever guesses at ana's password isn't helped when
    /// ana logs in, nor by logging in as himself in between.
    pub fn succeeded(&mut self, attempt: Attempt) {
        if !self.places.contains_key(&attempt.user) && self.places.len() >= self.limits.entries_max {
            let fewest = self.places.iter().min_by_key(|(_, places)| places.len()).map(|(user, _)| *user);
            fewest.and_then(|user| self.places.remove(&user));
        }
        let places = self.places.entry(attempt.user).or_default();
        places.retain(|place| *place != attempt.place);
        places.push_back(attempt.place);
        if places.len() > PLACES_MAX {
            places.pop_front();
        }
        self.users.give_back(&attempt.counted, self.limits.seconds_each);
        for (buckets, source) in self.sources.iter_mut().zip(&attempt.sources) {
            buckets.give_back(source, self.limits.seconds_each);
        }
    }
}

/// For each key the moment at which its failures have all leaked away; each adds `seconds_each`.
#[derive(Debug)]
struct Buckets<Key> {
    entries: HashMap<Key, u64>,
}

impl<Key: Hash + Eq + Copy> Buckets<Key> {
    fn wait(&self, now: u64, key: &Key, burst: u32, seconds_each: u64) -> u64 {
        let level = self.entries.get(key).map_or(0, |empty_at| empty_at.saturating_sub(now));
        let room_below = u64::from(burst.saturating_sub(1)).saturating_mul(seconds_each);
        level.saturating_sub(room_below)
    }

    fn add(&mut self, now: u64, key: Key, seconds_each: u64, entries_max: usize) {
        if !self.entries.contains_key(&key) && self.entries.len() >= entries_max {
            self.forget(now);
        }
        let empty_at = self.entries.entry(key).or_insert(now);
        *empty_at = (*empty_at).max(now).saturating_add(seconds_each);
    }

    /// Makes room: all that have leaked away, or else the one nearest to it. Whoever floods with new names pushes
    /// out his own single failures before a name that is really being guessed at.
    fn forget(&mut self, now: u64) {
        let before = self.entries.len();
        self.entries.retain(|_, empty_at| *empty_at > now);
        if self.entries.len() == before {
            let nearest = self.entries.iter().min_by_key(|(_, empty_at)| **empty_at).map(|(key, _)| *key);
            nearest.and_then(|key| self.entries.remove(&key));
        }
    }

    fn give_back(&mut self, key: &Key, seconds_each: u64) {
        if let Some(empty_at) = self.entries.get_mut(key) {
            *empty_at = empty_at.saturating_sub(seconds_each);
        }
    }
}

/// The network of so many bits that an IPv6 address is of, for one source; an IPv4 address is one by itself.
pub(crate) fn network(source: IpAddr, bits_v6: u32) -> IpAddr {
    let host_bits = 128_u32.saturating_sub(bits_v6);
    match source.to_canonical() {
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LoginLimits =
        LoginLimits { user_burst: 3, source_burst: 5, seconds_each: 10, entries_max: 4 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_table() {
        let mut limiter = LoginLimiter::new(LIMITS);
        // now, user, source, seconds to wait
        for (line, (now, user, source, wait)) in [
            (100, "ana", "192.0.2.1", 0),
            (100, "ana", "192.0.2.2", 0),
            (100, "ana", "192.0.2.3", 0),
            (100, "ana", "192.0.2.3", 10), // the user's three are used up, from everywhere
            (100, "bob", "192.0.2.3", 0),  // others aren't hindered
            (109, "ana", "192.0.2.3", 1),
            (110, "ana", "192.0.2.3", 0), // one leaked away
            (110, "ana", "192.0.2.3", 10),
            (90, "ana", "192.0.2.3", 30), // a clock that goes back only makes it longer
            (1000, "ana", "192.0.2.3", 0),
            (1000, "ana", "192.0.2.3", 0),
            (1000, "ana", "192.0.2.3", 0),
            (1000, "ana", "192.0.2.3", 10), // all leaked away is a burst again, not more
            (1000, "x", "192.0.2.3", 0),
            (1000, "y", "192.0.2.3", 0),
            (1000, "z", "192.0.2.3", 10), // the source's five are used up, for every name
            (1000, "z", "192.0.2.4", 0),
            (1000, "z", "::ffff:192.0.2.3", 10), // the same source
        ]
        .into_iter()
        .enumerate()
        {
            let expected = if wait == 0 { None } else { Some(TooManyFailures { seconds: wait }) };
            assert_eq!(limiter.begin(now, user, ip(source)).err(), expected, "line {line}");
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let mut limiter = LoginLimiter::new(LIMITS);
        for number in 0..5 {
            let _counted =
                limiter.begin(0, &format!("u{number}"), ip(&format!("2001:db8::{number}"))).unwrap();
        }
        limiter.begin(0, "other", ip("2001:db8::ffff:1")).unwrap_err();
        let _counted = limiter.begin(0, "other", ip("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn many_networks_of_one_site_are_limited() {
        let mut limiter = LoginLimiter::new(LoginLimits { entries_max: 10_000, ..LIMITS });
        let tried = |limiter: &mut LoginLimiter, address: String| {
            limiter.begin(0, &format!("of {address}"), ip(&address)).is_ok()
        };
        let site = |n: u32| format!("2001:db8:1:{:x}::1", n * 64);
        let got = (0..1_000).filter(|n| tried(&mut limiter, site(*n))).count();
        assert_eq!(got, 20, "four times the burst of a source");
        let household = |n: u32| format!("2001:db8:2:{n:x}::1");
        let got = (0..256).filter(|n| tried(&mut limiter, household(*n))).count();
        assert_eq!(got, 10, "twice the burst of a source");
        assert!(tried(&mut limiter, "2001:db8:2:100::1".to_owned()), "another household");
        assert!(tried(&mut limiter, "2001:db8:3::1".to_owned()), "another site");
    }

    #[test]
    fn success_gives_back_its_own_attempt_only() {
        let mut limiter = LoginLimiter::new(LIMITS);
        for _ in 0..100 {
            let attempt = limiter.begin(0, "ana", ip("192.0.2.1")).unwrap();
            limiter.succeeded(attempt);
        }
        for _ in 0..2 {
            let _failed = limiter.begin(0, "ana", ip("192.0.2.1")).unwrap();
        }
        let attempt = limiter.begin(0, "ana", ip("192.0.2.1")).unwrap();
        limiter.begin(0, "ana", ip("192.0.2.1")).unwrap_err();
        limiter.succeeded(attempt);
        let _failed = limiter.begin(0, "ana", ip("192.0.2.1")).unwrap();
        limiter.begin(0, "ana", ip("192.0.2.1")).unwrap_err();
    }

    #[test]
    fn nobody_elsewhere_keeps_a_user_out() {
        let mut limiter = LoginLimiter::new(LoginLimits { entries_max: 100, ..LIMITS });
        let home = ip("2001:db8:7::1");
        let attempt = limiter.begin(0, "ana", home).unwrap();
        limiter.succeeded(attempt);
        for number in 0..3 {
            let _failed = limiter.begin(1, "ana", ip(&format!("198.51.100.{number}"))).unwrap();
        }
        limiter.begin(1, "ana", ip("198.51.100.9")).unwrap_err();
        let attempt = limiter.begin(1, "ana", ip("2001:db8:7::2")).unwrap();
        limiter.succeeded(attempt);
        for _ in 0..3 {
            let _failed = limiter.begin(2, "ana", home).unwrap();
        }
        limiter.begin(2, "ana", home).unwrap_err();
        limiter.begin(2, "ana", ip("198.51.100.9")).unwrap_err();
        // It is ana who has logged in from there, and nobody else.
        for number in 0..3 {
            let _failed = limiter.begin(2, "bob", ip(&format!("198.51.101.{number}"))).unwrap();
        }
        limiter.begin(2, "bob", home).unwrap_err();
    }

    #[test]
    fn a_users_place_that_was_used_longest_ago_is_forgotten_and_nobody_elses() {
        let mut limiter = LoginLimiter::new(LoginLimits { entries_max: 100, ..LIMITS });
        let login = |limiter: &mut LoginLimiter, user, number| {
            let attempt = limiter.begin(0, user, ip(&format!("192.0.2.{number}"))).unwrap();
            limiter.succeeded(attempt);
        };
        login(&mut limiter, "bob", 1);
        for number in 0..PLACES_MAX {
            login(&mut limiter, "ana", number);
        }
        login(&mut limiter, "ana", 0);
        login(&mut limiter, "ana", PLACES_MAX);
        for user in ["ana", "bob"] {
            for number in 0..3 {
                let _failed = limiter.begin(0, user, ip(&format!("198.51.100.{number}"))).unwrap();
            }
        }
        limiter.begin(0, "ana", ip("192.0.2.1")).unwrap_err();
        for number in (2..=PLACES_MAX).chain([0]) {
            login(&mut limiter, "ana", number);
        }
        login(&mut limiter, "bob", 1);
    }

    #[test]
    fn memory_is_bounded_and_a_flood_does_not_free_a_guesser() {
        let mut limiter = LoginLimiter::new(LIMITS);
        for _ in 0..3 {
            let _failed = limiter.begin(0, "ana", ip("192.0.2.1")).unwrap();
        }
        for number in 0..200 {
            let source = ip(&format!("198.51.100.{number}"));
            let _failed = limiter.begin(0, &format!("flood-{number}"), source).unwrap();
            assert!(limiter.users.entries.len() <= 4 && limiter.sources[0].entries.len() <= 4);
        }
        limiter.begin(0, "ana", ip("203.0.113.9")).unwrap_err();
    }
}
