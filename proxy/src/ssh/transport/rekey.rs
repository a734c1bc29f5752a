//! When a leg's keys are old (RFC 4253 section 9, RFC 4344 section 3). Pure: the time is passed in, as the
//! duration since any fixed moment of the owner's choice.

use std::time::Duration;

use super::packet::Usage;

/// When to renew keys. Either direction's usage counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Bytes under one key and direction.
    pub bytes: u64,
    /// Packets under one key and direction; more than 2^31 is taken as 2^31.
    pub packets: u64,
    /// Age of the keys.
    pub age: Duration,
}

/// RFC 4344 section 3.1: rekey before 2^31 packets.
const PACKETS_MAX: u64 = 1 << 31;

impl Default for Policy {
    /// 16 GiB, or 2^28 packets, or an hour. RFC 4253's one gigabyte is meant for ciphers with 64-bit blocks;
    /// with AES, RFC 4344 section 3.2 allows 2^(L/4) = 2^32 blocks (64 GiB).
    fn default() -> Self {
        Self { bytes: 16 << 30, packets: 1 << 28, age: Duration::from_secs(3600) }
    }
}

impl Policy {
    /// Whether keys that are `age` old and were used so in either direction should be renewed.
    #[must_use]
    pub fn due(&self, sent: Usage, received: Usage, age: Duration) -> bool {
        let packets = self.packets.min(PACKETS_MAX);
        [sent, received].iter().any(|usage| usage.bytes >= self.bytes || usage.packets >= packets)
            || age >= self.age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_alone_makes_keys_old() {
        let policy = Policy { bytes: 100, packets: u64::MAX, age: Duration::from_secs(10) };
        let usage = |bytes, packets| Usage { packets, bytes };
        let young = Duration::from_secs(9);
        let table = [
            (usage(99, 1), usage(99, 1), young, false),
            (usage(100, 1), usage(0, 0), young, true),
            (usage(0, 0), usage(100, 1), young, true),
            (usage(0, 0), usage(0, 0), Duration::from_secs(10), true),
            (usage(0, (1 << 31) - 1), usage(0, 0), young, false),
            (usage(0, 1 << 31), usage(0, 0), young, true),
        ];
        for (sent, received, age, due) in table {
            assert_eq!(policy.due(sent, received, age), due, "{sent:?} {received:?} {age:?}");
        }
    }
}
