//! Reads the topic back. Blocks, so it is called from threads of its own ([`crate::aside`]).
//!
//! What is told to be whole is: the brokers are asked how far each partition goes, also with what isn't decided yet (a new
//! leader tells nothing until it knows, KIP-207; an old one that stood still may tell less, and less than what was
//! acknowledged to us is never believed), and all of that is read, up to there. A partition that nobody leads, a transaction that stays open, a record whose checksum is wrong
//! mean that nothing is known.

use crate::aside::{Waiting, let_go};
use crate::client::{Asker, asker, code, reader, words};
use crate::map::{Map, Part, Stretch, belongs};
use crate::record::Claim;
use crate::settings::Settings;
use crate::topic::partitions;
use custody_core::clock::Nanos;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::{Found, Held, Room, Trouble, Unproven, Window};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long is waited for a record before is looked whether anybody still waits.
const LOOK: Duration = Duration::from_millis(20);
/// Within this time whoever was told that not all is read yet asks again.
const AGAIN: Duration = Duration::from_secs(30);
/// Bytes of one partition that are fetched at once: all of it is wanted, or a few records.
const SCAN_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 256 << 10;
const MILLISECOND: u64 = 1_000_000;

/// What is done with records that are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// They can't be shown.
    CountAsUnknown,
    /// Sending them again makes no copy.
    CountAsAbsent,
}

/// What is known of the topic from sending to it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What was learned in another one counts no more.
    pub era: u64,
    /// Offsets that the partitions reach at least.
    pub acknowledged: BTreeMap<i32, i64>,
}

/// Reads the topic, and remembers what lies where.
pub struct Reader {
    settings: Settings,
    secrets: Secrets,
    origin: String,
    map: Option<Map>,
    /// Since when the map is kept; see [`Reader::read`].
    era: u64,
    /// The window for which not all could be read yet, and when that was.
    left: Option<(Window, Instant)>,
    /// How long is read at once.
    turn: Duration,
    /// How much is found at once.
    room: Room,
    clients: Option<Clients>,
}

struct Clients {
    asker: Asker,
    pages: Asker,
}

/// The offsets of each partition: the oldest, and the one after the last.
type Bounds = BTreeMap<i32, (i64, i64)>;

impl Reader {
    /// For the records of that log.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, origin: &str) -> Self {
        // Shorter than whoever asks has time.
        let turn = settings.timeout();
        Self {
            settings,
            secrets,
            origin: origin.to_owned(),
            map: None,
            era: 0,
            left: None,
            turn,
            room: Room::default(),
            clients: None,
        }
    }

    /// Every record that belongs to the window. What was learned of the topic so far is kept, also when this fails: the next
    /// call goes on from there. What was learned in another era isn't: the topic may have been another one.
    ///
    /// # Errors
    /// [`Unproven::Now`] unless the answer is whole, [`Unproven::Unfinished`] where that takes longer than a turn, and
    /// [`Unproven::TooMuch`] where there isn't room for all of it.
    pub fn read(
        &mut self,
        window: &Window,
        deleted: Deleted,
        known: &Known,
        waiting: &Waiting,
    ) -> Result<Found, Unproven> {
        if known.era != self.era {
            (self.map, self.era) = (None, known.era);
        }
        let clients = match self.clients.take() {
            Some(clients) => clients,
            None => self.connect().map_err(|trouble| Unproven::Now(trouble.to_string()))?,
        };
        let found = self.read_with(&clients, window, deleted, known, waiting);
        match found {
            Ok(found) => {
                self.clients = Some(clients);
                Ok(found)
            }
            // New ones know nothing of what went wrong, and have read credentials anew.
            Err(unproven) => {
                let_go(clients);
                Err(unproven)
            }
        }
    }

    fn connect(&self) -> Result<Clients, Trouble> {
        let config = self.settings.client(&self.secrets).map_err(|reason| Trouble::Denied { reason })?;
        Ok(Clients { asker: asker(&config)?, pages: reader(&config, false, PAGE_BYTES)? })
    }

    fn read_with(
        &mut self,
        clients: &Clients,
        window: &Window,
        deleted: Deleted,
        known: &Known,
        waiting: &Waiting,
    ) -> Result<Found, Unproven> {
        let mut bounds = self.bounds(&clients.asker, waiting).map_err(Unproven::Now)?;
        for (id, last) in &known.acknowledged {
            let (_, high) =
                bounds.get_mut(id).ok_or_else(|| Unproven::Now(format!("nobody tells of partition {id}")))?;
            *high = last.saturating_add(1).max(*high);
        }
        let goes_on = self.left.take().is_some_and(|left| goes_on(&left, window));
        let before = self.map.take();
        let begin = |since| self.begin(&clients.asker, since, &bounds).map_err(Unproven::Now);
        let mut map = match before {
            // The first window of a proof: what was known before may have been of another topic of that name.
            Some(map) if (goes_on || window.appended.start > Nanos(0)) && fits(&map, window, &bounds) => map,
            Some(map) => begin(map.since.min(window.appended.start))?,
            None => begin(window.appended.start)?,
        };
        for (id, (low, _)) in &bounds {
            map.parts.entry(*id).or_insert_with(|| Part::new(*low, *low)).low = *low;
        }
        let scanned = self.scan(&mut map, &bounds, waiting);
        let read = scanned.and_then(|()| self.pages(&clients.pages, &map, window, waiting));
        let documents = match read {
            Ok(documents) => documents,
            // Somebody has changed what can't be changed: all is read anew.
            Err(Failure::Changed(reason)) => return Err(Unproven::Now(reason)),
            Err(Failure::Now(reason)) => return Err(self.leave(map, window, Unproven::Now(reason))),
            Err(Failure::TooMuch(reason)) => return Err(self.leave(map, window, Unproven::TooMuch(reason))),
            Err(Failure::Unfinished) => {
                let reason = "the topic is still being read".to_owned();
                return Err(self.leave(map, window, Unproven::Unfinished(reason)));
            }
        };
        let lost = map.parts.iter().find(|(_, part)| part.may_have_lost(window));
        let perhaps_more = lost.filter(|_| deleted == Deleted::CountAsUnknown).map(|(id, part)| {
            format!(
                "what lay before offset {} of partition {id} has been deleted, by retention or by somebody",
                part.low
            )
        });
        self.map = Some(map);
        Ok(Found { documents, perhaps_more })
    }

    /// What is known so far is kept for when the window is asked for again.
    fn leave(&mut self, map: Map, window: &Window, why: Unproven) -> Unproven {
        self.map = Some(map);
        self.left = Some((window.clone(), Instant::now()));
        why
    }

    /// Asks how far each partition goes.
    fn bounds(&self, asker: &Asker, waiting: &Waiting) -> Result<Bounds, String> {
        let (found, _) = partitions(asker, &self.settings.topic, self.settings.timeout(), waiting)
            .map_err(|trouble| trouble.to_string())?;
        if found.is_empty() {
            return Err(format!("the topic {} isn't there", self.settings.topic));
        }
        if let Some(leaderless) = found.iter().find(|partition| !partition.is_led) {
            return Err(format!("nobody leads partition {}", leaderless.id));
        }
        let ids: Vec<i32> = found.iter().map(|partition| partition.id).collect();
        let low = self.offsets(asker, &ids, Offset::Beginning)?;
        let high = self.offsets(asker, &ids, Offset::End)?;
        ids.into_iter()
            .map(|id| {
                let offset = |of: &BTreeMap<i32, i64>| {
                    let known = of.get(&id).copied().filter(|offset| *offset >= 0);
                    known.ok_or_else(|| format!("the brokers don't tell how far partition {id} goes"))
                };
                Ok((id, (offset(&low)?, offset(&high)?)))
            })
            .collect()
    }

    /// What the brokers say of a place in each partition: an end, or the first record from a time on, in milliseconds.
    fn offsets(&self, asker: &Asker, ids: &[i32], place: Offset) -> Result<BTreeMap<i32, i64>, String> {
        let mut asked = TopicPartitionList::with_capacity(ids.len());
        for id in ids {
            asked
                .add_partition_offset(&self.settings.topic, *id, place)
                .map_err(|error| words(code(&error)))?;
        }
        let told = asker.offsets_for_times(asked, self.settings.timeout());
        let told = told.map_err(|error| {
            asker.context().reason(&format!("the brokers don't tell offsets ({})", words(code(&error))))
        })?;
        told.elements()
            .iter()
            .map(|element| {
                element
                    .error()
                    .map_err(|error| format!("partition {}: {}", element.partition(), words(code(&error))))?;
                let offset = element.offset().to_raw().unwrap_or(i64::MIN);
                Ok((element.partition(), offset))
            })
            .collect()
    }

    /// An empty map of what isn't older than `since`.
    fn begin(&self, asker: &Asker, since: Nanos, bounds: &Bounds) -> Result<Map, String> {
        let ids: Vec<i32> = bounds.keys().copied().collect();
        // Times of Kafka may lie before 1970, and those of others' records may be anything.
        let starts = match i64::try_from(since.0 / MILLISECOND) {
            Ok(milliseconds) if milliseconds > 0 => {
                self.offsets(asker, &ids, Offset::Offset(milliseconds))?
            }
            _ => bounds.iter().map(|(id, (low, _))| (*id, *low)).collect(),
        };
        let mut parts = BTreeMap::new();
        for (id, (low, high)) in bounds {
            let start = match starts.get(id).copied() {
                // -1: there is no record from that time on.
                Some(-1) => *high,
                // A record may have come after the end was asked for.
                Some(start) if start >= *low => start.min(*high),
                _ => {
                    return Err(format!(
                        "the brokers don't tell where partition {id} begins to be of interest"
                    ));
                }
            };
            parts.insert(*id, Part::new(*low, start));
        }
        Ok(Map { since, parts })
    }

    /// Reads what isn't on the map yet.
    fn scan(&self, map: &mut Map, bounds: &Bounds, waiting: &Waiting) -> Result<(), Failure> {
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        let mut places = TopicPartitionList::new();
        for (id, (_, high)) in bounds {
            let Some(part) = map.parts.get(id).filter(|part| part.next < *high) else { continue };
            open.insert(*id, *high);
            place(&mut places, &self.settings.topic, *id, part.next)?;
        }
        if open.is_empty() {
            return Ok(());
        }
        // A new one for each scan: what it tells of its progress is of this scan only.
        let config = self.settings.client(&self.secrets).map_err(Failure::Now)?;
        let reading =
            reader(&config, true, SCAN_BYTES).map_err(|trouble| Failure::Now(trouble.to_string()))?;
        let scanned = self.scan_with(&reading, &places, map, open, waiting);
        let_go(reading);
        scanned
    }

    fn scan_with(
        &self,
        reading: &Asker,
        places: &TopicPartitionList,
        map: &mut Map,
        mut open: BTreeMap<i32, i64>,
        waiting: &Waiting,
    ) -> Result<(), Failure> {
        assign(reading, places)?;
        let mut patience = Patience::new(self.settings.timeout());
        let (begun, mut is_new) = (Instant::now(), false);
        while !open.is_empty() {
            if is_new && begun.elapsed() >= self.turn {
                return Err(Failure::Unfinished);
            }
            if let Some(record) = next(reading, &mut patience, waiting)? {
                let id = record.partition();
                is_new = true;
                if let Some(part) = map.parts.get_mut(&id).filter(|part| record.offset() >= part.next) {
                    part.add(record.offset(), Claim::of(&record, &self.origin).as_ref());
                    if open.get(&id).is_some_and(|high| part.next >= *high) {
                        open.remove(&id);
                    }
                }
            }
            // Where a transaction ends lies something that is nobody's record.
            for (id, fetched) in reading.context().fetched() {
                if let (Some(part), Some(high)) = (map.parts.get_mut(&id), open.get(&id))
                    && fetched >= *high
                {
                    part.is_known_up_to(fetched);
                    open.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// Reads the records of a window.
    fn pages(
        &self,
        reading: &Asker,
        map: &Map,
        window: &Window,
        waiting: &Waiting,
    ) -> Result<Vec<Held>, Failure> {
        let mut wanted: BTreeMap<i32, VecDeque<Stretch>> = BTreeMap::new();
        for (id, part) in &map.parts {
            let stretches: VecDeque<Stretch> = part.stretches(window).into();
            if !stretches.is_empty() {
                wanted.insert(*id, stretches);
            }
        }
        let mut page = Page { origin: &self.origin, window, found: Vec::new(), room: self.room };
        while !wanted.is_empty() {
            let now: BTreeMap<i32, Stretch> =
                wanted.iter_mut().filter_map(|(id, left)| Some((*id, left.pop_front()?))).collect();
            wanted.retain(|_, left| !left.is_empty());
            let mut places = TopicPartitionList::new();
            for (id, stretch) in &now {
                place(&mut places, &self.settings.topic, *id, stretch.first)?;
            }
            assign(reading, &places)?;
            let read = self.stretches(reading, now, &mut page, waiting);
            // It must not fetch what nobody wants.
            let released = reading.unassign();
            read?;
            released.map_err(|error| Failure::Now(words(code(&error))))?;
        }
        Ok(page.found)
    }

    fn stretches(
        &self,
        reading: &Asker,
        stretches: BTreeMap<i32, Stretch>,
        page: &mut Page<'_>,
        waiting: &Waiting,
    ) -> Result<(), Failure> {
        let mut patience = Patience::new(self.settings.timeout());
        // What of each is still to come: from which offset on, and how many records.
        let mut open: BTreeMap<i32, Stretch> = stretches;
        while !open.is_empty() {
            let Some(record) = next(reading, &mut patience, waiting)? else { continue };
            let (id, offset) = (record.partition(), record.offset());
            let Some(left) = open.get_mut(&id) else { continue };
            if offset < left.first {
                // Of an earlier assignment.
                continue;
            }
            if offset > left.last || left.records == 0 {
                return Err(Failure::Changed(format!("partition {id} isn't what it was")));
            }
            page.take(&record)?;
            left.first = offset + 1;
            left.records -= 1;
            if offset == left.last {
                if left.records > 0 {
                    return Err(Failure::Changed(format!(
                        "partition {id} has lost records while it was read"
                    )));
                }
                open.remove(&id);
            }
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(clients) = self.clients.take() {
            let_go(clients);
        }
    }
}

fn fits(map: &Map, window: &Window, bounds: &Bounds) -> bool {
    map.since <= window.appended.start
        && map.parts.iter().all(|(id, part)| bounds.get(id).is_some_and(|(low, high)| part.fits(*low, *high)))
}

/// What is found of a window.
struct Page<'a> {
    origin: &'a str,
    window: &'a Window,
    found: Vec<Held>,
    room: Room,
}

impl Page<'_> {
    fn take(&mut self, record: &BorrowedMessage<'_>) -> Result<(), Failure> {
        let Some(claim) = Claim::of(record, self.origin) else { return Ok(()) };
        if !belongs(&claim, self.window) {
            return Ok(());
        }
        let mut held = claim.held(record);
        if self.window.indexes.end == u64::MAX {
            // Behind the log's end is only looked at what records claim, and there may be millions.
            held.original = None;
        }
        self.room.take(&held).map_err(Failure::TooMuch)?;
        self.found.push(held);
        Ok(())
    }
}

/// Why a window isn't known.
enum Failure {
    /// What is known already still counts.
    Now(String),
    /// The same, but there is more than is shown at once.
    TooMuch(String),
    /// It doesn't.
    Changed(String),
    /// There is more to read than there was time.
    Unfinished,
}

/// Whether the window that is asked for is the one that couldn't be read whole a moment ago: of the same topic then.
fn goes_on((left, at): &(Window, Instant), window: &Window) -> bool {
    left == window && at.elapsed() < AGAIN
}

/// How long nothing may come.
struct Patience {
    limit: Duration,
    last: Instant,
    /// What went wrong meanwhile.
    reason: Option<String>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), reason: None }
    }
}

/// The next record, if one comes soon.
fn next<'a>(
    reading: &'a Asker,
    patience: &mut Patience,
    waiting: &Waiting,
) -> Result<Option<BorrowedMessage<'a>>, Failure> {
    if !waiting.is_waited_for() {
        return Err(Failure::Now("nobody waits any more".to_owned()));
    }
    match reading.poll(LOOK) {
        Some(Ok(record)) => {
            patience.last = Instant::now();
            return Ok(Some(record));
        }
        Some(Err(KafkaError::PartitionEOF(_))) | None => {}
        Some(Err(error)) => match code(&error) {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                return Err(Failure::Changed("records were deleted while they were read".to_owned()));
            }
            found @ (Code::BadMessage
            | Code::BadCompression
            | Code::NotImplemented
            | Code::UnsupportedCompressionType
            | Code::TopicAuthorizationFailed
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::MessageSizeTooLarge) => {
                return Err(Failure::Now(format!("records can't be read: {}", words(found))));
            }
            // The group is never used, and connections come back.
            Code::GroupAuthorizationFailed => {}
            other => patience.reason = Some(words(other)),
        },
    }
    if patience.last.elapsed() > patience.limit {
        let what =
            "not all that the brokers have can be read: a transaction is open, or a partition isn't led";
        let reason = match &patience.reason {
            Some(reason) => format!("{what} ({reason})"),
            None => what.to_owned(),
        };
        return Err(Failure::Now(reason));
    }
    Ok(None)
}

fn place(places: &mut TopicPartitionList, topic: &str, id: i32, offset: i64) -> Result<(), Failure> {
    places
        .add_partition_offset(topic, id, Offset::Offset(offset))
        .map_err(|error| Failure::Now(words(code(&error))))
}

fn assign(reading: &Asker, places: &TopicPartitionList) -> Result<(), Failure> {
    reading.assign(places).map_err(|error| Failure::Now(words(code(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

    const TOPIC: &str = "custody.events";

    /// Of a topic with sixty records of two bytes, in two partitions.
    fn reader_of_sixty() -> (MockCluster<'static, DefaultProducerContext>, Reader) {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic(TOPIC, 2, 1).unwrap();
        let text = serde_json::json!({ "brokers": [brokers.bootstrap_servers()], "timeout_seconds": 20 });
        let settings: Settings = serde_json::from_value(text).unwrap();
        let secrets = Secrets::new(std::path::Path::new("/nowhere"));
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", brokers.bootstrap_servers())
            .create()
            .unwrap();
        for n in 0..60 {
            let record = BaseRecord::<(), str>::to(TOPIC).partition(n % 2).payload("{}").timestamp(5);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();

        (brokers, Reader::new(settings, secrets, "custody.test/log"))
    }

    /// A topic that can't be read in one turn is read in as many as it takes, from its first window on.
    #[test]
    fn a_topic_is_read_in_turns_and_none_is_lost() {
        let (_brokers, mut reader) = reader_of_sixty();
        reader.turn = Duration::ZERO;
        let window = Window { indexes: 0..60, appended: Nanos(0)..Nanos(u64::MAX) };
        let (waiting, _waits) = Waiting::forever();
        let mut turns = 0;
        let found = loop {
            match reader.read(&window, Deleted::CountAsUnknown, &Known::default(), &waiting) {
                Err(Unproven::Unfinished(_)) => turns += 1,
                found => break found.unwrap(),
            }
            assert!(turns < 1_000, "it begins anew each time");
        };
        assert_eq!(found.documents.len(), 60);
        assert!(turns >= 2, "{turns}");
    }

    /// Whoever restores a log asks for a shorter window then, and the topic isn't read anew for it.
    #[test]
    fn more_than_there_is_room_for_is_too_much_and_what_was_learned_is_kept() {
        let (_brokers, mut reader) = reader_of_sixty();
        let (waiting, _waits) = Waiting::forever();
        let window = Window { indexes: 0..0, appended: Nanos(1)..Nanos(u64::MAX) };
        let mut read = |room| {
            reader.room = room;
            let found = reader.read(&window, Deleted::CountAsUnknown, &Known::default(), &waiting);
            (found.map(|found| found.documents.len()), reader.map.is_some())
        };
        let (found, is_known) = read(Room::of(30 * 202));
        assert!(matches!(found, Err(Unproven::TooMuch(_))) && is_known, "{found:?}");
        assert_eq!(read(Room::default()), (Ok(60), true));
    }

    #[test]
    fn only_who_asks_again_at_once_goes_on() {
        let window = |to| Window { indexes: 0..to, appended: Nanos(0)..Nanos(9) };
        let left = (window(7), Instant::now());
        assert!(goes_on(&left, &window(7)) && !goes_on(&left, &window(8)));
        let earlier = Instant::now().checked_sub(AGAIN).unwrap();
        assert!(!goes_on(&(window(7), earlier), &window(7)));
    }
}
