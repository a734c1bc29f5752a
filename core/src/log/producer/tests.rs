use super::*;
use crate::clock::SystemClock;
use crate::event::{Event, decision, lock, user};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::note::Ed25519Signer;

struct Place {
    log: Arc<dyn Log>,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signer = Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap();
        let options = Options::new(Arc::new(signer), Arc::new(SystemClock::new()));
        let log = Arc::new(EmbeddedLog::open(&directory.path().join("log"), options).unwrap());
        Self { log, _directory: directory }
    }

    async fn producer(&self, kind: ProducerKind, previous: Option<producer::Previous>) -> Producer {
        let numbering = Numbering {
            log: Arc::clone(&self.log),
            clock: Arc::new(SystemClock::new()),
            id: "p".to_owned(),
            kind,
            previous,
            program: "test".to_owned(),
        };
        Producer::start(numbering, Vec::<Draft<lock::Lifted>>::new()).await.unwrap()
    }

    fn events(&self) -> Vec<Event> {
        let entries = self.log.read(0, 1_000, 1 << 20).unwrap();
        entries.iter().map(|entry| Event::parse(&entry.bytes).unwrap()).collect()
    }
}

fn lifted(name: &str) -> Draft<lock::Lifted> {
    Draft::new(Actor::system("test"), lock::Lifted { name: name.to_owned() })
}

#[tokio::test]
async fn a_batch_is_durable_together_and_numbers_have_no_gaps() {
    let place = Place::new();
    let producer = place.producer(ProducerKind::Log, None).await;
    let decision = Draft::new(Actor::system("test"), decision::Made::example());
    let cause = decision.id;
    let (decided, done) = producer.append((decision, lifted("a").cause(cause))).await.unwrap();
    assert_eq!((decided.index(), done.index()), (1, 2));
    assert_eq!(done.envelope().cause, Some(decided.id()));
    assert!(place.log.size() >= 3, "durable means in the log");

    let many = producer.append((0..50).map(|n| lifted(&n.to_string())).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(many.len(), 50);
    let seqs: Vec<u64> = place.events().iter().map(|event| event.producer.seq).collect();
    assert_eq!(seqs, (0..53).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_refused_uses_no_number() {
    let place = Place::new();
    let producer = place.producer(ProducerKind::Log, None).await;
    let long = producer.append(lifted(&"x".repeat(70_000))).await;
    assert!(matches!(long, Err(ProducerError::Unwritable(CanonicalError::TooLong { .. }))));
    let next = producer.append(lifted("a")).await.unwrap();
    assert_eq!(next.envelope().producer.seq, 1);
}

#[tokio::test]
async fn who_says_what_is_not_for_him_is_refused_and_it_shows() {
    let place = Place::new();
    let proxy = place.producer(ProducerKind::Proxy, None).await;
    let made = user::Created { name: "mallory".to_owned(), roles: vec!["admin".to_owned()] };
    let refused = proxy.append(Draft::new(Actor::system("test"), made)).await;
    assert!(matches!(refused, Err(ProducerError::MayNotSay { event: "user.created", .. })));
    let _after = proxy.append(Draft::new(Actor::system("test"), producer::Stopped {})).await.unwrap();
    let kinds: Vec<String> = place.events().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["producer.started", "producer.refused", "producer.stopped"]);
}

#[tokio::test]
async fn a_start_names_the_end_of_the_boot_before() {
    let place = Place::new();
    let first = place.producer(ProducerKind::Log, None).await;
    let last = first.append(lifted("a")).await.unwrap();
    let end = last.envelope().producer.clone();
    let previous = producer::Previous { boot: end.boot, seq: end.seq };
    let _second = place.producer(ProducerKind::Log, Some(previous)).await;
    let started = place.events().pop().unwrap();
    assert_eq!(started.kind, "producer.started");
    assert!(started.data.get().contains(&format!("\"seq\":{}", end.seq)));
    assert_ne!(started.producer.boot, end.boot);
}

#[tokio::test]
async fn dropping_the_wait_takes_nothing_back() {
    let place = Place::new();
    let producer = place.producer(ProducerKind::Log, None).await;
    drop(producer.submit(lifted("a")).unwrap());
    let next = producer.append(lifted("b")).await.unwrap();
    assert_eq!(next.index(), 2);
}
