//! Where the log is: how its address is read, and how one that answers is found among several.

use rustls::pki_types::ServerName;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The port where none is said.
const PORT: u16 = 443;
/// How long one address of a name is tried alone, before the next one is tried beside it (RFC 8305, section 5).
const NEXT_AFTER: Duration = Duration::from_millis(300);

/// The address of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Address {
    /// Of `https://host`, `https://host:port`, and of IPv6 `https://[address]:port`; `None`: it is none of these.
    pub(super) fn parse(server: &str) -> Option<Self> {
        let authority = server.strip_prefix("https://")?.trim_end_matches('/');
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                (address, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse::<u16>().ok().filter(|port| *port != 0)?
            }
            None if port.is_empty() => PORT,
            _ => return None,
        };
        let name = ServerName::try_from(host.to_owned()).ok()?;
        Some(Self { host: host.to_owned(), port, name })
    }

    /// What its certificate must say.
    pub(super) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// Connects to whichever of its addresses answers first.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let attempts = in_turn(found).into_iter().map(TcpStream::connect);
        first(attempts, NEXT_AFTER).await
    }
}

/// Addresses of the two kinds in turn, each kind in the order in which the system gives them (RFC 8305, section 4): one kind may lead nowhere.
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = found.collect();
    let leading = found.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.is_ipv6() == leading);
    let mut other = other.into_iter();
    let mut all = Vec::new();
    for address in one {
        all.push(address);
        all.extend(other.next());
    }
    all.extend(other);
    all
}

/// What the first attempt that succeeds gives; the others are given up. The next one begins when one has failed, or when the last
/// hasn't ended in time.
async fn first<T: Send + 'static>(
    attempts: impl IntoIterator<Item = impl Future<Output = io::Result<T>> + Send + 'static>,
    next_after: Duration,
) -> io::Result<T> {
    let mut waiting = attempts.into_iter().fuse();
    let mut trying = JoinSet::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    loop {
        if let Some(attempt) = waiting.next() {
            trying.spawn(attempt);
        }
        match tokio::time::timeout(next_after, trying.join_next()).await {
            Err(_) => {}
            Ok(None) => return Err(failed),
            Ok(Some(Ok(Ok(done)))) => return Ok(done),
            Ok(Some(Ok(Err(error)))) => failed = error,
            Ok(Some(Err(error))) => failed = io::Error::other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;

    type Attempt = Pin<Box<dyn Future<Output = io::Result<u32>> + Send>>;

    fn silent() -> Attempt {
        Box::pin(std::future::pending())
    }

    fn refused() -> Attempt {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn answers(number: u32) -> Attempt {
        Box::pin(async move { Ok(number) })
    }

    #[test]
    fn an_address_has_a_host_and_a_port_and_one_of_ipv6_brackets() {
        let read = |server: &str| {
            let address = Address::parse(server)?;
            let is_ip = matches!(address.name, ServerName::IpAddress(_));
            Some((address.host, address.port, is_ip))
        };
        let is = |host: &str, port: u16, is_ip: bool| Some((host.to_owned(), port, is_ip));
        assert_eq!(read("https://log.example"), is("log.example", 443, false));
        assert_eq!(read("https://log.example:3443/"), is("log.example", 3443, false));
        assert_eq!(read("https://192.0.2.1:3443"), is("192.0.2.1", 3443, true));
        assert_eq!(read("https://[2001:db8::1]"), is("2001:db8::1", 443, true));
        assert_eq!(read("https://[2001:db8::1]:3443"), is("2001:db8::1", 3443, true));
        for wrong in [
            "log.example:3443",
            "http://log.example",
            "https://",
            "https://:3443",
            "https://2001:db8::1",
            "https://[2001:db8::1",
            "https://[2001:db8::1]3443",
            "https://[log.example]:3443",
            "https://log.example:",
            "https://log.example:0",
            "https://log.example:+443",
            "https://log.example:65536",
            "https://log.example:3443/path",
            "https://user@log.example",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn both_kinds_of_addresses_are_tried_in_turn() {
        let of = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| format!("{text}:443").parse().unwrap()).collect()
        };
        let found = of(&["[2001:db8::1]", "[2001:db8::2]", "[2001:db8::3]", "192.0.2.1"]);
        assert_eq!(
            in_turn(found.into_iter()),
            of(&["[2001:db8::1]", "192.0.2.1", "[2001:db8::2]", "[2001:db8::3]"])
        );
        let found = of(&["192.0.2.1", "[2001:db8::1]", "[2001:db8::2]"]);
        assert_eq!(in_turn(found.clone().into_iter()), found);
        assert!(in_turn(Vec::new().into_iter()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_keeps_no_other_from_being_tried() {
        let (soon, never) = (Duration::from_millis(1), Duration::from_secs(3_600));
        assert_eq!(first([silent(), silent(), answers(3)], soon).await.unwrap(), 3);
        // One that fails isn't waited for.
        assert_eq!(first([refused(), answers(2)], never).await.unwrap(), 2);
        let none = first([refused(), refused()], soon).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::ConnectionRefused);
        let none = first(Vec::<Attempt>::new(), soon).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_server_that_listens_is_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let stream = Address::parse(&format!("https://{at}")).unwrap().connect().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), at);
    }
}
