//! The lines before the first packet (RFC 4253 section 4.2).

use super::error::{Error, PeerIncompatible, PeerMisbehaved, printable};
use super::negotiate::Role;

/// What we call ourselves. OpenSSH sends `eow@openssh.com` and `no-more-sessions@openssh.com` only to peers
/// whose name starts with `OpenSSH`; without the first, `ssh host yes | head -1` never returns.
pub const OURS: &str = "SSH-2.0-OpenSSH_9.9_Custody";

/// Longest line, its end included, bytes (RFC 4253 section 4.2).
pub const LINE_MAX: usize = 255;
/// Lines that a server may send before its version: OpenSSH's banner files stay far below.
pub const BANNER_LINES_MAX: usize = 50;
/// Bytes of such lines.
pub const BANNER_BYTES_MAX: usize = 8 * 1024;

/// Collects the peer's lines until its version is there.
#[derive(Debug)]
pub struct VersionReader {
    role: Role,
    line: Vec<u8>,
    lines: usize,
    bytes: usize,
}

impl VersionReader {
    /// A reader for the peer of a leg whose side is `role`.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, line: Vec::new(), lines: 0, bytes: 0 }
    }

    /// Reads from the front of `bytes`. Gives how many bytes it took, and the version once it is there (without
    /// its line end: V_C or V_S of the exchange hash).
    ///
    /// # Errors
    /// [`PeerMisbehaved::NotSsh`], [`PeerMisbehaved::LineTooLong`], [`PeerMisbehaved::TooManyLines`],
    /// [`PeerIncompatible::Version`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), Error> {
        let mut taken = 0;
        for &byte in bytes {
            taken += 1;
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() >= LINE_MAX {
                    return Err(PeerMisbehaved::LineTooLong { max: LINE_MAX }.into());
                }
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            let length = line.len() + 1;
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.starts_with(b"SSH-") {
                return check(line).map(|version| (taken, Some(version)));
            }
            // Only servers may say something first.
            if self.role == Role::Server {
                return Err(PeerMisbehaved::NotSsh { got: printable(&line) }.into());
            }
            self.lines += 1;
            self.bytes += length;
            if self.lines > BANNER_LINES_MAX || self.bytes > BANNER_BYTES_MAX {
                let (max_lines, max_bytes) = (BANNER_LINES_MAX, BANNER_BYTES_MAX);
                return Err(PeerMisbehaved::TooManyLines { max_lines, max_bytes }.into());
            }
        }
        Ok((taken, None))
    }
}

fn check(line: Vec<u8>) -> Result<Vec<u8>, Error> {
    // "1.99" is a server that still speaks version 1 as well (RFC 4253 section 5.1).
    let software = line.strip_prefix(b"SSH-2.0-").or_else(|| line.strip_prefix(b"SSH-1.99-"));
    match software {
        None => Err(PeerIncompatible::Version { got: printable(&line) }.into()),
        Some([]) => Err(PeerMisbehaved::NotSsh { got: printable(&line) }.into()),
        Some(software) if software.iter().any(|byte| byte.is_ascii_control()) => {
            Err(PeerMisbehaved::NotSsh { got: printable(&line) }.into())
        }
        Some(_) => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: Role, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), Error> {
        VersionReader::new(role).read(bytes)
    }

    #[test]
    fn a_version_is_found_wherever_the_bytes_are_cut() {
        let bytes = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\0\0\0\x0c";
        for cut in 0..30 {
            let mut reader = VersionReader::new(Role::Server);
            let (first, rest) = bytes.split_at(cut);
            assert_eq!(reader.read(first).unwrap(), (cut, None));
            let (taken, version) = reader.read(rest).unwrap();
            assert_eq!(version.unwrap(), b"SSH-2.0-OpenSSH_9.2p1 Debian-2");
            assert_eq!(cut + taken, 32);
        }
        assert_eq!(read(Role::Client, b"SSH-1.99-x\n").unwrap(), (11, Some(b"SSH-1.99-x".to_vec())));
    }

    #[test]
    fn banners_are_for_servers_only_and_bounded() {
        let banner = b"welcome\r\n\nSSH-2.0-x\r\n";
        assert_eq!(read(Role::Client, banner).unwrap().1.unwrap(), b"SSH-2.0-x");
        assert!(matches!(
            read(Role::Server, banner),
            Err(Error::PeerMisbehaved(PeerMisbehaved::NotSsh { .. }))
        ));
        let lines = |count| [b"x\n".repeat(count), b"SSH-2.0-x\n".to_vec()].concat();
        assert!(read(Role::Client, &lines(50)).unwrap().1.is_some());
        assert!(matches!(
            read(Role::Client, &lines(51)),
            Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyLines { .. }))
        ));
        let long = [vec![b'x'; 253], vec![b'\n']].concat().repeat(33);
        assert!(matches!(
            read(Role::Client, &long),
            Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyLines { .. }))
        ));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for (line, name) in [
            (&b"GET / HTTP/1.1\r\n"[..], "not ssh"),
            (b"SSH-2.0-\r\n", "empty"),
            (b"SSH-2.0-a\x1b[2J\r\n", "control"),
            (b"SSH-2.0-a\0b\r\n", "nul"),
        ] {
            assert!(
                matches!(read(Role::Server, line), Err(Error::PeerMisbehaved(PeerMisbehaved::NotSsh { .. }))),
                "{name}"
            );
        }
        for line in [&b"SSH-1.5-old\n"[..], b"SSH-3.0-new\n"] {
            let outcome = read(Role::Server, line);
            assert!(matches!(outcome, Err(Error::PeerIncompatible(PeerIncompatible::Version { .. }))));
        }
        for length in [254, 255, 256, 100_000] {
            let outcome = read(Role::Server, &[b"SSH-2.0-".to_vec(), vec![b'a'; length - 8]].concat());
            assert_eq!(outcome.is_err(), length >= 255, "{length}");
        }
    }
}
