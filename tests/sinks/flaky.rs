use custody_tests::servers::flaky::{Counts, Fault, Flaky};
use custody_tests::servers::http::send;
use custody_tests::wait::{DEADLINE, until_true};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A destination that remembers the bodies it has taken, and answers each with a word in two chunks.
struct Destination {
    port: u16,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Destination {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(Mutex::new(vec![]));
        let remember = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let remember = Arc::clone(&remember);
                std::thread::spawn(move || while Self::answer(&stream, &remember).is_some() {});
            }
        });
        Self { port, taken }
    }

    /// Takes a request with a Content-Length; nothing at the end of the connection.
    fn answer(mut stream: &TcpStream, taken: &Mutex<Vec<String>>) -> Option<()> {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.extend(byte);
        }
        let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).ok()?;
        taken.lock().unwrap().push(String::from_utf8(body).ok()?);
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n5\r\n well\r\n0\r\n\r\n",
            )
            .ok()
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

fn post(proxy: &Flaky, path: &str, body: &str) -> Result<u16, String> {
    send("POST", &format!("{}{path}", proxy.url()), &[], body).map(|answer| {
        if answer.status == 200 {
            assert_eq!(answer.text, "done well");
        }
        answer.status
    })
}

#[test]
fn each_fault_does_to_a_request_what_it_says() {
    let destination = Destination::start();
    let proxy = Flaky::http(destination.port);
    assert_eq!(post(&proxy, "/", "passes"), Ok(200));
    proxy.next(1, Fault::Cut);
    assert!(post(&proxy, "/", "cut").is_err(), "half an answer is none");
    proxy.next(1, Fault::Swallow);
    assert!(post(&proxy, "/", "swallowed").is_err());
    assert_eq!(destination.taken(), ["passes", "cut", "swallowed"], "the destination did them all");

    proxy.next(1, Fault::Refuse);
    assert!(post(&proxy, "/", "refused").is_err());
    proxy.next(2, Fault::Answer(429, Some(7)));
    for _ in 0..2 {
        let answer = send("POST", &proxy.url(), &[], "too many").unwrap();
        assert_eq!(answer.status, 429);
        assert!(answer.headers.contains(&("retry-after".to_owned(), "7".to_owned())));
    }
    proxy.set(Fault::BodyMax(10));
    assert_eq!(post(&proxy, "/", "more than ten bytes"), Ok(413));
    assert_eq!(post(&proxy, "/", "ten bytes."), Ok(200));
    proxy.set(Fault::HangUpAfter(1000));
    assert!(post(&proxy, "/", &"x".repeat(4 << 20)).is_err());
    let start = Instant::now();
    proxy.set(Fault::Delay(Duration::from_millis(200)));
    assert_eq!(post(&proxy, "/", "late"), Ok(200));
    assert!(start.elapsed() >= Duration::from_millis(200));
    proxy.set(Fault::Pass);
    assert_eq!(post(&proxy, "/", "passes again"), Ok(200));
    assert_eq!(destination.taken()[3..], ["ten bytes.", "late", "passes again"], "it heard of no others");
    let expected = Counts { passed: 4, cut: 1, swallowed: 1, refused: 1, hung: 0, answered: 2, too_large: 2 };
    // An answer is counted when it has left.
    until_true("all are counted", DEADLINE, || proxy.counts() == expected);
}

#[test]
fn a_request_that_is_never_answered_waits_until_the_client_or_the_proxy_ends_it() {
    let destination = Destination::start();
    let proxy = Flaky::http(destination.port);
    proxy.only("/_bulk");
    proxy.set(Fault::Hang);
    assert_eq!(post(&proxy, "/_refresh", "another path"), Ok(200));
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| post(&proxy, "/_bulk", "hung"));
        until_true("it hangs", DEADLINE, || proxy.counts().hung == 1);
        assert!(!hung.is_finished());
        proxy.end_connections();
        assert!(hung.join().unwrap().is_err());
    });
    assert_eq!(destination.taken(), ["another path"]);
    proxy.set(Fault::Pass);
    assert_eq!(post(&proxy, "/_bulk", "passes"), Ok(200));
}

/// Else a request that was held would arrive after whoever sent it has looked for it in vain and sent it again.
#[test]
fn what_is_held_passes_with_what_is_queued_and_never_when_its_client_is_gone() {
    let destination = Destination::start();
    let proxy = Flaky::http(destination.port);
    proxy.set(Fault::Hold);
    let mut gone = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    gone.write_all(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\ngone").unwrap();
    gone.shutdown(Shutdown::Write).unwrap();
    let mut heard = vec![];
    // It is hung up upon once that was noticed.
    drop(gone.read_to_end(&mut heard));
    assert!(heard.is_empty(), "{heard:?}");
    std::thread::scope(|scope| {
        let proxy = &proxy;
        let two = ["one", "other"].map(|body| scope.spawn(move || post(proxy, "/", body)));
        proxy.next(1, Fault::Answer(429, None));
        until_true("one has it", DEADLINE, || two.iter().any(|sent| sent.is_finished()));
        proxy.stand(Fault::Pass);
        let mut answers = two.map(|sent| sent.join().unwrap().unwrap());
        answers.sort_unstable();
        assert_eq!(answers, [200, 429]);
    });
    assert_eq!(destination.taken().len(), 1, "{:?}", destination.taken());
}

/// Else whoever counts what a sender was told waits in vain when that had given up its request meanwhile.
#[test]
fn what_happens_to_a_request_that_never_comes_whole_happens_to_the_next() {
    let destination = Destination::start();
    let proxy = Flaky::http(destination.port);
    proxy.next(1, Fault::Answer(429, None));
    let mut half = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    until_true("it has begun", DEADLINE, || proxy.queued() == 0);
    drop(half);
    until_true("it is the next one's", DEADLINE, || proxy.queued() == 1);
    assert_eq!(post(&proxy, "/", "whole"), Ok(429));
    assert_eq!((proxy.queued(), proxy.counts().answered), (0, 1));
    assert!(destination.taken().is_empty());
}

#[test]
fn many_requests_at_once_pass() {
    let (destination, passed) = (Destination::start(), AtomicUsize::new(0));
    let proxy = Flaky::http(destination.port);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (proxy, passed) = (&proxy, &passed);
            scope.spawn(move || {
                for number in 0..20 {
                    assert_eq!(post(proxy, "/", &format!("{thread}-{number}")), Ok(200));
                    passed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 160);
    assert_eq!(destination.taken().len(), 160);
}

/// Sends back what it gets.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
                drop(stream.shutdown(Shutdown::Both));
            });
        }
    });
    port
}

#[test]
fn each_fault_does_to_bytes_what_it_says() {
    let proxy = Flaky::tcp(echo());
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let say = |mut stream: &TcpStream, words: &[u8]| stream.write_all(words).unwrap();
    let rest = |mut stream: TcpStream| {
        let mut heard = vec![];
        // A connection that is reset has said what it had to say.
        drop(stream.read_to_end(&mut heard));
        heard
    };
    let hear = |mut stream: &TcpStream, length: usize| {
        let mut heard = vec![0; length];
        stream.read_exact(&mut heard).unwrap();
        heard
    };
    let stream = connect();
    say(&stream, b"hello");
    assert_eq!(hear(&stream, 5), b"hello");
    proxy.next(1, Fault::Cut);
    say(&stream, b"cut in two");
    assert_eq!(rest(stream), b"cut i");

    let stream = connect();
    proxy.next(1, Fault::Swallow);
    say(&stream, b"gone");
    assert_eq!(rest(stream), b"");

    let stream = connect();
    proxy.set(Fault::Hang);
    say(&stream, b"held");
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!((&stream).read(&mut [0; 4]).is_err(), "nothing passes");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    proxy.set(Fault::Pass);
    assert_eq!(hear(&stream, 4), b"held", "and then it does");
    proxy.set(Fault::Hold);
    say(&stream, b"held again");
    proxy.next(1, Fault::Delay(Duration::from_millis(1)));
    assert_eq!(hear(&stream, 10), b"held again", "with what is queued");
    proxy.set(Fault::Pass);

    proxy.set(Fault::Refuse);
    assert_eq!(rest(connect()), b"");
    proxy.set(Fault::Pass);
    proxy.end_connections();
    assert_eq!(rest(stream), b"");
    let counts = proxy.counts();
    assert_eq!((counts.cut, counts.swallowed, counts.refused), (1, 1, 1));
}
