use super::*;
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use custody_core::clock::{ManualClock, SystemClock};
use custody_core::event::log::{Created, Read};
use custody_core::event::{Actor, Draft, EventData, EventId, ProducerKind, ProducerRef, canonical};
use custody_core::log::embedded::import::Import;
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::note::Ed25519Signer;
use custody_core::log::tile::{self, Tile};
use custody_core::log::{CosignerKey, Entry, Log, Nanos, ProducerKey, Record, Signer, times};
use tempfile::TempDir;
use uuid::Uuid;

use crate::source::http_client;

const ORIGIN: &str = "custody.example/log";
const NOON: Nanos = Nanos(1_900_000_000_000_000_000);

fn signer() -> Arc<dyn Signer> {
    Arc::new(Ed25519Signer::from_seed(ORIGIN, &[7; 32]).unwrap())
}

fn numbered<D: EventData>(data: D, seq: u64) -> Vec<u8> {
    let mut draft = Draft::new(Actor::system("test"), data);
    draft.id = EventId(Uuid::from_u128(u128::from(seq)));
    let producer =
        ProducerRef { boot: Uuid::from_u128(1), id: "custody".into(), kind: ProducerKind::Log, seq };
    canonical::event_bytes(&draft.numbered(producer, Timestamp::from_nanos(NOON.0))).unwrap()
}

fn event(seq: u64, query: &str) -> Vec<u8> {
    match seq {
        0 => {
            numbered(Created { origin: ORIGIN.into(), verifier_key: signer().verifier_key().to_string() }, 0)
        }
        _ => numbered(Read { purpose: "search".into(), query: query.into() }, seq),
    }
}

/// A log of ours, and what is served in its name: its own directory at first, anything that a test puts there later.
struct World {
    scratch: TempDir,
    log: Arc<EmbeddedLog>,
    served: Arc<Mutex<Arc<dyn Log>>>,
    clock: Arc<ManualClock>,
    watched: Arc<Watched>,
}

impl World {
    async fn start(copy: bool, size: u64) -> World {
        let scratch = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::new(NOON));
        let options = Options::new(signer(), clock.clone());
        let log = Arc::new(EmbeddedLog::open(&scratch.path().join("log"), options).unwrap());
        let served: Arc<Mutex<Arc<dyn Log>>> = Arc::new(Mutex::new(log.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/{*path}", get(serve)).with_state(served.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let watched = watched(scratch.path(), &clock, copy, &url);
        let world = World { scratch, log, served, clock, watched };
        world.append(size).await;
        world
    }

    async fn append(&self, size: u64) {
        while self.log.size() < size {
            append(&self.log, self.log.size(), "as it was").await;
        }
        drop(self.log.sign_now().await.unwrap());
    }

    async fn submit(&self, old: u64, new: &Checkpoint) -> Answer {
        let proof = self.log.consistency_proof(old, new.size().min(self.log.size())).unwrap_or_default();
        self.watched.add_checkpoint(AddCheckpoint { old, proof, note: new.to_string() }).await
    }

    async fn cosigned(&self) {
        let old = self.watched.told().cosigned;
        let answer = self.submit(old, &self.log.checkpoint()).await;
        assert!(matches!(answer, Answer::Cosigned(_)), "{answer:?}");
    }

    /// The same log with the entries from `from` on as `change` gives them, signed by the real key.
    fn rewritten(&self, name: &str, change: impl Fn(&Entry) -> Option<Vec<u8>>) -> Arc<dyn Log> {
        let directory = self.scratch.path().join(name);
        let key = signer().verifier_key();
        let mut import = Import::begin(&directory, &key, &mut |_, _, _| {}).unwrap();
        for entry in self.log.read(0, usize::MAX, usize::MAX).unwrap() {
            if let Some(bytes) = change(&entry) {
                import.push(entry.appended, &bytes).unwrap();
            }
        }
        let checkpoint = Checkpoint::sign(import.size(), import.root(), &*signer()).unwrap();
        import.seal(&checkpoint).unwrap();
        Arc::new(import.log().unwrap())
    }

    fn serve(&self, log: Arc<dyn Log>) {
        *self.served.lock().unwrap() = log;
    }

    fn alarms(&self) -> Vec<(Kind, Option<u64>)> {
        self.watched.alarms().standing().iter().map(|alarm| (alarm.alarm, alarm.index)).collect()
    }
}

async fn append(log: &EmbeddedLog, seq: u64, query: &str) {
    let producer = ProducerKey { id: "custody".to_owned(), boot: Uuid::from_u128(1), seq };
    let tag = custody_core::event::Family::Log.tag();
    let record = Record { producer, tag, bytes: event(seq, query).into() };
    drop(log.submit(vec![record]).unwrap().await.unwrap());
}

fn cosigner() -> Cosigner {
    Cosigner::new(Arc::new(Ed25519Signer::from_seed("witness.example", &[9; 32]).unwrap()))
}

fn watched(directory: &Path, clock: &Arc<ManualClock>, copy: bool, url: &str) -> Arc<Watched> {
    let watch = Watch {
        key: signer().verifier_key(),
        source: Some(Source::new(http_client(None).unwrap(), url, Some("token")).unwrap()),
        copy,
        accepted: Vec::new(),
        silence: Duration::from_secs(45),
    };
    Arc::new(Watched::open(&directory.join("witness"), watch, cosigner(), clock.clone(), None).unwrap())
}

/// What a log serves, rendered as it is everywhere.
async fn serve(State(served): State<Arc<Mutex<Arc<dyn Log>>>>, UrlPath(path): UrlPath<String>) -> Response {
    let log = served.lock().unwrap().clone();
    if path == "checkpoint" {
        return log.checkpoint().to_string().into_response();
    }
    let size = log.checkpoint().size();
    let rendered = match times::parse_path(&path) {
        Some(bundle) => times::render(&*log, bundle, size),
        None => tile::render(&*log, Tile::parse(&path).unwrap(), size),
    };
    match rendered.unwrap() {
        Some(bytes) => bytes.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_cosigns_what_it_has_copied_and_takes_up_again() {
    let world = World::start(true, 600).await;
    world.cosigned().await;
    world.append(601).await;
    world.cosigned().await;
    world.cosigned().await;
    let told = world.watched.told();
    assert_eq!((told.cosigned, told.copied, told.cosignatures, told.trouble), (601, 601, 3, None));
    let copied = world.watched.copied().unwrap();
    assert_eq!(
        copied.read(0, usize::MAX, usize::MAX).unwrap(),
        world.log.read(0, usize::MAX, usize::MAX).unwrap()
    );
    let key: CosignerKey = cosigner().key().clone();
    let cosigned = world.watched.cosigned().unwrap();
    assert_eq!(key.verify(cosigned.note()).unwrap().at(), Timestamp::from_seconds(NOON.0 / 1_000_000_000));
    for _ in 0..20 {
        world.watched.round().await;
    }
    assert_eq!(world.alarms(), []);
    drop(copied);
    let World { scratch, clock, watched: before, .. } = world;
    drop(before);
    let again = watched(scratch.path(), &clock, true, "http://127.0.0.1:9");
    assert_eq!((again.told().cosigned, again.told().copied), (601, 601));
    assert_eq!(again.cosigned(), Some(cosigned));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_is_answered_as_the_specification_says() {
    let world = World::start(false, 5).await;
    let five = world.log.checkpoint();
    assert!(matches!(world.submit(0, &five).await, Answer::Cosigned(_)));
    world.append(9).await;
    let nine = world.log.checkpoint();
    assert_eq!(world.submit(4, &nine).await, Answer::Conflict(5));
    assert_eq!(world.submit(0, &nine).await, Answer::Conflict(5));
    assert!(matches!(world.submit(10, &nine).await, Answer::Malformed(_)));
    let bare = AddCheckpoint { old: 5, proof: Vec::new(), note: nine.to_string() };
    assert!(matches!(world.watched.add_checkpoint(bare).await, Answer::Unprocessable(_)));
    let other = Ed25519Signer::from_seed(ORIGIN, &[8; 32]).unwrap();
    let foreign = Checkpoint::sign(9, nine.root(), &other).unwrap();
    assert_eq!(world.submit(5, &foreign).await, Answer::NotSigned);
    let forged =
        AddCheckpoint { old: 5, proof: Vec::new(), note: nine.to_string().replace("\n9\n", "\n8\n") };
    assert_eq!(world.watched.add_checkpoint(forged).await, Answer::NotSigned);
    assert_eq!(world.alarms(), [], "what anybody can send is no alarm");
    let fork = Checkpoint::sign(5, nine.root(), &*signer()).unwrap();
    assert_eq!(world.submit(5, &fork).await, Answer::Conflict(5));
    assert_eq!(world.alarms(), [(Kind::Fork, None)], "two roots of one size, both signed");
    assert_eq!(world.watched.told().cosigned, 5);
    assert!(matches!(world.submit(5, &nine).await, Answer::Cosigned(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_log_is_known_by_its_first_changed_entry() {
    for (name, at, removed) in [("tampered", 300, false), ("removed", 7, true), ("last", 599, false)] {
        let world = World::start(true, 600).await;
        world.cosigned().await;
        let rewritten = world.rewritten(name, |entry| match entry.index {
            index if index == at && removed => None,
            index if index == at => Some(event(index, "as it should have been")),
            _ => Some(entry.bytes.to_vec()),
        });
        world.serve(rewritten.clone());
        world.watched.round().await;
        assert!(world.alarms().contains(&(Kind::Rewrite, Some(at))), "{name}: {:?}", world.alarms());
        let alarm = world.watched.alarms().standing().remove(0);
        let evidence = world.scratch.path().join("witness/evidence").join(&alarm.evidence[0]);
        let kept = std::fs::read_to_string(evidence).unwrap();
        assert_eq!(kept, rewritten.checkpoint().to_string());
        assert!(!matches!(world.submit(600, &rewritten.checkpoint()).await, Answer::Cosigned(_)));
        world.watched.round().await;
        assert_eq!(world.watched.alarms().counts().0, world.alarms().len() as u64, "each is raised once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_tail_that_went_on_is_known_too() {
    let world = World::start(true, 600).await;
    world.cosigned().await;
    world.append(900).await;
    let tail = |entry: &Entry| {
        Some(if entry.index < 512 { entry.bytes.to_vec() } else { event(entry.index, "another tail") })
    };
    world.serve(world.rewritten("tail", tail));
    world.watched.round().await;
    assert_eq!(world.alarms(), [(Kind::Rewrite, Some(512))]);
    assert_eq!(world.watched.copied().unwrap().size(), 600, "nothing of it was kept");
    // The true one is cosigned as before.
    world.serve(world.log.clone());
    world.cosigned().await;
}

/// What is served is another entry than what is signed: the checkpoint alone would show nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_served_otherwise_is_noticed_within_ten_rounds() {
    struct Lying(Arc<dyn Log>, Checkpoint);
    let world = World::start(true, 2_000).await;
    world.cosigned().await;
    let lie = world.rewritten("lie", |entry| {
        Some(if entry.index == 1_500 { event(1_500, "never seen") } else { entry.bytes.to_vec() })
    });
    let lying = Lying(lie, world.log.checkpoint());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route(
        "/{*path}",
        get(move |UrlPath(path): UrlPath<String>| async move {
            if path == "checkpoint" {
                return lying.1.to_string().into_response();
            }
            serve(State(Arc::new(Mutex::new(lying.0))), UrlPath(path)).await
        }),
    );
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let World { scratch, clock, watched: before, .. } = world;
    drop(before);
    let watched = watched(scratch.path(), &clock, true, &url);
    for _ in 0..10 {
        watched.round().await;
    }
    let alarms = watched.alarms().standing();
    assert_eq!((alarms.len(), alarms[0].alarm, alarms[0].index), (1, Kind::Rewrite, Some(1_500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_a_foreign_checkpoint_and_silence_are_alarms() {
    let world = World::start(true, 50).await;
    world.cosigned().await;
    let older = world.rewritten("older", |entry| (entry.index < 40).then(|| entry.bytes.to_vec()));
    world.serve(older);
    world.watched.round().await;
    assert_eq!(world.alarms(), [], "its readers may cache a checkpoint for a moment");
    world.clock.advance(SHRUNK_PATIENCE);
    world.watched.round().await;
    assert_eq!(world.alarms(), [(Kind::Shrink, Some(40))]);
    world.serve(world.log.clone());
    world.watched.round().await;
    assert_eq!(world.alarms(), []);
    world.clock.advance(Duration::from_secs(46));
    world.watched.round().await;
    assert_eq!(world.alarms(), [(Kind::Silence, None)], "it can be read, and submits nothing");
    world.cosigned().await;
    world.watched.round().await;
    assert_eq!(world.alarms(), []);
    let other: Arc<dyn Signer> = Arc::new(Ed25519Signer::from_seed("other.example/log", &[7; 32]).unwrap());
    let other = EmbeddedLog::open(
        &world.scratch.path().join("other"),
        Options::new(other, Arc::new(SystemClock::new())),
    );
    world.serve(Arc::new(other.unwrap()));
    world.watched.round().await;
    assert_eq!(world.alarms(), []);
    world.watched.round().await;
    assert_eq!(world.alarms(), [(Kind::BadCheckpoint, None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_a_rewritten_log_is_known_by_its_tiles() {
    let world = World::start(false, 300).await;
    world.cosigned().await;
    world.append(700).await;
    world.watched.round().await;
    assert_eq!((world.alarms(), world.watched.told().trouble), (vec![], None));
    let tampered =
        |entry: &Entry| Some(if entry.index == 5 { event(5, "another") } else { entry.bytes.to_vec() });
    world.serve(world.rewritten("tampered", tampered));
    world.watched.round().await;
    assert_eq!(world.alarms(), [(Kind::Rewrite, None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_log_holds_is_not_cosigned() {
    let world = World::start(true, 10).await;
    world.cosigned().await;
    let broken = String::from_utf8(event(10, "x")).unwrap().replace("\"purpose\"", "\"purpos\"");
    let producer = ProducerKey { id: "custody".to_owned(), boot: Uuid::from_u128(1), seq: 10 };
    let record = Record { producer, tag: 13, bytes: broken.into_bytes().into() };
    drop(world.log.submit(vec![record]).unwrap().await.unwrap());
    drop(world.log.sign_now().await.unwrap());
    let answer = world.submit(10, &world.log.checkpoint()).await;
    assert!(matches!(&answer, Answer::Unprocessable(why) if why.contains("entry 10")), "{answer:?}");
    assert_eq!(world.alarms(), [(Kind::BadEvent, Some(10))]);
    assert_eq!((world.watched.told().cosigned, world.watched.told().copied), (10, 10));
}

/// A signed checkpoint whose proof is wrong proves nothing, since anybody can send it; held against the copy it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_is_submitted_to_the_witness_is_known_once_the_log_is_as_long() {
    let world = World::start(true, 10).await;
    world.cosigned().await;
    let fork = Checkpoint::sign(15, world.log.checkpoint().root(), &*signer()).unwrap();
    let request = AddCheckpoint { old: 10, proof: Vec::new(), note: fork.to_string() };
    assert!(matches!(world.watched.add_checkpoint(request).await, Answer::Unprocessable(_)));
    world.watched.round().await;
    assert_eq!(world.alarms(), []);
    world.append(20).await;
    world.watched.round().await;
    assert_eq!(world.alarms(), [(Kind::Fork, None)]);
}
