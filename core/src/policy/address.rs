//! Addresses as people write them where a host is asked for, so that policies can match networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that `host` is by itself, without asking any resolver; `None` for a name.
///
/// A target hands the text to getaddrinfo(3), which also takes what inet_aton(3) does: one to four numbers, decimal,
/// octal (`0…`) or hexadecimal (`0x…`), of which the last fills the rest. `127.1`, `0x7f000001` and `2130706433` are
/// all 127.0.0.1, and a policy that denies the network must see that. An IPv4 address inside an IPv6 one is given as
/// IPv4; a zone (`fe80::1%eth0`) is left out.
#[must_use]
pub fn literal(host: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(host).ok()?;
    if text.contains(':') {
        let address = text.split_once('%').map_or(text, |(address, _zone)| address);
        return address.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical());
    }
    inet_aton(text).map(IpAddr::V4)
}

fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let mut parts = Vec::with_capacity(4);
    for part in text.split('.') {
        if parts.len() == 4 {
            return None;
        }
        parts.push(number(part)?);
    }
    let (last, bytes) = parts.split_last()?;
    let mut address = 0_u32;
    for (byte, shift) in bytes.iter().zip([24, 16, 8]) {
        address |= u32::from(u8::try_from(*byte).ok()?) << shift;
    }
    let rest = 32_u32.saturating_sub(8 * u32::try_from(bytes.len()).ok()?);
    if u64::from(*last) >= 1_u64 << rest {
        return None;
    }
    Some(Ipv4Addr::from(address | last))
}

fn number(part: &str) -> Option<u32> {
    let (digits, radix) = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if part.len() > 1 && part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    // A sign would be taken by the parser.
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_one_however_it_is_written() {
        for text in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "0x7f000001",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(literal(text.as_bytes()), Some(Ipv4Addr::LOCALHOST.into()), "{text}");
        }
        assert_eq!(literal(b"::1"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(literal(b"fe80::1%eth0"), "fe80::1".parse().ok());
        assert_eq!(literal(b"0"), Some(Ipv4Addr::UNSPECIFIED.into()));
        for text in [
            "",
            "localhost",
            "db.internal",
            "1.2.3.4.5",
            "256.1.1.1",
            "1..2",
            "08.1.1.1",
            "+1.2.3.4",
            "0x",
            "4294967296",
            "[::1]",
            "*",
            "10.0.0.1 ",
        ] {
            assert_eq!(literal(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_usual_form_is_read_as_it_is(address in any::<IpAddr>()) {
            prop_assert_eq!(literal(address.to_string().as_bytes()), Some(address.to_canonical()));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _address = literal(&bytes);
        }
    }
}
