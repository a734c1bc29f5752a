//! A plausible log: logins, certificates, and sessions with commands, decisions and recordings, a hundred events each.

use bytes::Bytes;
use custody_core::event::{
    Actor, ByteString, Draft, EventData, EventId, Person, ProducerKind, ProducerRef, SessionId, Source,
    Target, Timestamp, canonical, certificate, command, decision, log, login, recording, session,
};
use serde_json::json;
use uuid::Uuid;

/// Commands in each session.
const COMMANDS: u64 = 16;
/// Anchors of each session's recording.
const ANCHORS: u64 = 40;
/// When it begins, in seconds since the epoch.
const BEGIN: u64 = 1_764_028_800;

/// Makes events as long as somebody wants more: each with the tag of its family.
#[derive(Debug)]
pub struct Story {
    ready: std::collections::VecDeque<(u8, Bytes)>,
    seq: [u64; 2],
    sessions: u64,
    second: u64,
    /// For ids that are the same each time.
    ids: u128,
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

impl Story {
    /// From the beginning, the same each time.
    #[must_use]
    pub fn new() -> Story {
        let mut story = Story { ready: Default::default(), seq: [0, 0], sessions: 0, second: BEGIN, ids: 0 };
        let created = log::Created { origin: "custody.test/bench".into(), verifier_key: "key".into() };
        story.tell(ProducerKind::Log, Draft::new(Actor::system("custodyd"), created));
        story
    }

    /// UUIDv7s that grow.
    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128((u128::from(self.second * 1000) << 80) | (7 << 76) | (2 << 62) | self.ids)
    }

    fn tell<D: EventData>(&mut self, kind: ProducerKind, mut draft: Draft<D>) -> EventId {
        draft.id = EventId(self.id());
        let id = draft.id;
        let which = usize::from(kind == ProducerKind::Proxy);
        let name = ["custody", "custody-proxy"][which];
        let producer = ProducerRef {
            boot: Uuid::from_u128(9 + which as u128),
            id: name.into(),
            kind,
            seq: self.seq[which],
        };
        self.seq[which] += 1;
        let event =
            draft.numbered(producer, Timestamp::from_nanos(self.second * 1_000_000_000 + 123_456_789));
        let bytes = canonical::event_bytes(&event).expect("an event");
        self.ready.push_back((D::FAMILY.tag(), bytes.into()));
        id
    }

    fn decide(&mut self, person: &Actor, id: SessionId, target: &Target, action: &str) -> EventId {
        let made = decision::Made {
            action: action.into(),
            allowed: true,
            context: canonical::Json(json!({
                "certificate_seconds": 3600, "hour": 0, "login": "root", "mfa": false,
                "source": "192.0.2.7", "time": self.second, "weekday": 2
            })),
            errors: vec![],
            policies: vec!["operators-reach-web".into()],
            principal: format!("User::{:?}", person.user().unwrap_or_default()),
            reason: "allowed by operators-reach-web".into(),
            resource: format!("Node::{:?}", target.name),
            state: 40,
        };
        self.tell(ProducerKind::Proxy, Draft::new(person.clone(), made).session(id).target(target.clone()))
    }

    fn session(&mut self) {
        self.sessions += 1;
        let person = Actor::Person(Person {
            certificate: Some("7310384917230117".into()),
            identity_provider: "local".into(),
            mfa: false,
            roles: vec!["operator".into()],
            user: format!("user-{}", self.sessions % 50),
        });
        let target = Target {
            address: Some("192.0.2.10:22".into()),
            kind: "node".into(),
            login: Some(ByteString::from("root")),
            name: format!("web-{}", self.sessions % 200),
        };
        let source = Source {
            address: "192.0.2.7".into(),
            client: Some(ByteString::from("SSH-2.0-OpenSSH_9.2p1")),
            port: 50_022,
        };
        let proxy = ProducerKind::Proxy;
        self.tell(
            ProducerKind::Log,
            Draft::new(person.clone(), login::Succeeded::example()).source(source.clone()),
        );
        let issued = certificate::Issued {
            valid_from: Timestamp::from_seconds(self.second),
            valid_until: Timestamp::from_seconds(self.second + 600),
            ..certificate::Issued::example()
        };
        self.tell(ProducerKind::Log, Draft::new(person.clone(), issued));
        let id = SessionId(self.id());
        let cause = self.decide(&person, id, &target, "ssh:connect");
        let requested = session::Requested { protocol: "ssh".into(), recording: "standard".into() };
        let draft = Draft::new(person.clone(), requested).cause(cause).session(id);
        self.tell(proxy, draft.source(source).target(target.clone()));
        self.tell(proxy, Draft::new(person.clone(), session::Started::example()).session(id));
        for n in 0..COMMANDS.max(ANCHORS) {
            self.second += 1;
            if n < COMMANDS {
                let cause = self.decide(&person, id, &target, "ssh:exec");
                let draft =
                    Draft::new(person.clone(), command::Requested::example()).cause(cause).session(id);
                let cause = self.tell(proxy, draft.target(target.clone()));
                let draft =
                    Draft::new(person.clone(), command::Completed::example()).cause(cause).session(id);
                self.tell(proxy, draft.target(target.clone()));
            }
            let anchored = recording::Anchored { bytes: 1000 * (n + 1), ..recording::Anchored::example() };
            self.tell(proxy, Draft::new(person.clone(), anchored).session(id));
            if n % 4 == 0 {
                let size = self.seq.iter().sum();
                self.tell(ProducerKind::Log, Draft::new(Actor::system("custodyd"), log::Sealed { size }));
            }
        }
        let sealed = recording::Sealed { bytes: 1_000_000, ..recording::Sealed::example() };
        self.tell(proxy, Draft::new(person.clone(), sealed).session(id));
        self.tell(proxy, Draft::new(person, session::Ended::example()).session(id));
    }
}

impl Iterator for Story {
    type Item = (u8, Bytes);

    fn next(&mut self) -> Option<(u8, Bytes)> {
        if self.ready.is_empty() {
            self.session();
        }
        self.ready.pop_front()
    }
}
