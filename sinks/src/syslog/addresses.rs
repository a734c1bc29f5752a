//! The addresses of a receiver's name: all of them are tried within the time that a connection may take, so that one that says
//! nothing doesn't keep the others from being tried.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// A resolver turns to its second name server after five seconds.
const LOOK_UP: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// Finds one that serves.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Mutex<Known>,
}

/// What came of those that were connected to.
#[derive(Debug, Default)]
struct Known {
    /// The one that served last. It is tried first, so that one that is dead costs its time once.
    served: Option<SocketAddr>,
    /// Those that took a connection and didn't serve since then, the latest last: behind a balancer there may be nobody.
    failed: Vec<SocketAddr>,
}

impl Known {
    /// How they are tried: else in the order in which the system gives them.
    fn in_order(&self, mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        found.sort_by_key(|address| {
            let failed = self.failed.iter().position(|failed| failed == address);
            (failed, self.served != Some(*address))
        });
        found
    }

    fn settled(&mut self, address: SocketAddr, served: bool) {
        if served {
            *self = Self { served: Some(address), failed: Vec::new() };
        } else {
            self.failed.retain(|failed| *failed != address);
            self.failed.push(address);
        }
    }
}

/// A connection to one of them that hasn't served yet: dropped, it has failed.
pub(super) struct Trial<'a> {
    addresses: &'a Addresses,
    address: SocketAddr,
    served: bool,
}

impl Trial<'_> {
    pub(super) fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.addresses.known().settled(self.address, self.served);
    }
}

impl Addresses {
    /// Connects to `server`, which is `host:port`.
    ///
    /// # Errors
    /// What happened with each of its addresses, in one line.
    pub(super) async fn connect(&self, server: &str) -> Result<(TcpStream, Trial<'_>), String> {
        let found = match timeout(LOOK_UP, lookup_host(server)).await {
            Ok(found) => found.map_err(|error| error.to_string())?.collect(),
            Err(_) => return Err("its name wasn't found in time".to_owned()),
        };
        self.connect_to(found, CONNECT).await
    }

    async fn connect_to(
        &self,
        found: Vec<SocketAddr>,
        within: Duration,
    ) -> Result<(TcpStream, Trial<'_>), String> {
        let found = self.known().in_order(found);
        let (address, stream) = first(found, within, TcpStream::connect).await?;
        Ok((stream, Trial { addresses: self, address, served: false }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the first of so many addresses may take of the time that is left.
fn share(left: Duration, addresses: usize) -> Duration {
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

/// The first address that can be connected to, and the connection. What one doesn't take of its share is the others'.
async fn first<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    within: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), String> {
    let (begun, mut left) = (Instant::now(), addresses.len());
    let mut failed = Vec::new();
    for address in addresses {
        let share = share(within.saturating_sub(begun.elapsed()), left);
        left -= 1;
        match timeout(share, connect(address)).await {
            Ok(Ok(connected)) => return Ok((address, connected)),
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_) => failed.push(format!("{address}: no connection came about in time")),
        }
    }
    Err(if failed.is_empty() { "its name has no address".to_owned() } else { failed.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    const WITHIN: Duration = Duration::from_millis(800);
    const SILENT: u16 = 1;
    const CLOSED: u16 = 2;
    const OPEN: u16 = 3;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    async fn connect(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            SILENT => std::future::pending().await,
            CLOSED => Err(io::ErrorKind::ConnectionRefused.into()),
            port => Ok(port),
        }
    }

    #[test]
    fn the_one_that_served_last_comes_first_and_those_that_failed_since_come_last() {
        let all = || vec![at(1), at(2), at(3)];
        let mut known = Known::default();
        assert_eq!(known.in_order(all()), all());
        known.settled(at(2), true);
        assert_eq!(known.in_order(all()), [at(2), at(1), at(3)]);
        known.settled(at(4), true);
        assert_eq!(known.in_order(all()), all());
        // Each has its turn, and again when all of them have failed.
        for next in [1, 2, 3, 1, 2, 3] {
            assert_eq!(known.in_order(all())[0], at(next));
            known.settled(at(next), false);
        }
        known.settled(at(2), true);
        assert_eq!(known.in_order(all()), [at(2), at(1), at(3)]);
    }

    #[test]
    fn each_has_its_share_and_all_of_them_no_more_than_there_is() {
        let mut left = CONNECT;
        for addresses in (1..=4).rev() {
            let share = share(left, addresses);
            assert_eq!(share, CONNECT / 4);
            left -= share;
        }
        assert_eq!(left, Duration::ZERO);
        assert_eq!((share(CONNECT, 1), share(Duration::ZERO, 3)), (CONNECT, Duration::ZERO));
    }

    #[tokio::test]
    async fn all_are_tried_and_each_is_named_when_none_answers() {
        let begun = Instant::now();
        let within = WITHIN / 4;
        let found = [SILENT, CLOSED, SILENT, OPEN, SILENT].map(at).to_vec();
        assert_eq!(first(found, within, connect).await, Ok((at(OPEN), OPEN)));
        assert!(begun.elapsed() >= within / 5);
        let said = first(vec![at(SILENT), at(CLOSED)], within, connect).await.unwrap_err();
        let silent = "192.0.2.1:1: no connection came about in time";
        assert_eq!(said, format!("{silent}; 192.0.2.1:2: connection refused"));
        assert_eq!(first(vec![], within, connect).await.unwrap_err(), "its name has no address");
    }

    #[tokio::test]
    async fn an_address_that_swallows_what_comes_costs_its_share_and_is_not_the_first_again() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        // Nobody takes what waits there, and when there is no more room for it nothing is answered.
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(WITHIN / 2, TcpStream::connect(silent)).await {
            waiting.push(stream.unwrap());
        }
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = open.local_addr().unwrap();
        let (addresses, found) = (Addresses::default(), || vec![silent, answers]);
        let begun = Instant::now();
        let (stream, trial) = addresses.connect_to(found(), WITHIN).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        assert!(begun.elapsed() >= WITHIN / 2);
        trial.served();
        drop((stream, open));
        // By the order in which they are named.
        let said = addresses.connect_to(found(), WITHIN).await.map(|_| ()).unwrap_err();
        let (first, second) = said.split_once("; ").unwrap();
        assert!(first.starts_with(&format!("{answers}: Connection refused")), "{said}");
        assert_eq!(second, format!("{silent}: no connection came about in time"));
    }

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = open.local_addr().unwrap().port();
        let addresses = Addresses::default();
        for server in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
            assert_eq!(addresses.connect(&server).await.unwrap().0.peer_addr().unwrap().port(), port);
        }
    }
}
