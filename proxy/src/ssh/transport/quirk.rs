//! Peers that have to be treated a little differently, known by their version line. As few as can be.

/// Programs that preferred chacha20-poly1305 before they had strict key exchange, and the versions from which on they
/// surely have it: distributions brought it into older ones, too, which no version line tells.
const STRICT_SINCE: [(&[u8], &[u32]); 5] = [
    (b"OpenSSH_for_Windows_", &[9, 8]),
    (b"OpenSSH_", &[9, 6]),
    (b"OpenSSH-keyscan", &[]),
    (b"libssh_", &[0, 10, 6]),
    (b"AsyncSSH_", &[2, 14, 2]),
];

/// Whether a peer with this version line is OpenSSH, which says some things to its like only, by this rule.
#[must_use]
pub fn is_openssh(version: &[u8]) -> bool {
    [&b"SSH-2.0-OpenSSH"[..], b"SSH-1.99-OpenSSH"].iter().any(|prefix| version.starts_with(prefix))
}

/// Whether a client with this version line prefers a MAC over the clear packet to one over what is encrypted, though it has
/// both: it isn't offered the first.
#[must_use]
pub fn prefers_plain_mac(version: &[u8]) -> bool {
    version.starts_with(b"SSH-2.0-paramiko_")
}

/// Whether a client with this version line may ask for chacha20-poly1305 without strict key exchange. It is only told
/// what we have once it has said what it has: these all speak without waiting for us. Then chacha20-poly1305 isn't
/// offered to those who can't have it, and they take AES-GCM; else they would be refused.
#[must_use]
pub fn may_lack_strict_exchange(version: &[u8]) -> bool {
    let Some(software) = version.strip_prefix(b"SSH-2.0-") else { return false };
    STRICT_SINCE
        .iter()
        .find_map(|(program, since)| Some((software.strip_prefix(*program)?, *since)))
        .is_some_and(|(rest, since)| since.is_empty() || numbers(rest).as_slice() < since)
}

/// The numbers at the start of `9.2p1 Debian-2`: 9 and 2.
fn numbers(text: &[u8]) -> Vec<u32> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(text.len());
    let text = text.get(..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    text.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_is_known_by_the_beginning_of_its_name() {
        for (version, is_openssh) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7", true),
            ("SSH-2.0-OpenSSH_for_Windows_9.8", true),
            ("SSH-1.99-OpenSSH_3.9p1", true),
            ("SSH-2.0-SSHJ_0.40.0", false),
            ("SSH-2.0-libssh_0.10.6", false),
            ("SSH-2.0-Not-OpenSSH", false),
            ("", false),
        ] {
            assert_eq!(super::is_openssh(version.as_bytes()), is_openssh, "{version}");
        }
        assert!(prefers_plain_mac(b"SSH-2.0-paramiko_5.1.0") && !prefers_plain_mac(b"SSH-2.0-OpenSSH_9.9"));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, may_lack) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7", true),
            ("SSH-2.0-OpenSSH_7.4", true),
            ("SSH-2.0-OpenSSH_9.6", false),
            ("SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13", false),
            ("SSH-2.0-OpenSSH_10.0", false),
            ("SSH-2.0-OpenSSH_for_Windows_8.1", true),
            ("SSH-2.0-OpenSSH_for_Windows_9.8", false),
            ("SSH-2.0-OpenSSH-keyscan", true),
            ("SSH-2.0-libssh_0.9.6", true),
            ("SSH-2.0-libssh_0.10.6", false),
            ("SSH-2.0-AsyncSSH_2.14.1", true),
            ("SSH-2.0-AsyncSSH_2.24.1", false),
            ("SSH-2.0-Go", false),
            ("SSH-2.0-dropbear_2022.83", false),
            ("SSH-2.0-OpenSSH_", true),
            ("SSH-2.0-OpenSSH_99999999999999999999", true),
            ("", false),
        ] {
            assert_eq!(may_lack_strict_exchange(version.as_bytes()), may_lack, "{version}");
        }
    }
}
