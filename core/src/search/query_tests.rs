//! Against a real log in a temporary directory.

use super::*;
use crate::clock::ManualClock;
use crate::event::{
    Actor, Draft, EventData, Family, Outcome, ProducerKind, ProducerRef, Target, canonical, command, lock,
    login,
};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::note::Ed25519Signer;
use crate::log::{ProducerKey, Record};
use crate::search::DATABASE_NAME;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);
/// One part for each page, as for a log of which its time allows no more.
const LITTLE: Effort = Effort { at_once: Duration::ZERO, at_all: Duration::ZERO, part: 8 };

struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
    log: Arc<EmbeddedLog>,
    seq: AtomicU64,
    boot: Uuid,
    runtime: tokio::runtime::Runtime,
}

fn open_log(dir: &Path, seed: u8, clock: &Arc<ManualClock>) -> Arc<EmbeddedLog> {
    let signer = Ed25519Signer::from_seed("custody.test/log", &[seed; 32]).unwrap();
    Arc::new(EmbeddedLog::open(&dir.join("log"), Options::new(Arc::new(signer), clock.clone())).unwrap())
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(crate::clock::Nanos(1_764_028_800_000_000_000)));
        let log = open_log(dir.path(), 1, &clock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { dir, clock, log, seq: AtomicU64::new(0), boot: Uuid::now_v7(), runtime }
    }

    fn append<D: EventData>(&self, draft: Draft<D>) -> u64 {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let producer = ProducerRef { boot: self.boot, id: "p".into(), kind: ProducerKind::Log, seq };
        let envelope = draft.numbered(producer, Timestamp::from_nanos(1));
        self.append_bytes(seq, D::FAMILY, canonical::event_bytes(&envelope).unwrap())
    }

    fn append_bytes(&self, seq: u64, family: Family, bytes: Vec<u8>) -> u64 {
        let record = Record {
            producer: ProducerKey { id: "p".into(), boot: self.boot, seq },
            tag: family.tag(),
            bytes: bytes.into(),
        };
        self.log.submit(vec![record]).unwrap().wait_blocking().unwrap()[0].index
    }

    /// An event of one of three users in one of three families.
    fn some(&self, n: u64) -> u64 {
        let actor = Actor::Person(crate::event::Person {
            certificate: None,
            identity_provider: "local".into(),
            mfa: false,
            roles: vec![],
            user: ["ana", "bob", "eve"][n as usize % 3].into(),
        });
        match n % 4 {
            0 => self.append(Draft::new(actor, login::Succeeded { method: login::Method::Password })),
            1 => self.append(
                Draft::new(actor, lock::Lifted { name: format!("lock-{n}") }).outcome(Outcome::Success),
            ),
            2 => {
                let mut data = command::Requested::example();
                data.command =
                    Some(crate::event::ByteString::from(format!("rm -rf /srv/{n} Ünïcode").as_str()));
                let target =
                    Target { kind: "node".into(), name: format!("web-{}", n % 2), ..Target::default() };
                self.append(Draft::new(actor, data).target(target).session(SessionId(Uuid::from_u128(7))))
            }
            _ => {
                let failed = login::Failed {
                    claimed_user: Some("bob".into()),
                    method: login::Attempt::Password,
                    reason: "wrong password".into(),
                };
                self.append(Draft::new(Actor::system("api"), failed).outcome(Outcome::Failure))
            }
        }
    }

    fn search(&self) -> Search {
        let search = Search::open(&self.dir.path().join("projections"), self.log.clone()).unwrap();
        self.runtime.block_on(search.at_least(self.log.size(), PATIENCE)).unwrap();
        search
    }

    fn page(&self, search: &Search, query: Query) -> Page {
        self.runtime.block_on(search.find(query)).unwrap()
    }

    /// All pages.
    fn all(&self, search: &Search, query: &Query) -> Vec<u64> {
        let mut query = query.clone();
        let mut found = Vec::new();
        loop {
            let page = self.page(search, query.clone());
            query.cursor = Some(page.next);
            if page.entries.is_empty() && !page.cut {
                return found;
            }
            assert!(page.entries.len() <= query.limit);
            found.extend(page.entries.iter().map(|entry| entry.index));
        }
    }
}

fn query(limit: usize) -> Query {
    Query { limit, ..Query::default() }
}

fn questions() -> Vec<Query> {
    let q = |change: &dyn Fn(&mut Query)| {
        let mut query = query(7);
        change(&mut query);
        query
    };
    vec![
        q(&|_| ()),
        q(&|q| q.kind = Some("login".into())),
        q(&|q| q.kind = Some("login.failed".into())),
        q(&|q| q.user = Some("bob".into())),
        q(&|q| q.session = Some(SessionId(Uuid::from_u128(7)))),
        q(&|q| q.target = Some("web-0".into())),
        q(&|q| q.outcome = Some("failure".into())),
        q(&|q| q.text = Some("SRV ünïcode".into())),
        q(&|q| q.order = Order::Descending),
        q(&|q| {
            q.user = Some("ana".into());
            q.order = Order::Descending;
        }),
    ]
}

#[test]
fn filters_find_what_they_say() {
    let world = World::new();
    for n in 0..40 {
        world.some(n);
    }
    let search = world.search();
    let counts: Vec<_> = questions().iter().map(|query| world.all(&search, query).len()).collect();
    // Users: n % 3 for all but the ten failed logins, which claim bob: 30 events, 10 each.
    assert_eq!(counts, [40, 20, 10, 20, 10, 10, 10, 10, 40, 10]);
    let one = Query { text: Some("lock 17".into()), ..query(10) };
    assert_eq!(world.all(&search, &one), [17]);
    let descending = world.all(&search, &Query { order: Order::Descending, ..query(9) });
    assert_eq!(descending, (0..40).rev().collect::<Vec<_>>());
    let families: u64 = search.families().unwrap().iter().map(|(_, n)| n).sum();
    assert_eq!(families, 40);
}

#[test]
fn a_rebuild_gives_the_same_answers_and_a_restart_goes_on() {
    let world = World::new();
    for n in 0..30 {
        world.some(n);
    }
    let answers = |search: &Search| questions().iter().map(|q| world.all(search, q)).collect::<Vec<_>>();
    let first = world.search();
    let before = answers(&first);
    drop(first);

    let again = world.search();
    assert_eq!(answers(&again), before);
    world.some(30);
    world.runtime.block_on(again.at_least(31, PATIENCE)).unwrap();
    let with_one_more = answers(&again);
    drop(again);

    std::fs::remove_dir_all(world.dir.path().join("projections")).unwrap();
    let rebuilt = world.search();
    assert_eq!(answers(&rebuilt), with_one_more);
    assert!(with_one_more != before);
}

#[test]
fn another_logs_or_a_damaged_file_is_made_anew() {
    let world = World::new();
    for n in 0..5 {
        world.some(n);
    }
    drop(world.search());
    let projections = world.dir.path().join("projections");
    let file = projections.join(DATABASE_NAME);

    // Another log that is longer: same origin and key, other entries.
    let other = World::new();
    for n in 10..30 {
        other.some(n);
    }
    let adopted = Search::open(&projections, other.log.clone()).unwrap();
    other.runtime.block_on(adopted.at_least(20, PATIENCE)).unwrap();
    assert_eq!(other.all(&adopted, &Query { text: Some("lock 13".into()), ..query(5) }), [3]);
    drop(adopted);

    // Ahead of the log.
    let back = world.search();
    assert_eq!(world.all(&back, &Query { kind: Some("lock".into()), ..query(5) }), [1]);
    drop(back);

    // Rubbish.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..64].fill(0x55);
    std::fs::File::create(&file).and_then(|mut f| std::io::Write::write_all(&mut f, &bytes)).unwrap();
    let back = world.search();
    assert_eq!(world.all(&back, &Query { kind: Some("lock".into()), ..query(5) }), [1]);
}

/// Overwrites the page in which this table or index begins, of a projection that nobody has open.
fn damage(file: &Path, name: &str) {
    use std::os::unix::fs::FileExt as _;
    let connection = Connection::open(file).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    let size = number("PRAGMA page_size");
    let root = number(&format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'"));
    // The last to close it moves all that was written into the file itself.
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&vec![0x55; size as usize], (root - 1) * size).unwrap();
}

/// Waits until a question of this user is answered as it should be.
fn healed(world: &World, search: &Search) {
    let begun = Instant::now();
    let wanted: Vec<u64> = (0..world.log.size()).filter(|n| n % 4 < 2 && n % 3 == 0).collect();
    loop {
        let is_whole = world.runtime.block_on(search.at_least(world.log.size(), PATIENCE)).is_ok();
        let asked = Query { user: Some("ana".into()), ..query(500) };
        let found = world.runtime.block_on(search.find(asked));
        if let Ok(page) = &found
            && is_whole
            && page.entries.len() >= wanted.len()
        {
            let users: Vec<u64> = page.entries.iter().map(|entry| entry.index).collect();
            assert!(wanted.iter().all(|index| users.contains(index)), "{users:?}");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it isn't made anew: {:?}", found.err());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_that_is_damaged_where_it_is_written_is_made_anew_by_itself() {
    let world = World::new();
    for n in 0..200 {
        world.some(n);
    }
    drop(world.search());
    damage(&world.dir.path().join("projections").join(DATABASE_NAME), "entry_type");
    let search = Search::open(&world.dir.path().join("projections"), world.log.clone()).unwrap();
    assert_eq!(search.progress().borrow().next, 200, "its header says that all is well");
    for n in 200..230 {
        world.some(n);
    }
    healed(&world, &search);
}

#[test]
fn a_file_that_is_damaged_where_it_is_only_read_is_made_anew_by_itself() {
    let world = World::new();
    for n in 0..200 {
        world.some(n);
    }
    drop(world.search());
    damage(&world.dir.path().join("projections").join(DATABASE_NAME), "entry_user");
    let search = Search::open(&world.dir.path().join("projections"), world.log.clone()).unwrap();
    let asked = Query { user: Some("ana".into()), ..query(500) };
    let error = world.runtime.block_on(search.find(asked)).unwrap_err();
    assert!(matches!(error, SearchError::Database(_)), "{error}");
    healed(&world, &search);
}

#[test]
fn no_text_is_syntax() {
    let world = World::new();
    for n in 0..8 {
        world.some(n);
    }
    let search = world.search();
    for text in [
        "\"",
        "'",
        "a AND",
        "OR",
        "NEAR(",
        "*",
        "^x",
        "col:x",
        "-",
        "(",
        ")",
        "\0",
        "{a b} : c",
        "\"rm\" OR 1=1",
        "'; DROP TABLE entry; --",
        "rm\" AND \"x",
        "%",
        "\u{202e}",
        "ﬁ",
        "İ",
        "",
    ] {
        for query in [
            Query { text: Some(text.into()), ..query(10) },
            Query { user: Some(text.into()), kind: Some(text.into()), ..query(10) },
            Query { target: Some(text.into()), outcome: Some(text.into()), ..query(10) },
        ] {
            let found = world.all(&search, &query);
            assert!(found.len() < 8, "{text:?} finds everything");
        }
    }
    let several = Query { text: Some("-rf (srv) \"rm\"".into()), ..query(10) };
    assert_eq!(world.all(&search, &several), [2, 6]);
}

#[test]
fn until_is_inclusive_and_means_appending() {
    let world = World::new();
    let mut times = Vec::new();
    for n in 0..20 {
        world.clock.advance(Duration::from_secs(1));
        let index = world.some(n);
        times.push(world.log.read(index, 1, 1).unwrap()[0].appended.0);
    }
    let search = world.search();
    for (n, time) in times.iter().enumerate() {
        for (nanos, count) in [(*time, n + 1), (time - 1, n)] {
            let until = Query { until: Some(Timestamp::from_nanos(nanos)), ..query(6) };
            assert_eq!(world.all(&search, &until).len(), count);
        }
    }
    let end_of_time = Query { until: Some(Timestamp::from_nanos(u64::MAX)), ..query(6) };
    assert_eq!(world.all(&search, &end_of_time).len(), 20);
}

#[test]
fn pages_are_bounded_in_bytes_and_a_cursor_stands_on_an_empty_page() {
    let world = World::new();
    for n in 0..90 {
        let name = format!("{n}-{}", "x".repeat(60_000));
        world.append(Draft::new(Actor::system("s"), lock::Lifted { name }));
    }
    let search = world.search();
    for order in [Order::Ascending, Order::Descending] {
        for kind in [None, Some("lock".to_owned())] {
            let query = Query { kind, order, ..query(1000) };
            let page = world.page(&search, query.clone());
            let bytes: usize = page.entries.iter().map(|entry| entry.bytes.len()).sum();
            assert!(bytes <= PAGE_BYTES_MAX && page.entries.len() > 50, "{}", page.entries.len());
            assert_eq!(world.all(&search, &query).len(), 90);
        }
    }
    let nothing = Query { user: Some("nobody".into()), ..query(10) };
    let page = world.page(&search, nothing.clone());
    assert_eq!((page.entries.len(), page.next), (0, 90));
    let page = world.page(&search, Query { cursor: Some(page.next), ..nothing });
    assert_eq!((page.entries.len(), page.next), (0, 90));
    let page = world.page(&search, Query { cursor: Some(1_000_000), ..query(10) });
    assert_eq!((page.entries.len(), page.next), (0, 1_000_000));
}

/// Each event has the same producer's time here, as of several producers whose clocks differ; days end at the edge of a
/// page and within one.
#[test]
fn a_walk_sees_each_entry_once_whatever_its_times_are() {
    const DAY: Duration = Duration::from_secs(86_400);
    let world = World::new();
    let search = world.search();
    for filter in [query(3), Query { kind: Some("login".into()), ..query(3) }] {
        let mut query = Query { cursor: Some(world.log.size()), ..filter };
        let first = world.log.size();
        let mut found = Vec::new();
        for n in 0..30 {
            // The third and the seventh of ten: at the edge of a page and within one, while it is read.
            if [3, 7].contains(&(n % 10)) {
                world.clock.advance(DAY - Duration::from_nanos(1));
            }
            world.some(n);
            if n % 10 == 3 {
                world.clock.advance(Duration::from_nanos(1));
            }
            if n % 4 == 0 {
                world.runtime.block_on(search.at_least(world.log.size(), PATIENCE)).unwrap();
                let page = world.page(&search, query.clone());
                query.cursor = Some(page.next);
                found.extend(page.entries.into_iter().map(|entry| entry.index));
            }
        }
        world.runtime.block_on(search.at_least(world.log.size(), PATIENCE)).unwrap();
        found.extend(world.all(&search, &query));
        let all: Vec<u64> = (first..world.log.size()).collect();
        let wanted: Vec<u64> = match query.kind {
            None => all,
            Some(_) => all.into_iter().filter(|index| matches!((index - first) % 4, 0 | 3)).collect(),
        };
        assert_eq!(found, wanted);
    }
}

#[test]
fn a_page_whose_time_is_over_has_what_was_found_and_says_where_to_go_on() {
    let world = World::new();
    for n in 0..40 {
        world.some(n);
    }
    let search = world.search();
    let whole: Vec<_> = questions().iter().map(|query| world.all(&search, query)).collect();
    let search = search.with_effort(LITTLE);
    let parts: Vec<_> = questions().iter().map(|query| world.all(&search, query)).collect();
    assert_eq!(parts, whole);

    // Far from where the search begins, in both orders: the pages on the way are empty, and come nearer.
    for (lock, order, places) in
        [(37, Order::Ascending, [8, 16, 24, 32, 40]), (1, Order::Descending, [32, 24, 16, 8, 0])]
    {
        let mut query = Query { text: Some(format!("lock {lock}")), order, ..query(10) };
        for (n, place) in places.into_iter().enumerate() {
            let page = world.page(&search, query.clone());
            let found: Vec<u64> = page.entries.iter().map(|entry| entry.index).collect();
            let is_there = n + 1 == places.len();
            assert_eq!(found, if is_there { vec![lock] } else { vec![] });
            assert_eq!((page.next, page.cut), (place, !is_there), "{order:?}");
            query.cursor = Some(page.next);
        }
    }
    // A page that is full isn't cut: what is left is another page's.
    let page = world.page(&search, Query { kind: Some("login".into()), ..query(2) });
    assert_eq!((page.entries.len(), page.next, page.cut), (2, 4, false));
}

/// The first interruption came when nothing ran that could hear it, and the next one when all its time was over.
#[test]
fn what_was_found_at_once_is_given_though_its_time_is_over() {
    let world = World::new();
    for n in 0..8 {
        world.some(n);
    }
    let search = world.search();
    let query = Query { kind: Some("login".into()), ..query(10) };
    let effort = Effort { at_once: Duration::from_secs(1), ..LITTLE };
    // Whatever lies behind the first entry takes for ever.
    let endless = "CREATE TEMP VIEW entry AS SELECT * FROM main.entry AS one WHERE one.idx = 0 OR (
        WITH RECURSIVE endless(n) AS (SELECT one.idx UNION ALL SELECT n + 1 FROM endless)
        SELECT count(*) FROM endless) = 0";
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(20));
    let found = loop {
        let connection = Connection::open(search.path()).unwrap();
        connection.execute_batch(endless).unwrap();
        let (handle, is_done) = (connection.get_interrupt_handle(), AtomicBool::new(false));
        let time = Time { begun, effort, unwanted: Arc::default() };
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    std::thread::sleep(pause);
                    handle.interrupt();
                }
            });
            let found = page_indices(&connection, &query, &time);
            is_done.store(true, Ordering::Relaxed);
            found
        });
        match found {
            Ok(found) => break found,
            // Perhaps it was interrupted before the first one already.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    };
    assert_eq!((found.indices, found.left), (vec![0], Some(1)));
}

#[test]
fn a_search_that_goes_on_in_parts_goes_on_behind_what_it_has() {
    for (order, last, left) in [
        (Order::Ascending, None, 10..20),
        (Order::Ascending, Some(13), 14..20),
        (Order::Ascending, Some(4), 10..20),
        (Order::Descending, None, 10..20),
        (Order::Descending, Some(13), 10..13),
        (Order::Descending, Some(25), 10..20),
    ] {
        assert_eq!(behind(order, 10..20, last.as_ref()), left, "{order:?}, {last:?}");
    }
}

#[test]
fn whoever_waits_is_told_how_far_it_is() {
    let world = World::new();
    let search = world.search();
    let behind = world.runtime.block_on(search.at_least(5, Duration::from_millis(50))).unwrap_err();
    assert!(matches!(behind, SearchError::Behind { at: 0, wanted: 5 }), "{behind}");
    let now = search.reached(5).unwrap_err();
    assert!(matches!(now, SearchError::Behind { at: 0, wanted: 5 }), "{now}");
    search.reached(0).unwrap();
}

#[test]
fn a_filter_that_can_match_nothing_is_refused() {
    let types = |kind: &str| Query { kind: Some(kind.into()), ..query(1) }.check();
    for info in crate::event::TYPES {
        let family = info.name.split('.').next().unwrap();
        assert_eq!((types(info.name), types(family)), (Ok(()), Ok(())), "{}", info.name);
    }
    assert_eq!(types("of-tomorrow.made2"), Ok(()));
    for wrong in
        ["", "Login", "login.", ".failed", "login.failed.", "a.b.c", "login*", "login,lock", " login"]
    {
        assert_eq!(types(wrong), Err(QueryError::Type), "{wrong}");
    }
    let outcomes = |outcome: &str| Query { outcome: Some(outcome.into()), ..query(1) }.check();
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Denied] {
        let name = serde_json::to_value(outcome).unwrap();
        assert_eq!(outcomes(name.as_str().unwrap()), Ok(()), "{name}");
    }
    for wrong in ["", "Denied", "deny", "success,failure"] {
        assert_eq!(outcomes(wrong), Err(QueryError::Outcome), "{wrong}");
    }
    let texts = |text: &str| Query { text: Some(text.into()), ..query(1) }.check();
    for (text, wanted) in [
        ("rm -rf", Ok(())),
        ("ж", Ok(())),
        ("", Err(QueryError::Wordless)),
        ("\"* -", Err(QueryError::Wordless)),
        ("a ".repeat(WORDS_MAX).as_str(), Ok(())),
        ("a ".repeat(WORDS_MAX + 1).as_str(), Err(QueryError::Wordy)),
    ] {
        assert_eq!(texts(text), wanted, "{text}");
    }
    assert_eq!(query(1).check(), Ok(()));
}

#[test]
fn what_only_reads_the_log_waits_for_no_search() {
    let world = World::new();
    world.some(0);
    let search = world.search();
    world.runtime.block_on(async {
        let all = u32::try_from(search.at_once.available_permits()).unwrap();
        let _busy = search.at_once.acquire_many(all).await.unwrap();
        let soon = Duration::from_millis(100);
        let page = tokio::time::timeout(PATIENCE, search.find(query(1))).await.unwrap().unwrap();
        assert_eq!(page.entries.len(), 1);
        let filtered = Query { kind: Some("login".into()), ..query(1) };
        assert!(tokio::time::timeout(soon, search.find(filtered)).await.is_err(), "it took no turn");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Entries are appended between pages: none comes twice and none is missed.
    #[test]
    fn pages_give_each_entry_once(
        start in 0_u64..30,
        limit in 1_usize..12,
        between in prop::collection::vec(0_u64..4, 0..12),
        which in 0_usize..8,
    ) {
        let world = World::new();
        for n in 0..start {
            world.some(n);
        }
        let search = world.search();
        let mut n = start;
        let mut query = Query { limit, ..questions()[which].clone() };
        let mut found = Vec::new();
        for more in between {
            let page = world.page(&search, query.clone());
            found.extend(page.entries.iter().map(|entry| entry.index));
            query.cursor = Some(page.next);
            for _ in 0..more {
                world.some(n);
                n += 1;
            }
            world.runtime.block_on(search.at_least(n, PATIENCE)).unwrap();
        }
        found.extend(world.all(&search, &query));
        let whole = Query { cursor: None, limit: LIMIT_MAX, ..query };
        prop_assert_eq!(found, world.all(&search, &whole));
    }
}
