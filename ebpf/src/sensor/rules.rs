//! Networks that a policy denies and allows, compiled to the entries of the kernel's tries. Pure.
//!
//! A trie gives only the longest prefix that holds an address. So each entry carries the port ranges of every rule whose network covers
//! it, the narrowest network first: what the kernel finds is the whole answer.

use super::error::SensorError;
use super::files::FileRules;
use super::layout::{net, net_key, net_rule, port_range};
use super::record::{Denial, mapped, put};
use std::net::IpAddr;

/// What a policy says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// Where its sessions may not connect; wins over `allowed`.
    pub denied: Vec<NetRule>,
    /// Where alone they may; `None`: wherever `denied` doesn't say otherwise.
    pub allowed: Option<Vec<NetRule>>,
    /// A denial ends the session: its record says so.
    pub ends_session: bool,
    /// What it says of programs and paths.
    pub files: FileRules,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetRule {
    /// Told by the record of a denial; from 1 to `u32::MAX - 16`.
    pub id: u32,
    /// An address of the network.
    pub address: IpAddr,
    /// How many of its bits count: 0 to 32, or 128.
    pub prefix: u8,
    /// Which ports; none: all.
    pub ports: Vec<Ports>,
}

/// Ports of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub low: u16,
    /// The highest.
    pub high: u16,
    /// TCP, UDP, or both.
    pub protocol: Option<Protocol>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, MPTCP too.
    Tcp,
    /// UDP.
    Udp,
}

/// An entry of a trie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    address: [u8; 16],
    /// Of the sixteen bytes.
    prefix: u8,
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: u16,
    high: u16,
    protocol: u32,
    rule: u32,
}

const ALL_PORTS: Ports = Ports { low: 0, high: u16::MAX, protocol: None };
/// Where IPv4 lies within IPv6.
const MAPPED_PREFIX: u8 = 96;

impl PolicyRules {
    /// Whether it restricts networks: then kinds of sockets that can't be checked are refused.
    pub fn restricts(&self) -> bool {
        !self.denied.is_empty() || self.allowed.is_some()
    }

    pub(super) fn flags(&self) -> u32 {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        flag(self.allowed.is_some(), net::ALLOW_LIST)
            | flag(self.ends_session, net::POLICY_ENDS_SESSION)
            | flag(self.restricts(), net::RESTRICTS)
            | flag(
                !self.files.denied_programs.is_empty() || !self.files.allowed_programs.is_empty(),
                net::PROGRAMS,
            )
            | flag(!self.files.denied_paths.is_empty(), net::PATHS)
    }

    /// What would refuse a connection: of rules that deny it, the first.
    pub fn denial(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<Denial> {
        let address = canonical(address);
        let holding = |rules: &[NetRule]| {
            rules.iter().find(|rule| rule.holds(address, port, protocol)).map(|rule| rule.id)
        };
        match (holding(&self.denied), &self.allowed) {
            (Some(rule), _) => Some(Denial::Rule(rule)),
            (None, Some(allowed)) if holding(allowed).is_none() => Some(Denial::NotAllowed),
            _ => None,
        }
    }
}

impl NetRule {
    fn holds(&self, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.is_ipv4() == address.is_ipv4()
            && same_bits(&mapped(self.address), &mapped(address), self.mapped_prefix())
            && (self.ports.is_empty() || self.ports.iter().any(|ports| ports.hold(port, protocol)))
    }

    fn mapped_prefix(&self) -> u8 {
        if self.address.is_ipv4() { self.prefix.saturating_add(MAPPED_PREFIX) } else { self.prefix }
    }

    fn check(&self) -> Result<(), SensorError> {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix > bits {
            return Err(SensorError::Rule {
                id: self.id,
                why: format!("/{} is longer than an address", self.prefix),
            });
        }
        if self.id == 0 || self.id > u32::MAX - 16 {
            return Err(SensorError::Rule { id: self.id, why: "its number is reserved".to_owned() });
        }
        Ok(())
    }

    /// Whether this rule speaks of IPv4, in whichever notation.
    fn is_ipv4(&self) -> bool {
        canonical(self.address).is_ipv4() && self.mapped_prefix() >= MAPPED_PREFIX
    }

    fn ranges(&self) -> impl Iterator<Item = Range> {
        let all = self.ports.is_empty().then_some(ALL_PORTS);
        let number = |protocol: Option<Protocol>| match protocol {
            None => 0,
            Some(Protocol::Tcp) => 6,
            Some(Protocol::Udp) => 17,
        };
        self.ports.iter().copied().chain(all).map(move |ports| Range {
            low: ports.low,
            high: ports.high,
            protocol: number(ports.protocol),
            rule: self.id,
        })
    }
}

impl Ports {
    fn hold(&self, port: u16, protocol: Protocol) -> bool {
        self.low <= port && port <= self.high && self.protocol.is_none_or(|own| own == protocol)
    }
}

/// The entries for a list of rules.
///
/// # Errors
/// A rule that can't be, or an address that more than sixteen port ranges speak of.
pub fn compile(rules: &[NetRule]) -> Result<Vec<Entry>, SensorError> {
    let mut entries: Vec<Entry> = Vec::new();
    for rule in rules {
        rule.check()?;
        let prefix = rule.mapped_prefix();
        let address = masked(&mapped(rule.address), prefix);
        if entries.iter().any(|entry| entry.prefix == prefix && entry.address == address) {
            continue;
        }
        let ranges = covering(rules, &address, prefix, rule.is_ipv4())?;
        entries.push(Entry { address, prefix, ranges });
    }
    // An IPv6 network that happens to hold the mapped addresses says nothing of IPv4: an empty entry is in its way.
    let base = masked(&mapped(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)), MAPPED_PREFIX);
    let shadowed = rules
        .iter()
        .any(|rule| !rule.is_ipv4() && same_bits(&mapped(rule.address), &base, rule.mapped_prefix()));
    if shadowed && !entries.iter().any(|entry| entry.prefix == MAPPED_PREFIX && entry.address == base) {
        entries.push(Entry { address: base, prefix: MAPPED_PREFIX, ranges: Vec::new() });
    }
    Ok(entries)
}

/// The port ranges of all rules that cover a network, the narrowest first.
fn covering(
    rules: &[NetRule],
    address: &[u8; 16],
    prefix: u8,
    ipv4: bool,
) -> Result<Vec<Range>, SensorError> {
    let mut above: Vec<&NetRule> = rules
        .iter()
        .filter(|rule| {
            rule.is_ipv4() == ipv4
                && rule.mapped_prefix() <= prefix
                && same_bits(&mapped(rule.address), address, rule.mapped_prefix())
        })
        .collect();
    above.sort_by_key(|rule| std::cmp::Reverse(rule.mapped_prefix()));
    let mut ranges: Vec<Range> = Vec::new();
    for range in above.iter().flat_map(|rule| rule.ranges()) {
        if ranges.iter().any(|earlier| earlier.covers(&range)) {
            continue;
        }
        if ranges.len() == net::RANGES_MAX {
            let why = format!("more than {} port ranges speak of its network", net::RANGES_MAX);
            return Err(SensorError::Rule { id: range.rule, why });
        }
        ranges.push(range);
    }
    Ok(ranges)
}

impl Range {
    fn covers(&self, other: &Range) -> bool {
        self.low <= other.low
            && other.high <= self.high
            && (self.protocol == 0 || self.protocol == other.protocol)
    }
}

impl Entry {
    /// Key of a trie for one set of rules, without the length in front, which aya puts there; and that length.
    pub(super) fn key(&self, rules: u32) -> (u32, [u8; net_key::SIZE - 4]) {
        let mut key = [0; net_key::SIZE - 4];
        put(&mut key, net_key::RULES - 4, &rules.to_ne_bytes());
        put(&mut key, net_key::ADDRESS - 4, &self.address);
        (32 + u32::from(self.prefix), key)
    }

    pub(super) fn value(&self) -> [u8; net_rule::SIZE] {
        let mut value = [0; net_rule::SIZE];
        let count = u32::try_from(self.ranges.len()).unwrap_or_default();
        put(&mut value, net_rule::COUNT, &count.to_ne_bytes());
        for (index, range) in self.ranges.iter().enumerate() {
            let at = net_rule::RANGE + index * port_range::SIZE;
            put(&mut value, at + port_range::LOW, &range.low.to_ne_bytes());
            put(&mut value, at + port_range::HIGH, &range.high.to_ne_bytes());
            put(&mut value, at + port_range::PROTOCOL, &range.protocol.to_ne_bytes());
            put(&mut value, at + port_range::RULE, &range.rule.to_ne_bytes());
        }
        value
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn masked(address: &[u8; 16], prefix: u8) -> [u8; 16] {
    let bits = u128::from_be_bytes(*address);
    (bits & mask(prefix)).to_be_bytes()
}

fn same_bits(a: &[u8; 16], b: &[u8; 16], prefix: u8) -> bool {
    masked(a, prefix) == masked(b, prefix)
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
