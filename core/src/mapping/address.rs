//! Addresses as people and programs write them, taken apart: `192.0.2.7`, `[fe80::1%eth0]:22`, `web-1.example.com:22`.
//!
//! A search index takes only an address in its `ip` field, and refuses the whole document for anything else.

use std::net::{IpAddr, Ipv6Addr};

/// What stands in an address. What can't be taken apart is a host without a port, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// What names the host: an address (its zone included) or a name; no brackets, no port.
    pub(super) host: &'a str,
    /// The address alone, where the host is one: no zone.
    pub(super) ip: Option<IpAddr>,
    /// The port.
    pub(super) port: Option<u16>,
}

impl<'a> Address<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let (host, port) = split_port(text).unwrap_or((text, None));
        Self { host, ip: ip(host), port }
    }

    /// The host, where it is a name that DNS could hold (RFC 1123, 2.1).
    pub(super) fn name(&self) -> Option<&'a str> {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let host = self.host.strip_suffix('.').unwrap_or(self.host);
        // A name that ends in a number would be an address, and this one isn't.
        let numeric = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        (self.ip.is_none() && host.len() <= 253 && !numeric && host.split('.').all(label)).then_some(host)
    }
}

/// The host and the port behind its last colon; `None` where the text isn't of that form.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        ip(host).filter(IpAddr::is_ipv6)?;
        return match after.strip_prefix(':') {
            None => after.is_empty().then_some((host, None)),
            Some(digits) => Some((host, Some(port(digits)?))),
        };
    }
    // More than one colon without brackets: an IPv6 address alone.
    let (host, digits) = text.split_once(':').filter(|(_, rest)| !rest.contains(':'))?;
    (!host.is_empty()).then_some((host, Some(port(digits)?)))
}

/// Decimal digits only: `str::parse` takes a sign too.
fn port(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn ip(host: &str) -> Option<IpAddr> {
    match host.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (text, host, ip, port, name)
    type Case = (&'static str, &'static str, Option<&'static str>, Option<u16>, Option<&'static str>);

    #[test]
    fn addresses_are_taken_apart() {
        let cases: &[Case] = &[
            ("192.0.2.7", "192.0.2.7", Some("192.0.2.7"), None, None),
            ("192.0.2.7:22", "192.0.2.7", Some("192.0.2.7"), Some(22), None),
            ("2001:db8::1", "2001:db8::1", Some("2001:db8::1"), None, None),
            ("[2001:db8::1]:22", "2001:db8::1", Some("2001:db8::1"), Some(22), None),
            ("[2001:db8::1]", "2001:db8::1", Some("2001:db8::1"), None, None),
            ("fe80::1%eth0", "fe80::1%eth0", Some("fe80::1"), None, None),
            ("[fe80::1%eth0]:22", "fe80::1%eth0", Some("fe80::1"), Some(22), None),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.7", Some("::ffff:192.0.2.7"), None, None),
            ("localhost", "localhost", None, None, Some("localhost")),
            ("web-1.example.com:22", "web-1.example.com", None, Some(22), Some("web-1.example.com")),
            ("web-1.example.com.", "web-1.example.com.", None, None, Some("web-1.example.com")),
        ];
        for (text, host, ip, port, name) in cases {
            let address = Address::parse(text);
            let got = (address.host, address.ip.map(|ip| ip.to_string()), address.port, address.name());
            assert_eq!(got, (*host, ip.map(str::to_owned), *port, *name), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_stays_whole() {
        for text in [
            "",
            ":22",
            "[",
            "[]",
            "[x]:22",
            "[::1",
            "[::1]22",
            "[::1]:",
            "a:b",
            "a:70000",
            "a:+22",
            "1.2.3",
            "256.1.1.1",
            "010.1.1.1",
            "fe80::1%",
            "%eth0",
            "192.0.2.7%eth0",
            "a b",
            "-a",
            "a..b",
            "unix:/run/x",
            "::1]:22",
        ] {
            let address = Address::parse(text);
            assert_eq!((address.host, address.ip, address.port), (text, None, None), "{text}");
            assert_eq!(address.name(), None, "{text}");
        }
    }
}
