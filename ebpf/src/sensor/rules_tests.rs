use super::{Entry, NetRule, PolicyRules, Ports, Protocol, compile, same_bits};
use crate::sensor::layout::net;
use crate::sensor::record::mapped;
use proptest::prelude::{Strategy, any, proptest};
use proptest::prop_oneof;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Few addresses, so that networks hold each other and ports meet.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..2_u8, 0..4_u8).prop_map(|(high, low)| IpAddr::V4(Ipv4Addr::new(10, high, 0, low)));
    let v6 = (0..2_u16, 0..4_u16)
        .prop_map(|(high, low)| IpAddr::V6(Ipv6Addr::new(0xfd00, high, 0, 0, 0, 0, 0, low)));
    let mapped = (0..4_u8).prop_map(|low| IpAddr::V6(Ipv4Addr::new(10, 1, 0, low).to_ipv6_mapped()));
    prop_oneof![v4, v6, mapped]
}

fn rules() -> impl Strategy<Value = Vec<NetRule>> {
    let ports = (0..4_u16, 0..4_u16, prop_oneof![Just3::none(), Just3::tcp(), Just3::udp()])
        .prop_map(|(low, span, protocol)| Ports { low, high: low + span, protocol });
    let rule = (1..100_u32, addresses(), any::<u8>(), proptest::collection::vec(ports, 0..3));
    let rule = rule.prop_map(|(id, address, prefix, ports)| {
        let prefix = if address.is_ipv4() { prefix % 33 } else { prefix % 129 };
        NetRule { id, address, prefix, ports }
    });
    proptest::collection::vec(rule, 0..5)
}

struct Just3;
impl Just3 {
    fn none() -> impl Strategy<Value = Option<Protocol>> {
        proptest::prelude::Just(None)
    }
    fn tcp() -> impl Strategy<Value = Option<Protocol>> {
        proptest::prelude::Just(Some(Protocol::Tcp))
    }
    fn udp() -> impl Strategy<Value = Option<Protocol>> {
        proptest::prelude::Just(Some(Protocol::Udp))
    }
}

/// What the kernel does: the longest prefix, then its ranges.
fn kernel_holds(entries: &[Entry], address: IpAddr, port: u16, protocol: Protocol) -> Option<u32> {
    let address = mapped(address);
    let number = if protocol == Protocol::Tcp { 6 } else { 17 };
    let longest = entries
        .iter()
        .filter(|entry| same_bits(&entry.address, &address, entry.prefix))
        .max_by_key(|entry| entry.prefix)?;
    let range = longest.ranges.iter().find(|range| {
        range.low <= port && port <= range.high && (range.protocol == 0 || range.protocol == number)
    })?;
    Some(range.rule)
}

proptest! {
    #[test]
    fn the_tries_answer_as_the_rules_do(rules in rules(), address in addresses(), port in 0..8_u16, tcp in any::<bool>()) {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let entries = compile(&rules).unwrap();
        let found = kernel_holds(&entries, address, port, protocol);
        let policy = PolicyRules { denied: rules.clone(), ..PolicyRules::default() };
        assert_eq!(found.is_some(), policy.denial(address, port, protocol).is_some());
        let policy = PolicyRules { denied: Vec::new(), allowed: Some(rules), ..PolicyRules::default() };
        assert_eq!(found.is_none(), policy.denial(address, port, protocol).is_some());
    }
}

#[test]
fn all_of_ipv6_says_nothing_of_ipv4() {
    let rule = NetRule { id: 1, address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0, ports: Vec::new() };
    let entries = compile(&[rule]).unwrap();
    assert_eq!(kernel_holds(&entries, IpAddr::V4(Ipv4Addr::LOCALHOST), 1, Protocol::Tcp), None);
    assert_eq!(kernel_holds(&entries, IpAddr::V6(Ipv6Addr::LOCALHOST), 1, Protocol::Tcp), Some(1));
}

#[test]
fn rules_that_cannot_be_kept_are_refused_by_number() {
    let rule = |id: u32, prefix: u8| NetRule {
        id,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        prefix,
        ports: Vec::new(),
    };
    for wrong in [rule(0, 8), rule(u32::MAX, 8), rule(3, 33)] {
        assert!(compile(&[wrong]).is_err());
    }
    let mut many = rule(4, 8);
    many.ports =
        (0..17).map(|number| Ports { low: number * 10, high: number * 10, protocol: None }).collect();
    let refused = compile(&[many]).unwrap_err().to_string();
    assert_eq!(refused, format!("rule 4: more than {} port ranges speak of its network", net::RANGES_MAX));
}
