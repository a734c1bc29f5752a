//! What forwarding puts into channel opens and global requests (RFC 4254, sections 6.3.2 and 7; OpenSSH's PROTOCOL,
//! 2.4, and PROTOCOL.agent).

use super::MessageError;
use super::wire::{Reader, put_string, put_u32};
use crate::ssh::field::c_string;

/// Where a connection leads or where it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot<'a> {
    /// A TCP port.
    Tcp {
        /// A name or an address; of a listener also "" (everywhere), "localhost" …
        host: &'a [u8],
        /// The port.
        port: u32,
    },
    /// A Unix socket.
    Socket {
        /// Its path.
        path: &'a [u8],
    },
}

/// A channel that isn't a session, as its CHANNEL_OPEN describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// `direct-tcpip`, `direct-streamlocal@openssh.com`: to be connected to somewhere.
    Direct {
        /// Where to.
        to: Spot<'a>,
        /// Where it comes from, as the client says: an address and a port.
        origin: (&'a [u8], u32),
    },
    /// `forwarded-tcpip`, `forwarded-streamlocal@openssh.com`: came in at a listener.
    Forwarded {
        /// The listener, as it was asked for.
        at: Spot<'a>,
        /// Where it comes from; empty for a socket.
        origin: (&'a [u8], u32),
    },
    /// `auth-agent@openssh.com`: to the client's agent.
    Agent,
    /// `x11`: to the client's X server.
    X11 {
        /// Where the program is, as the target says: an address and a port.
        origin: (&'a [u8], u32),
    },
}

impl<'a> Opening<'a> {
    /// Reads what a CHANNEL_OPEN of type `kind` carries. `None`: the type isn't one of these.
    ///
    /// # Errors
    /// The layout isn't the type's.
    pub fn parse(kind: &[u8], data: &'a [u8]) -> Result<Option<Self>, MessageError> {
        let mut r = Reader::new("CHANNEL_OPEN", data);
        let opening = match kind {
            b"direct-tcpip" => Self::Direct { to: tcp(&mut r)?, origin: origin(&mut r)? },
            b"direct-streamlocal@openssh.com" => {
                let path = r.string("socket path")?;
                // "reserved", which OpenSSH fills with the originator.
                Self::Direct { to: Spot::Socket { path }, origin: origin(&mut r)? }
            }
            b"forwarded-tcpip" => Self::Forwarded { at: tcp(&mut r)?, origin: origin(&mut r)? },
            b"forwarded-streamlocal@openssh.com" => {
                let path = r.string("socket path")?;
                let _reserved = r.string("reserved")?;
                Self::Forwarded { at: Spot::Socket { path }, origin: (b"", 0) }
            }
            b"auth-agent@openssh.com" => Self::Agent,
            b"x11" => Self::X11 { origin: origin(&mut r)? },
            _ => return Ok(None),
        };
        r.end()?;
        Ok(Some(opening))
    }

    /// The same as OpenSSH reads it, for which a zero byte at the end of a name is none of it. `None`: one stands elsewhere.
    #[must_use]
    pub fn without_zero_bytes(self) -> Option<Self> {
        let named = |(host, port): (&'a [u8], u32)| c_string(host).map(|host| (host, port));
        Some(match self {
            Self::Direct { to, origin } => {
                Self::Direct { to: to.without_zero_bytes()?, origin: named(origin)? }
            }
            Self::Forwarded { at, origin } => {
                Self::Forwarded { at: at.without_zero_bytes()?, origin: named(origin)? }
            }
            Self::Agent => Self::Agent,
            Self::X11 { origin } => Self::X11 { origin: named(origin)? },
        })
    }

    /// The channel type.
    #[must_use]
    pub fn kind(&self) -> &'static [u8] {
        match self {
            Self::Direct { to: Spot::Tcp { .. }, .. } => b"direct-tcpip",
            Self::Direct { to: Spot::Socket { .. }, .. } => b"direct-streamlocal@openssh.com",
            Self::Forwarded { at: Spot::Tcp { .. }, .. } => b"forwarded-tcpip",
            Self::Forwarded { at: Spot::Socket { .. }, .. } => b"forwarded-streamlocal@openssh.com",
            Self::Agent => b"auth-agent@openssh.com",
            Self::X11 { .. } => b"x11",
        }
    }

    /// Appends what the CHANNEL_OPEN carries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let put_origin = |out: &mut Vec<u8>, (host, port): (&[u8], u32)| {
            put_string(out, host);
            put_u32(out, port);
        };
        match *self {
            Self::Direct { to, origin } => {
                to.encode(out);
                put_origin(out, origin);
            }
            Self::Forwarded { at: at @ Spot::Tcp { .. }, origin } => {
                at.encode(out);
                put_origin(out, origin);
            }
            Self::Forwarded { at: at @ Spot::Socket { .. }, .. } => {
                at.encode(out);
                put_string(out, b"");
            }
            Self::Agent => {}
            Self::X11 { origin } => put_origin(out, origin),
        }
    }
}

/// A global request about a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening<'a> {
    /// `tcpip-forward`, `streamlocal-forward@openssh.com`: listen. Port 0: the target chooses one and tells it.
    Start(Spot<'a>),
    /// `cancel-tcpip-forward`, `cancel-streamlocal-forward@openssh.com`: listen no more.
    Cancel(Spot<'a>),
}

impl<'a> Listening<'a> {
    /// Reads what a GLOBAL_REQUEST of this name carries. `None`: the name isn't one of these.
    ///
    /// # Errors
    /// The layout isn't the request's.
    pub fn parse(name: &[u8], data: &'a [u8]) -> Result<Option<Self>, MessageError> {
        let mut r = Reader::new("GLOBAL_REQUEST", data);
        let listening = match name {
            b"tcpip-forward" => Self::Start(tcp(&mut r)?),
            b"cancel-tcpip-forward" => Self::Cancel(tcp(&mut r)?),
            b"streamlocal-forward@openssh.com" => {
                Self::Start(Spot::Socket { path: r.string("socket path")? })
            }
            b"cancel-streamlocal-forward@openssh.com" => {
                Self::Cancel(Spot::Socket { path: r.string("socket path")? })
            }
            _ => return Ok(None),
        };
        r.end()?;
        Ok(Some(listening))
    }

    /// The request's name.
    #[must_use]
    pub fn name(&self) -> &'static [u8] {
        match self {
            Self::Start(Spot::Tcp { .. }) => b"tcpip-forward",
            Self::Start(Spot::Socket { .. }) => b"streamlocal-forward@openssh.com",
            Self::Cancel(Spot::Tcp { .. }) => b"cancel-tcpip-forward",
            Self::Cancel(Spot::Socket { .. }) => b"cancel-streamlocal-forward@openssh.com",
        }
    }

    /// Appends what the GLOBAL_REQUEST carries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (Self::Start(spot) | Self::Cancel(spot)) = self;
        spot.encode(out);
    }
}

impl Spot<'_> {
    /// As [`Opening::without_zero_bytes`].
    #[must_use]
    pub fn without_zero_bytes(self) -> Option<Self> {
        Some(match self {
            Self::Tcp { host, port } => Self::Tcp { host: c_string(host)?, port },
            Self::Socket { path } => Self::Socket { path: c_string(path)? },
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Spot::Tcp { host, port } => {
                put_string(out, host);
                put_u32(out, *port);
            }
            Spot::Socket { path } => put_string(out, path),
        }
    }
}

/// The port that a REQUEST_SUCCESS tells for a `tcpip-forward` with port 0 (RFC 4254, section 7.1).
#[must_use]
pub fn allocated_port(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

fn tcp<'a>(r: &mut Reader<'a>) -> Result<Spot<'a>, MessageError> {
    Ok(Spot::Tcp { host: r.string("host")?, port: r.u32("port")? })
}

fn origin<'a>(r: &mut Reader<'a>) -> Result<(&'a [u8], u32), MessageError> {
    Ok((r.string("originator address")?, r.u32("originator port")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_a_cut_or_longer_one_is_refused(
            which in 0..6_u8, host in bytes(), from in bytes(), port: u32, from_port: u32,
        ) {
            let (tcp, socket) = (Spot::Tcp { host: &host, port }, Spot::Socket { path: &host });
            let origin = (from.as_slice(), from_port);
            let opening = match which {
                0 => Opening::Direct { to: tcp, origin },
                1 => Opening::Direct { to: socket, origin },
                2 => Opening::Forwarded { at: tcp, origin },
                3 => Opening::Forwarded { at: socket, origin: (b"", 0) },
                4 => Opening::Agent,
                _ => Opening::X11 { origin },
            };
            let mut data = Vec::new();
            opening.encode(&mut data);
            prop_assert_eq!(Opening::parse(opening.kind(), &data), Ok(Some(opening)));
            if let Some((_, shorter)) = data.split_last() {
                prop_assert!(Opening::parse(opening.kind(), shorter).is_err());
            }
            let mut longer = data.clone();
            longer.push(0);
            prop_assert!(Opening::parse(opening.kind(), &longer).is_err());

            for spot in [tcp, socket] {
                for listening in [Listening::Start(spot), Listening::Cancel(spot)] {
                    let mut data = Vec::new();
                    listening.encode(&mut data);
                    prop_assert_eq!(Listening::parse(listening.name(), &data), Ok(Some(listening)));
                    data.push(0);
                    prop_assert!(Listening::parse(listening.name(), &data).is_err());
                }
            }
        }

        #[test]
        fn other_names_are_not_ours_and_no_bytes_panic(name in bytes(), data in bytes()) {
            prop_assert_eq!(Opening::parse(b"session", &data), Ok(None));
            prop_assert_eq!(Listening::parse(b"no-more-sessions@openssh.com", &data), Ok(None));
            let _read = (Opening::parse(&name, &data), Listening::parse(&name, &data), allocated_port(&data));
        }
    }

    #[test]
    fn a_zero_byte_at_the_end_is_none_of_a_name_and_one_elsewhere_makes_it_none() {
        let to = |path| Opening::Direct { to: Spot::Socket { path }, origin: (b"127.0.0.1\0", 80) };
        let read = to(b"/run/docker.sock\0").without_zero_bytes();
        let plain = Spot::Socket { path: b"/run/docker.sock" };
        assert_eq!(read, Some(Opening::Direct { to: plain, origin: (b"127.0.0.1", 80) }));
        assert_eq!(to(b"/run\0/docker.sock").without_zero_bytes(), None);
        let at = |host| Spot::Tcp { host, port: 22 };
        let forwarded = |host| Opening::Forwarded { at: at(host), origin: (b"", 0) }.without_zero_bytes();
        assert_eq!(
            forwarded(b"localhost\0"),
            Some(Opening::Forwarded { at: at(b"localhost"), origin: (b"", 0) })
        );
        assert_eq!(forwarded(b"localhost\0\0"), None);
        assert_eq!(Opening::X11 { origin: (b"a\0b", 1) }.without_zero_bytes(), None);
    }

    /// As OpenSSH 9.2 sends them.
    #[test]
    fn known_bytes() {
        let data = b"\0\0\0\x09localhost\0\0\0\x16\0\0\0\x09127.0.0.1\0\0\0\x50";
        assert_eq!(
            Opening::parse(b"direct-tcpip", data),
            Ok(Some(Opening::Direct {
                to: Spot::Tcp { host: b"localhost", port: 22 },
                origin: (b"127.0.0.1", 80)
            }))
        );
        assert_eq!(allocated_port(b"\0\0\x1f\x90"), Some(8080));
        assert_eq!(allocated_port(b""), None);
    }
}
