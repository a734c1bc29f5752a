//! What a witness asks of each event that it copies: that it is one, in the one form that events have, by somebody who
//! may say it, under a number that comes next, at a time that can be. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use custody_core::event::canonical;
use custody_core::event::{Event, Family, Payload, TYPES, who};
use custody_core::log::{FIRST_SEQ, Nanos};
use uuid::Uuid;

/// A log's clock may be ahead of the witness's by so much.
pub const AHEAD_MAX: Duration = Duration::from_secs(10 * 60);
/// A producer's clock may be ahead of the time of appending by so much before it is told.
pub const PRODUCER_AHEAD_MAX: Duration = Duration::from_secs(60 * 60);

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No log of Custody would hold it: it isn't cosigned.
    Broken(String),
    /// It may be honest, and somebody should know: it is cosigned.
    Odd(String),
}

/// What has to be remembered of the events before.
#[derive(Clone, Debug, Default)]
pub struct Inspector {
    /// The last number of each boot of each producer.
    last: HashMap<(String, Uuid), u64>,
    appended: Nanos,
}

impl Inspector {
    /// Before the first event.
    #[must_use]
    pub fn new() -> Inspector {
        Inspector::default()
    }

    /// Looks at the next event, at `now` by the witness's clock, and remembers it. `None` is in order.
    pub fn look(&mut self, index: u64, appended: Nanos, bytes: &[u8], now: Nanos) -> Option<Finding> {
        let time = self.time(appended, now);
        let event = match Event::parse(bytes) {
            Ok(event) => event,
            Err(error) => return Some(Finding::Broken(format!("it is no event: {error}"))),
        };
        let number = self.number(&event);
        let found = [form(&event, bytes), speaker(&event), beginning(index, &event), number, time];
        let mut odd = None;
        for finding in found.into_iter().flatten() {
            match finding {
                Finding::Broken(_) => return Some(finding),
                Finding::Odd(_) => odd = odd.or(Some(finding)),
            }
        }
        let ahead = Nanos(event.time.nanos()).saturating_since(appended);
        odd.or_else(|| {
            (ahead > PRODUCER_AHEAD_MAX).then(|| {
                Finding::Odd(format!("its producer's clock was {} s ahead of the log's", ahead.as_secs()))
            })
        })
    }

    fn time(&mut self, appended: Nanos, now: Nanos) -> Option<Finding> {
        let before = self.appended;
        self.appended = before.max(appended);
        if appended < before {
            return Some(Finding::Broken(format!("it was appended at {appended}, before the one before it")));
        }
        let ahead = appended.saturating_since(now);
        (ahead > AHEAD_MAX).then(|| {
            Finding::Broken(format!("it was appended {} s in the future of this witness", ahead.as_secs()))
        })
    }

    fn number(&mut self, event: &Event) -> Option<Finding> {
        let producer = &event.producer;
        let (id, seq) = (&producer.id, producer.seq);
        let before = self.last.get(&(id.clone(), producer.boot)).copied();
        let expected = before.map_or(FIRST_SEQ, |last| last.saturating_add(1));
        if seq < expected {
            return Some(Finding::Broken(format!(
                "{id} numbered it {seq}, and its boot was at {} already",
                expected - 1
            )));
        }
        self.last.insert((id.clone(), producer.boot), seq);
        (seq > expected).then(|| {
            Finding::Odd(format!(
                "{} events of {id} are missing before it: {expected} to {}",
                seq - expected,
                seq - 1
            ))
        })
    }
}

/// The canonical form, and the data's own shape where this program knows the type.
fn form(event: &Event, bytes: &[u8]) -> Option<Finding> {
    if !canonical::is_canonical(bytes) {
        return Some(Finding::Broken("its bytes aren't canonical JSON (RFC 8785)".to_owned()));
    }
    let known = TYPES.iter().any(|info| info.name == event.kind && event.version <= info.version);
    (known && matches!(event.payload(), Payload::Unknown))
        .then(|| Finding::Broken(format!("its data isn't that of {} version {}", event.kind, event.version)))
}

/// Whether its producer may say it.
fn speaker(event: &Event) -> Option<Finding> {
    let family = Family::of(&event.kind)?;
    let kind = event.producer.kind;
    (!who::may_say_type(kind, family, &event.kind))
        .then(|| Finding::Broken(format!("a {kind:?} producer may not say {}", event.kind)))
}

/// A log begins with its own name, and only once.
fn beginning(index: u64, event: &Event) -> Option<Finding> {
    let created = event.kind == "log.created";
    match (index, created) {
        (0, false) => Some(Finding::Broken("a log begins with log.created".to_owned())),
        (1.., true) => Some(Finding::Broken("a log is created once, by its first event".to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::log::{Created, Read};
    use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp};

    const NOW: Nanos = Nanos(1_800_000_000_000_000_000);

    fn event<D: EventData>(data: D, kind: ProducerKind, boot: u128, seq: u64) -> Vec<u8> {
        let producer = ProducerRef { boot: Uuid::from_u128(boot), id: "p".to_owned(), kind, seq };
        let draft = Draft::new(Actor::system("test"), data);
        canonical::event_bytes(&draft.numbered(producer, Timestamp::from_nanos(NOW.0))).unwrap()
    }

    fn read(boot: u128, seq: u64) -> Vec<u8> {
        let data = Read { purpose: "search".to_owned(), query: "ü".to_owned() };
        event(data, ProducerKind::Log, boot, seq)
    }

    fn begun() -> Inspector {
        let mut inspector = Inspector::new();
        let created = event(Created::example(), ProducerKind::Log, 1, 0);
        assert_eq!(inspector.look(0, NOW, &created, NOW), None);
        inspector
    }

    fn broken(finding: Option<Finding>, says: &str) {
        assert!(matches!(&finding, Some(Finding::Broken(why)) if why.contains(says)), "{finding:?}: {says}");
    }

    #[test]
    fn every_example_is_in_order() {
        let mut inspector = begun();
        for (index, info) in (1..).zip(TYPES.iter().filter(|info| info.name != "log.created")) {
            let text = String::from_utf8((info.example)().unwrap()).unwrap();
            let numbered = text.replace("\"seq\":41", &format!("\"seq\":{}", index - 1));
            assert_eq!(inspector.look(index, NOW, numbered.as_bytes(), NOW), None, "{}", info.name);
        }
        let newer = String::from_utf8(read(9, 0)).unwrap().replace("log.read", "galaxy.formed");
        assert_eq!(inspector.look(200, NOW, newer.as_bytes(), NOW), None, "what is newer is carried");
    }

    #[test]
    fn numbers_come_once_and_in_order_and_gaps_are_told() {
        let mut inspector = begun();
        assert_eq!(inspector.look(1, NOW, &read(1, 1), NOW), None);
        broken(inspector.look(2, NOW, &read(1, 1), NOW), "was at 1 already");
        broken(inspector.look(2, NOW, &read(1, 0), NOW), "was at 1 already");
        let gap = inspector.look(2, NOW, &read(1, 5), NOW);
        assert_eq!(gap, Some(Finding::Odd("3 events of p are missing before it: 2 to 4".to_owned())));
        assert_eq!(inspector.look(3, NOW, &read(2, 0), NOW), None, "another boot counts anew");
        assert!(matches!(inspector.look(4, NOW, &read(3, 1), NOW), Some(Finding::Odd(_))));
    }

    #[test]
    fn another_form_speaker_or_time_is_broken() {
        let text = String::from_utf8(read(1, 1)).unwrap();
        let look = |bytes: &[u8]| begun().look(1, NOW, bytes, NOW);
        broken(look(b"{}"), "no event");
        broken(look(text.replace("\"data\":", "\"data\": ").as_bytes()), "canonical");
        broken(look(text.replace("ü", "\\u00fc").as_bytes()), "canonical");
        broken(look(text.replace("\"purpose\"", "\"purpos\"").as_bytes()), "data isn't that of log.read");
        let node = event(Read::example(), ProducerKind::Node, 1, 1);
        broken(look(&node), "may not say log.read");
        broken(look(&event(Created::example(), ProducerKind::Log, 1, 1)), "created once");
        broken(Inspector::new().look(0, NOW, &read(1, 0), NOW), "begins with log.created");
        broken(begun().look(1, Nanos(NOW.0 - 1), &read(1, 1), NOW), "before the one before it");
        let later = NOW.saturating_add(AHEAD_MAX + Duration::from_secs(1));
        broken(begun().look(1, later, &read(1, 1), NOW), "in the future");
        let old = Nanos(NOW.0 - 2 * 3_600_000_000_000);
        let mut early = Inspector::new();
        let odd = early.look(0, old, &event(Created::example(), ProducerKind::Log, 1, 0), NOW);
        assert!(matches!(odd, Some(Finding::Odd(why)) if why.contains("ahead of the log's")));
    }
}
