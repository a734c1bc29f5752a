//! What this crate's tests share: a log with something in it, a destination that says too much, and waiting for what comes of it.

pub mod misread;

use crate::http::ANSWER_BYTES_MAX;
use custody_core::clock::{Clock, ManualClock, Nanos};
use custody_core::event::{Actor, Draft, Event, Payload, ProducerKind, log, producer};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Log, Numbering, Producer};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A log in a folder of its own.
pub struct Story {
    pub dir: TempDir,
    pub log: Arc<dyn Log>,
    pub producer: Arc<Producer>,
}

impl Story {
    /// With so many entries.
    pub fn new(entries: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(Self::with(entries))).join().unwrap())
    }

    /// The same where a runtime runs already.
    pub async fn with(entries: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Nanos(1_764_000_000_000_000_000)));
        let options = Options::new(signer, Arc::clone(&clock));
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let numbering = Numbering {
            log: Arc::clone(&log),
            clock,
            id: "custody".to_owned(),
            kind: ProducerKind::Log,
            previous: None,
            program: "test".to_owned(),
        };
        let nothing = Vec::<Draft<producer::Started>>::new();
        let producer = Arc::new(Producer::start(numbering, nothing).await.unwrap());
        let story = Self { dir, log, producer };
        story.tell(entries.saturating_sub(1)).await;
        story
    }

    /// So many entries more.
    pub async fn tell(&self, entries: u64) {
        for n in 0..entries {
            let draft = Draft::new(Actor::system("test"), log::Sealed { size: n });
            drop(self.producer.append(draft).await.unwrap());
        }
    }
}

/// What a destination answers to a path; nothing where it answers more than is read of any answer.
type Answers = fn(&str) -> Option<&'static str>;

/// The address of a destination that speaks HTTP for as long as the tests run.
pub fn answering(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever asks may have read enough of it.
            drop(answer(&stream.unwrap(), answers));
        }
    });
    url
}

fn answer(mut stream: &TcpStream, answers: Answers) -> io::Result<()> {
    let mut asked = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0_usize);
    asked.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while !line.trim().is_empty() {
        line.clear();
        asked.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    asked.read_exact(&mut vec![0; length])?;
    let head =
        |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    match answers(&path) {
        Some(body) => stream.write_all(format!("{}{body}", head(body.len())).as_bytes()),
        None => {
            stream.write_all(head(ANSWER_BYTES_MAX + 1).as_bytes())?;
            let piece = vec![b' '; 1 << 20];
            (0..=ANSWER_BYTES_MAX >> 20).try_for_each(|_| stream.write_all(&piece))
        }
    }
}

/// The leaf hash of an entry.
pub fn leaf(story: &Story, index: u64) -> [u8; 32] {
    leaf_hash(&story.log.read(index, 1, 0).unwrap()[0].bytes).0
}

/// All that a story's log tells.
pub fn events(story: &Story) -> Vec<Payload> {
    let entries = story.log.read(0, usize::MAX, usize::MAX).unwrap();
    entries.iter().map(|entry| Event::parse(&entry.bytes).unwrap().payload()).collect()
}

/// Waits for a condition.
///
/// # Panics
/// When it doesn't come about.
pub async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
