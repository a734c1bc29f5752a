//! Load balancers that pass TCP on say whose connection it is by the PROXY protocol, version 2 (HAProxy's
//! `proxy-protocol.txt`). Only those that are configured are believed, and they must say it: what anybody could claim
//! would be worth nothing as evidence.

use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How long a balancer may take to say whose connection it is.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The signature, version, family and length.
const FIXED_BYTES: usize = 16;
/// Most bytes of addresses and extensions; HAProxy sends 12 to 36 and a few hundred of extensions.
const REST_BYTES_MAX: usize = 2048;

/// The networks that balancers connect from.
#[derive(Clone, Debug, Default)]
pub struct Balancers(Vec<IpNet>);

/// Why a balancer's connection can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The connection.
    #[error("the balancer's connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing came in time.
    #[error("the balancer didn't say whose connection it is: turn on PROXY protocol v2 there")]
    Late,
    /// Something else came.
    #[error("the balancer's header is none of PROXY protocol v2: {0}")]
    Wrong(String),
}

impl Balancers {
    /// Reads addresses and networks, e.g. `10.0.0.5` and `10.1.0.0/16`.
    ///
    /// # Errors
    /// Names the one that is neither.
    pub fn parse(networks: &[String]) -> Result<Self, String> {
        let network = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            let network = address.or_else(|_| text.parse::<IpNet>());
            network.map_err(|_| format!("\"{text}\" is neither an address nor a network, e.g. 10.1.0.0/16"))
        };
        networks.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whose connection it is that came from `peer`: a balancer says so in front of all else. The address is canonical: one
    /// of IPv4 that came to a listener for both (`::ffff:192.0.2.7`) is told, decided about and counted as what it is.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub async fn source(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        mut peer: SocketAddr,
    ) -> Result<SocketAddr, HeaderError> {
        peer.set_ip(peer.ip().to_canonical());
        if !self.0.iter().any(|network| network.contains(&peer.ip())) {
            return Ok(peer);
        }
        let told = tokio::time::timeout(HEADER_TIMEOUT, header(stream)).await;
        Ok(told.map_err(|_| HeaderError::Late)??.unwrap_or(peer))
    }
}

/// Reads a header and not a byte more. `None`: the balancer speaks for itself, to see whether we live.
async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, HeaderError> {
    let mut bytes = vec![0; FIXED_BYTES];
    stream.read_exact(&mut bytes).await?;
    if !bytes.starts_with(ppp::v2::PROTOCOL_PREFIX) {
        return Err(HeaderError::Wrong("it begins with other bytes".to_owned()));
    }
    let length = match bytes.as_slice() {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if length > REST_BYTES_MAX {
        return Err(HeaderError::Wrong(format!("{length} bytes of addresses and extensions")));
    }
    bytes.resize(FIXED_BYTES + length, 0);
    stream.read_exact(bytes.get_mut(FIXED_BYTES..).unwrap_or_default()).await?;
    let header = Header::try_from(bytes.as_slice()).map_err(|error| HeaderError::Wrong(error.to_string()))?;
    match (header.command, header.addresses) {
        (Command::Local, _) => Ok(None),
        (Command::Proxy, Addresses::IPv4(it)) => {
            Ok(Some(SocketAddr::new(it.source_address.into(), it.source_port)))
        }
        (Command::Proxy, Addresses::IPv6(it)) => {
            Ok(Some(SocketAddr::new(IpAddr::from(it.source_address).to_canonical(), it.source_port)))
        }
        (Command::Proxy, _) => Err(HeaderError::Wrong("it tells no IP address".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\xc3\x50\0\x16";

    fn told(bytes: &[u8]) -> (Result<SocketAddr, HeaderError>, usize) {
        let balancers = Balancers::parse(&["10.0.0.0/8".to_owned()]).unwrap();
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let peer = "[::ffff:10.1.2.3]:9".parse().unwrap();
        let source = runtime.block_on(balancers.source(&mut rest, peer));
        (source, rest.len())
    }

    /// The example of the specification, section 2.2, with addresses for documentation.
    #[test]
    fn the_source_is_told_and_nothing_behind_it_is_read() {
        let (source, left) = told(&[V4, b"SSH-2.0-x\r\n"].concat());
        assert_eq!((source.unwrap(), left), ("192.0.2.7:50000".parse().unwrap(), 11));
        let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x27".to_vec();
        v6.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        v6.extend([0; 16]);
        // With an extension (PP2_TYPE_NOOP) behind the ports.
        v6.extend(b"\xc3\x50\0\x16\x04\0\0");
        assert_eq!(told(&v6).0.unwrap(), "[2001:db8::7]:50000".parse().unwrap());
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(told(local).0.unwrap(), "10.1.2.3:9".parse().unwrap());
    }

    #[test]
    fn who_is_no_balancer_is_not_asked_and_a_balancer_must_tell() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let peer = "192.0.2.1:5".parse().unwrap();
        let mut rest = V4;
        let balancers = Balancers::parse(&["192.0.2.2".to_owned()]).unwrap();
        assert_eq!(runtime.block_on(balancers.source(&mut rest, peer)).unwrap(), peer);
        assert_eq!(rest.len(), V4.len());
        for bytes in
            [b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(), b"PROXY TCP4 192.0.2.7 127.0.0.1 5 22\r\n", b"\r\n\r\n"]
        {
            assert!(told(bytes).0.is_err());
        }
        let huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
        assert!(told(huge).0.unwrap_err().to_string().contains("65535 bytes"));
        let unix = [b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".as_slice(), &[b'a'; 216]].concat();
        assert!(told(&unix).0.unwrap_err().to_string().contains("no IP address"));
    }

    #[test]
    fn an_address_of_ipv4_is_one_whatever_listens() {
        let mapped = "[::ffff:192.0.2.1]:5".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut rest = b"SSH-2.0-x\r\n".as_slice();
        let source = runtime.block_on(Balancers::default().source(&mut rest, mapped));
        assert_eq!(source.unwrap(), "192.0.2.1:5".parse().unwrap());
        // What a balancer tells as well.
        let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        v6.extend("::ffff:192.0.2.7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        v6.extend([0; 16]);
        v6.extend(b"\xc3\x50\0\x16");
        assert_eq!(told(&v6).0.unwrap(), "192.0.2.7:50000".parse().unwrap());
    }

    #[test]
    fn networks_are_read_or_named() {
        assert!(Balancers::parse(&["::1".into(), "10.0.0.0/8".into()]).is_ok());
        assert!(Balancers::parse(&["10.0.0".into()]).unwrap_err().contains("10.0.0"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>, proper: bool) {
            if proper {
                bytes.splice(0..0, V4.iter().take(12).copied());
            }
            let _told = told(&bytes);
        }
    }
}
