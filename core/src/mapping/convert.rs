//! What a field asks of its value, and the value made so; what can't be made so is left out.

use super::address::Address;
use super::json::Value;
use crate::event::Timestamp;
use std::borrow::Cow;
use std::net::IpAddr;

/// The last moment that both Elasticsearch and OpenSearch take as `date_nanos`, in nanoseconds since the epoch.
const DATE_NANOS_MAX: u64 = i64::MAX as u64;
/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

/// What kind of value a field holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text that is found as a whole; numbers and truth values are written out.
    #[default]
    Keyword,
    /// A list of such.
    List,
    /// The items of a list in one line.
    Line,
    /// The items of a list in one line, with spaces between them.
    Words,
    /// The last component of a path.
    Basename,
    /// Hexadecimal digits.
    Hex,
    /// Text that is found by its words.
    Text,
    /// An integer of 63 bits.
    Long,
    /// An integer of 31 bits.
    Int,
    /// A port, from a number or from an address's text.
    Port,
    /// True or false.
    Bool,
    /// A time, RFC 3339 in UTC with nine digits of a second.
    Date,
    /// A time in milliseconds since the epoch.
    Millis,
    /// The IP address in an address's text.
    Ip,
    /// The same, if it is of version 4.
    Ipv4,
    /// The same, if it is of version 6.
    Ipv6,
    /// The host in an address's text: its name or its address with zone, or the whole text if it can't be taken apart.
    Host,
    /// The host's name in an address's text.
    Name,
}

impl Kind {
    /// Its name in the data.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "keyword" => Self::Keyword,
            "list" => Self::List,
            "line" => Self::Line,
            "words" => Self::Words,
            "basename" => Self::Basename,
            "hex" => Self::Hex,
            "text" => Self::Text,
            "long" => Self::Long,
            "int" => Self::Int,
            "port" => Self::Port,
            "bool" => Self::Bool,
            "date" => Self::Date,
            "millis" => Self::Millis,
            "ip" => Self::Ip,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "host" => Self::Host,
            "name" => Self::Name,
            _ => return None,
        })
    }

    /// `value` as this kind asks for it.
    pub(super) fn convert<'v>(self, value: &'v Value<'_>) -> Option<Value<'v>> {
        match self {
            Self::Keyword | Self::Text => value.scalar().map(Value::from),
            Self::List => items(value).map(Value::from),
            Self::Line => items(value).map(|items| Value::from(items.join(", "))),
            Self::Words => items(value).map(|items| Value::from(items.join(" "))),
            Self::Basename => Some(Value::from(basename(value.as_str()?))),
            Self::Hex => Some(value.as_str()?).filter(|text| is_hex(text)).map(Value::from),
            Self::Long => value.as_i64().map(Value::from),
            Self::Int => value.as_i64().and_then(|n| i32::try_from(n).ok()).map(Value::from),
            Self::Port => port(value).map(Value::from),
            Self::Bool => value.as_bool().map(Value::from),
            Self::Date => time(value).map(|time| Value::from(time.to_string())),
            Self::Millis => time(value).map(|time| Value::from(time.nanos() / MILLISECOND)),
            Self::Ip => ip(value).map(|ip| Value::from(ip.to_string())),
            Self::Ipv4 => ip(value).filter(IpAddr::is_ipv4).map(|ip| Value::from(ip.to_string())),
            Self::Ipv6 => ip(value).filter(IpAddr::is_ipv6).map(|ip| Value::from(ip.to_string())),
            Self::Host => Some(Value::from(Address::parse(value.as_str()?).host)),
            Self::Name => Some(Value::from(Address::parse(value.as_str()?).name()?)),
        }
    }
}

/// What of a value or of a list can stand in a line; `None` if nothing can.
pub(super) fn items<'v>(value: &'v Value<'_>) -> Option<Vec<Cow<'v, str>>> {
    let items: Vec<_> = match value {
        Value::List(items) => items.iter().filter_map(Value::scalar).collect(),
        one => one.scalar().into_iter().collect(),
    };
    (!items.is_empty()).then_some(items)
}

/// What stands behind the last slash that isn't at the end; the path itself if it has nothing but slashes.
fn basename(path: &str) -> &str {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name.is_empty() { path } else { name }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn ip(value: &Value<'_>) -> Option<IpAddr> {
    Address::parse(value.as_str()?).ip
}

fn port(value: &Value<'_>) -> Option<u16> {
    match value {
        Value::Text(address) => Address::parse(address).port,
        other => other.as_u64()?.try_into().ok(),
    }
}

fn time(value: &Value<'_>) -> Option<Timestamp> {
    let time: Timestamp = value.as_str()?.parse().ok()?;
    (time.nanos() <= DATE_NANOS_MAX).then_some(time)
}

/// At most `bytes_max` bytes of `text`, cut between two characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_kind_takes_what_it_can_hold_and_nothing_else() {
        let cases = [
            (Kind::Keyword, json!("a"), json!("a")),
            (Kind::Keyword, json!(7), json!("7")),
            (Kind::Keyword, json!(["a"]), json!(null)),
            (Kind::Keyword, json!({"a": 1}), json!(null)),
            (Kind::List, json!(["a", 1, {"b": 2}, null]), json!(["a", "1"])),
            (Kind::List, json!([]), json!(null)),
            (Kind::List, json!([[]]), json!(null)),
            (Kind::Line, json!(["a", 1]), json!("a, 1")),
            (Kind::Line, json!("a"), json!("a")),
            (Kind::Words, json!(["curl", "-s", 1]), json!("curl -s 1")),
            (Kind::Words, json!([]), json!(null)),
            (Kind::Basename, json!("/usr/bin/curl"), json!("curl")),
            (Kind::Basename, json!("/srv/www//"), json!("www")),
            (Kind::Basename, json!("curl"), json!("curl")),
            (Kind::Basename, json!("//"), json!("//")),
            (Kind::Basename, json!(""), json!("")),
            (Kind::Basename, json!(7), json!(null)),
            (Kind::Hex, json!("09aF"), json!("09aF")),
            (Kind::Hex, json!("09ag"), json!(null)),
            (Kind::Hex, json!(""), json!(null)),
            (Kind::List, json!("a"), json!(["a"])),
            (Kind::List, json!(["a", 1]), json!(["a", "1"])),
            (Kind::Long, json!(7), json!(7)),
            (Kind::Long, json!(-7), json!(-7)),
            (Kind::Long, json!(u64::MAX), json!(null)),
            (Kind::Long, json!(0.5), json!(null)),
            (Kind::Long, json!("7"), json!(null)),
            (Kind::Int, json!(i32::MAX), json!(i32::MAX)),
            (Kind::Int, json!(1_u64 << 31), json!(null)),
            (Kind::Port, json!(22), json!(22)),
            (Kind::Port, json!(70_000), json!(null)),
            (Kind::Port, json!("[::1]:22"), json!(22)),
            (Kind::Port, json!("::1"), json!(null)),
            (Kind::Bool, json!("true"), json!(null)),
            (Kind::Bool, json!(true), json!(true)),
            (Kind::Date, json!("2025-11-25T00:00:00.1+01:00"), json!("2025-11-24T23:00:00.100000000Z")),
            (Kind::Date, json!("2300-01-01T00:00:00Z"), json!(null)),
            (Kind::Date, json!(1_764_028_800), json!(null)),
            (Kind::Millis, json!("2025-11-25T00:00:00.123456789Z"), json!(1_764_028_800_123_u64)),
            (Kind::Ip, json!("[fe80::1%eth0]:22"), json!("fe80::1")),
            (Kind::Ip, json!("localhost"), json!(null)),
            (Kind::Ip, json!(7), json!(null)),
            (Kind::Ipv4, json!("10.0.0.1:443"), json!("10.0.0.1")),
            (Kind::Ipv4, json!("::1"), json!(null)),
            (Kind::Ipv6, json!("10.0.0.1:443"), json!(null)),
            (Kind::Ipv6, json!("::1"), json!("::1")),
            (Kind::Host, json!("10.0.0.1:443"), json!("10.0.0.1")),
            (Kind::Host, json!("who knows"), json!("who knows")),
            (Kind::Name, json!("who knows"), json!(null)),
        ];
        for (kind, value, wanted) in cases {
            let (from, wanted) = (Value::from(value.clone()), Value::from(wanted));
            assert_eq!(kind.convert(&from).unwrap_or_default(), wanted, "{kind:?} {value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_cut_is_short_enough_and_a_beginning(text in ".*", bytes_max in 0_usize..40) {
            let short = cut(&text, bytes_max);
            prop_assert!(short.len() <= bytes_max && text.starts_with(short));
            prop_assert!(short.len() == text.len() || bytes_max - short.len() < 4);
        }
    }
}
