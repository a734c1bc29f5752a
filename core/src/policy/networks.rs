//! Which networks a session may reach, and with that what else it may: all restrictions that hold for it, put together.
//!
//! What one denies is denied. Where several allow by a list, only what all of these lists have may be reached.

use super::files::{self, Use};
use crate::event::restriction::Network;
use crate::state::State;
use crate::state::locks::Subject;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// How many ranges of ports one network may have.
pub const PORT_RANGES_MAX: usize = 16;

/// How many networks one session's lists may have when they are put together; with more, nothing may be reached.
pub const NETWORKS_MAX: usize = 1024;

/// Why a network can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No CIDR.
    #[error("«{0}» is no network: write it as 192.0.2.0/24 or 2001:db8::/32")]
    NoCidr(String),
    /// No port.
    #[error("«{0}» is no port: write 443 or 8000-8080")]
    NoPort(String),
    /// Too many of them.
    #[error("{0} has more than {PORT_RANGES_MAX} ranges of ports")]
    TooManyPorts(String),
}

/// A network as the kernel holds it; IPv4 stands for IPv4-mapped addresses as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Whether a session that tries ends; of a rule that denies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_session: bool,
    /// The network.
    pub network: IpNet,
    /// Ports, first and last; all of them where none stands here.
    pub ports: Vec<(u16, u16)>,
    /// The restriction that says so.
    pub restriction: String,
}

/// What a session may reach, run and touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Where this is given, nothing else may be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Rule>>,
    /// What may not be reached, whatever is allowed.
    pub deny: Vec<Rule>,
    /// Whether a session that tries to reach what isn't allowed ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_session: bool,
    /// What it may run and touch.
    #[serde(default, skip_serializing_if = "Use::is_free")]
    pub files: Use,
}

/// A network and its ports, of what stands in an event.
///
/// # Errors
/// See [`NetworkError`].
pub fn parse(network: &Network) -> Result<(IpNet, Vec<(u16, u16)>), NetworkError> {
    let shown = |text: &str| text.chars().take(64).collect::<String>().escape_debug().to_string();
    let address = network.cidr.parse::<IpNet>().or_else(|_| network.cidr.parse::<IpAddr>().map(IpNet::from));
    let cidr = address.map_err(|_| NetworkError::NoCidr(shown(&network.cidr)))?.trunc();
    if network.ports.len() > PORT_RANGES_MAX {
        return Err(NetworkError::TooManyPorts(cidr.to_string()));
    }
    let ports = network.ports.iter().map(|text| {
        let range = port_range(text).ok_or_else(|| NetworkError::NoPort(shown(text)))?;
        Ok((*range.start(), *range.end()))
    });
    Ok((cidr, ports.collect::<Result<_, NetworkError>>()?))
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u16>().ok() } else { None }
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// What the restrictions of a state leave a session.
#[must_use]
pub fn reach(state: &State, subject: &Subject<'_>) -> Reach {
    let mut reach = Reach { files: files::usable(state, subject), ..Reach::default() };
    for (name, restriction) in state.restrictions().of(subject) {
        let rules = |networks: &[Network]| -> Vec<Rule> {
            // What can't be understood was refused when the restriction was made.
            let parsed = networks.iter().filter_map(|network| parse(network).ok());
            let rule = |(network, ports)| Rule {
                ends_session: restriction.ends_session,
                network,
                ports,
                restriction: name.to_owned(),
            };
            parsed.map(rule).collect()
        };
        reach.deny.extend(rules(&restriction.deny));
        if !restriction.allow.is_empty() {
            reach.ends_session |= restriction.ends_session;
            let allowed = rules(&restriction.allow);
            reach.allow = Some(match reach.allow.take() {
                None => allowed,
                Some(before) => both(&before, &allowed),
            });
        }
    }
    reach
}

/// What stands in both lists.
fn both(left: &[Rule], right: &[Rule]) -> Vec<Rule> {
    let mut common = Vec::new();
    for (one, other) in left.iter().flat_map(|one| right.iter().map(move |other| (one, other))) {
        let Some(network) = smaller(one.network, other.network) else { continue };
        let Some(ports) = common_ports(&one.ports, &other.ports) else { continue };
        if common.len() >= NETWORKS_MAX {
            return Vec::new();
        }
        common.push(Rule { ends_session: false, network, ports, restriction: other.restriction.clone() });
    }
    common
}

/// Of two networks the one that lies within the other.
fn smaller(one: IpNet, other: IpNet) -> Option<IpNet> {
    if one.contains(&other) {
        Some(other)
    } else if other.contains(&one) {
        Some(one)
    } else {
        None
    }
}

/// Ports of both; none given means all. `None` where they have none in common, or too many ranges.
fn common_ports(one: &[(u16, u16)], other: &[(u16, u16)]) -> Option<Vec<(u16, u16)>> {
    match (one, other) {
        ([], ports) | (ports, []) => Some(ports.to_vec()),
        (one, other) => {
            let pairs = one.iter().flat_map(|left| other.iter().map(move |right| (left, right)));
            let common: Vec<_> = pairs
                .map(|(left, right)| (left.0.max(right.0), left.1.min(right.1)))
                .filter(|(first, last)| first <= last)
                .collect();
            (!common.is_empty() && common.len() <= PORT_RANGES_MAX).then_some(common)
        }
    }
}

/// What an agent must be able to do so that sessions can be kept from networks, as it names it (`limits` of `node.joined`).
const KEEPS_NETWORKS: [&str; 6] = [
    "connect deny",
    "connections",
    "datagram bytes and names",
    "datagram deny",
    "packet socket deny",
    "raw socket deny",
];

/// Whether a node's agent can keep sessions from networks, or why not.
///
/// # Errors
/// Why it can't, in half a line.
pub fn keeps_networks(limits: &BTreeMap<String, String>) -> Result<(), String> {
    files::lacks_none(&KEEPS_NETWORKS, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(cidr: &str, ports: &[&str]) -> Network {
        Network { cidr: cidr.to_owned(), ports: ports.iter().map(|port| (*port).to_owned()).collect() }
    }

    fn rule(cidr: &str, ports: &[&str]) -> Rule {
        let (network, ports) = parse(&network(cidr, ports)).unwrap();
        Rule { ends_session: false, network, ports, restriction: "r".into() }
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        let (cidr, ports) = parse(&network("192.0.2.77/24", &["443", "8000-8080"])).unwrap();
        assert_eq!((cidr.to_string().as_str(), ports), ("192.0.2.0/24", vec![(443, 443), (8000, 8080)]));
        assert_eq!(parse(&network("2001:db8::1", &[])).unwrap().0.to_string(), "2001:db8::1/128");
        for wrong in ["", "192.0.2.0/33", "example.org", "192.0.2.0/24 ", "::/129"] {
            assert!(matches!(parse(&network(wrong, &[])), Err(NetworkError::NoCidr(_))), "{wrong}");
        }
        for wrong in ["", "+1", "65536", "9-8", "1-2-3", "ssh", "-", "1-"] {
            assert!(matches!(parse(&network("::/0", &[wrong])), Err(NetworkError::NoPort(_))), "{wrong}");
        }
        assert!(parse(&network("::/0", &["1"; 17])).is_err());
    }

    #[test]
    fn what_two_lists_allow_is_what_stands_in_both() {
        let common = both(
            &[rule("10.0.0.0/8", &["22", "443"]), rule("2001:db8::/32", &[])],
            &[rule("10.1.0.0/16", &["400-500"]), rule("0.0.0.0/0", &["22"]), rule("fd00::/8", &[])],
        );
        let shown: Vec<_> =
            common.iter().map(|rule| (rule.network.to_string(), rule.ports.clone())).collect();
        assert_eq!(
            shown,
            [("10.1.0.0/16".to_owned(), vec![(443, 443)]), ("10.0.0.0/8".to_owned(), vec![(22, 22)])]
        );
    }

    #[test]
    fn a_kernel_keeps_networks_where_it_lacks_nothing_of_it() {
        let files = BTreeMap::from([("file open".to_owned(), "no such hook".to_owned())]);
        assert_eq!(keeps_networks(&files), Ok(()));
        let lacks = BTreeMap::from([("connect deny".to_owned(), "self-test: it was let".to_owned())]);
        assert_eq!(keeps_networks(&lacks).unwrap_err(), "it lacks connect deny: self-test: it was let");
    }
}
