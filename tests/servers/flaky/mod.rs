//! A proxy between us and a destination that does what networks and overloaded servers do. It is switched while it runs,
//! and counts what it did.

mod again;
mod http;
mod message;
mod tcp;

use crate::process::free_port;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to a request (HTTP), or to the next bytes that the destination sends (TCP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The destination does it; the connection ends in the middle of its answer.
    Cut,
    /// The destination does it; the connection ends before a byte of its answer.
    Swallow,
    /// The destination never hears of it: the connection ends.
    Refuse,
    /// HTTP: the destination never hears of it, and there is never an answer. TCP: nothing passes, in either direction, until
    /// another fault is set.
    Hang,
    /// It waits until another fault is set, or one is queued that it then has. HTTP: what its client doesn't wait for any more
    /// never passes. TCP: what the client sends waits as well, while none is queued.
    Hold,
    /// It passes after so long.
    Delay(Duration),
    /// TCP only: what the client sends passes at so many bytes a second.
    Slow(u32),
    /// HTTP only: this status, and so many seconds in `Retry-After`.
    Answer(u16, Option<u32>),
    /// HTTP only: 413 for bodies of more bytes; others pass.
    BodyMax(usize),
    /// HTTP only: the connection ends after so many bytes of a body, while the client still sends; shorter ones pass.
    HangUpAfter(usize),
}

impl Fault {
    fn is_for_tcp(self) -> bool {
        !matches!(self, Self::Answer(..) | Self::BodyMax(_) | Self::HangUpAfter(_))
    }

    fn is_for_http(self) -> bool {
        !matches!(self, Self::Slow(_))
    }
}

/// What it did so far: requests, or connections' pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed, there and back; delayed ones too.
    pub passed: u64,
    /// Ended in the middle of an answer.
    pub cut: u64,
    /// Ended before an answer.
    pub swallowed: u64,
    /// Ended before the destination heard of it.
    pub refused: u64,
    /// Left without an answer.
    pub hung: u64,
    /// Answered by the proxy.
    pub answered: u64,
    /// Answered 413, or hung up upon, by the proxy.
    pub too_large: u64,
}

#[derive(Debug)]
struct Plan {
    /// What happens when nothing is queued.
    standing: Fault,
    /// What happens first, one request each.
    queued: VecDeque<Fault>,
    /// Requests whose first line doesn't contain it pass.
    only: Option<String>,
    counts: Counts,
    /// Requests that passed, byte for byte, where they are kept.
    kept: Option<Vec<Vec<u8>>>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    upstream: u16,
    plan: Mutex<Plan>,
    /// Tells those that hang that the plan is another.
    changed: watch::Sender<()>,
    /// Each value ends all connections.
    ended: watch::Sender<()>,
}

impl Shared {
    /// Held for a few instructions, never across an await.
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("nobody panics while holding it")
    }

    /// Whether what a client of TCP sends is held back.
    fn holds_back(&self) -> bool {
        let plan = self.plan();
        plan.standing == Fault::Hang || (plan.standing == Fault::Hold && plan.queued.is_empty())
    }

    /// What happens to a request with this first line; for TCP, to the next bytes.
    fn next(&self, line: &str) -> Fault {
        let mut plan = self.plan();
        if plan.only.as_ref().is_some_and(|only| !line.contains(only)) {
            return Fault::Pass;
        }
        let standing = plan.standing;
        plan.queued.pop_front().unwrap_or(standing)
    }

    /// A fault that happened to nothing, as its request never came whole: it is the next one's, unless it is everyone's.
    fn give_back(&self, fault: Fault) {
        let mut plan = self.plan();
        if plan.standing != fault && !matches!(fault, Fault::Pass | Fault::Hold) {
            plan.queued.push_front(fault);
        }
    }

    fn count(&self, counted: impl FnOnce(&mut Counts) -> &mut u64) {
        *counted(&mut self.plan().counts) += 1;
    }

    /// Keeps a request, where they are.
    fn keep(&self, request: &message::Message, line: &str) {
        let mut plan = self.plan();
        if plan.only.as_ref().is_none_or(|only| line.contains(only))
            && let Some(kept) = &mut plan.kept
        {
            kept.push([request.head.as_slice(), &request.body].concat());
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Tcp,
}

/// A running proxy. It ends with this value.
#[derive(Debug)]
pub struct Flaky {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    protocol: Protocol,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Flaky {
    /// Before an HTTP/1.1 server on a port of loopback: a fault for each request.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn http(upstream: u16) -> Self {
        Self::start(Protocol::Http, upstream)
    }

    /// Before any server on a port of loopback: a fault for each piece that the server sends.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn tcp(upstream: u16) -> Self {
        Self::start(Protocol::Tcp, upstream)
    }

    fn start(protocol: Protocol, upstream: u16) -> Self {
        let plan = Plan {
            standing: Fault::Pass,
            queued: VecDeque::new(),
            only: None,
            counts: Counts::default(),
            kept: None,
        };
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(plan),
            changed: watch::Sender::new(()),
            ended: watch::Sender::new(()),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("flaky")
            .enable_all()
            .build()
            .expect("a runtime");
        let port = free_port();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener can be so");
        runtime.spawn(accept(protocol, listener, Arc::clone(&shared)));
        Self { port, protocol, shared, runtime: Some(runtime) }
    }

    /// Its URL, without a slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What happens from now on. What was queued is forgotten.
    pub fn set(&self, fault: Fault) {
        self.check(fault);
        let mut plan = self.shared.plan();
        plan.standing = fault;
        plan.queued.clear();
        drop(plan);
        self.shared.changed.send_replace(());
    }

    /// What happens from now on, once what is queued has happened.
    ///
    /// # Panics
    /// When the protocol has no such fault.
    pub fn stand(&self, fault: Fault) {
        self.check(fault);
        self.shared.plan().standing = fault;
        self.shared.changed.send_replace(());
    }

    /// What happens to the next `times` requests, after those that are queued already.
    pub fn next(&self, times: usize, fault: Fault) {
        self.check(fault);
        self.shared.plan().queued.extend(std::iter::repeat_n(fault, times));
        self.shared.changed.send_replace(());
    }

    /// HTTP: keeps requests from now on, those that [`Flaky::only`] names.
    pub fn keep(&self) {
        self.shared.plan().kept = Some(vec![]);
    }

    /// Those that were kept, byte for byte, in their order; none is kept any more.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        self.shared.plan().kept.take().unwrap_or_default()
    }

    /// Sends whole requests of HTTP/1.1 once more over so many connections at once, each after the answer to the one before,
    /// to a port of loopback. Gives how long that took.
    ///
    /// # Panics
    /// When one isn't answered with a success.
    pub fn again(requests: &[Vec<u8>], connections: usize, port: u16) -> Duration {
        again::send(requests, connections, port)
    }

    /// HTTP: faults are for requests whose first line contains this, e.g. `/_bulk`; others pass.
    ///
    /// # Panics
    /// When it isn't a proxy for HTTP.
    pub fn only(&self, part_of_first_line: &str) {
        assert_eq!(self.protocol, Protocol::Http, "TCP has no first line");
        self.shared.plan().only = Some(part_of_first_line.to_owned());
    }

    /// Ends all connections that there are, as a router that was restarted.
    pub fn end_connections(&self) {
        self.shared.ended.send_replace(());
    }

    /// How many faults of [`Flaky::next`] haven't happened yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.plan().queued.len()
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.plan().counts
    }

    fn check(&self, fault: Fault) {
        let (is_for, protocol) = match self.protocol {
            Protocol::Http => (fault.is_for_http(), "bytes"),
            Protocol::Tcp => (fault.is_for_tcp(), "HTTP"),
        };
        assert!(is_for, "{fault:?} needs a proxy for {protocol}");
    }
}

impl Drop for Flaky {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Doesn't wait: this may be dropped inside another runtime.
            runtime.shutdown_background();
        }
    }
}

async fn accept(protocol: Protocol, listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a runtime with I/O");
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        let mut ended = shared.ended.subscribe();
        tokio::spawn(async move {
            let passed = async {
                client.set_nodelay(true)?;
                match protocol {
                    Protocol::Http => http::serve(client, &shared).await,
                    Protocol::Tcp => tcp::serve(client, &shared).await,
                }
            };
            // However it ends, both connections are closed: that's all that either side learns.
            tokio::select! {
                _ = passed => {}
                _ = ended.changed() => {}
            }
        });
    }
}
