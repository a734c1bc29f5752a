//! Tests' own producer: writes real events into a list of entries and folds them.

use super::State;
use super::change::{Change, ChangeDraft};
use crate::event::{
    Actor, ByteString, Draft, EventData, EventId, Person, ProducerKind, ProducerRef, SessionId, Target,
    Timestamp, canonical, log, session,
};
use crate::policy::defaults::genesis;
use crate::policy::{self, Circumstances, Decision, Request, What};
use uuid::Uuid;

pub(crate) const START: u64 = 1_764_028_800;

#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub appended: Timestamp,
    pub tag: u8,
    pub bytes: Vec<u8>,
}

pub(crate) struct Story {
    pub entries: Vec<Told>,
    pub state: State,
    seq: [u64; 2],
}

pub(crate) fn person(user: &str) -> Actor {
    Actor::Person(Person {
        certificate: Some("7".into()),
        identity_provider: "local".into(),
        mfa: false,
        roles: vec![],
        user: user.into(),
    })
}

pub(crate) fn now(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(START + seconds)
}

pub(crate) fn circumstances() -> Circumstances {
    Circumstances { certificate_seconds: 120, mfa: false, source: "192.0.2.7".parse().unwrap(), time: now(0) }
}

pub(crate) fn connect(user: &str, node: &str, login: &str) -> Request {
    Request {
        user: user.into(),
        what: What::Connect { node: node.into(), login: login.into() },
        session: None,
        circumstances: circumstances(),
    }
}

impl Story {
    /// An empty log.
    pub fn empty() -> Self {
        Self { entries: vec![], state: State::new(), seq: [0, 0] }
    }

    /// A log with its genesis: the administrator is `root`.
    pub fn begun() -> Self {
        let mut story = Self::empty();
        let g = genesis(log::Created { origin: "test".into(), verifier_key: "key".into() }, "root", 1);
        story.tell(g.created);
        story.tell(g.decision);
        story.tell(g.role);
        story.tell(g.policy);
        story.tell(g.user);
        story.tell(g.password);
        story
    }

    pub fn tell<D: EventData>(&mut self, draft: Draft<D>) -> u64 {
        self.tell_as(ProducerKind::Log, draft)
    }

    pub fn tell_as<D: EventData>(&mut self, kind: ProducerKind, draft: Draft<D>) -> u64 {
        let which = usize::from(kind == ProducerKind::Proxy);
        let producer =
            ProducerRef { boot: Uuid::from_u128(9), id: format!("{kind:?}"), kind, seq: self.seq[which] };
        self.seq[which] += 1;
        let time = now(self.entries.len() as u64);
        let bytes = canonical::event_bytes(&draft.numbered(producer, time)).unwrap();
        self.raw(D::FAMILY.tag(), bytes)
    }

    pub fn raw(&mut self, tag: u8, bytes: Vec<u8>) -> u64 {
        let index = self.entries.len() as u64;
        let told = Told { appended: now(index), tag, bytes };
        self.state.apply_bytes(index, told.appended, told.tag, &told.bytes).unwrap();
        self.entries.push(told);
        index
    }

    /// Decides a change as `user` and, if allowed, appends it as a server would.
    pub fn change(&mut self, user: &str, change: Change) -> Result<u64, String> {
        super::change::check(&self.state, &change, &circumstances()).map_err(|error| error.to_string())?;
        self.decided(user, change)
    }

    /// The same for a change that nobody has checked, as older programs left some.
    pub fn decided(&mut self, user: &str, change: Change) -> Result<u64, String> {
        let request =
            Request { user: user.into(), what: change.what(), session: None, circumstances: circumstances() };
        let decision = policy::decide(&self.state, &request);
        let (allowed, reason) = (decision.allowed(), decision.made.reason.clone());
        let draft = Draft::new(person(user), decision.made).target(change.target());
        let cause = draft.id;
        self.tell(draft);
        if !allowed {
            return Err(reason);
        }
        Ok(self.carry_out(change.draft(person(user), cause)))
    }

    pub fn carry_out(&mut self, draft: ChangeDraft) -> u64 {
        match draft {
            ChangeDraft::UserCreated(draft) => self.tell(draft),
            ChangeDraft::UserChanged(draft) => self.tell(draft),
            ChangeDraft::UserRemoved(draft) => self.tell(draft),
            ChangeDraft::UserPasswordSet(draft) => self.tell(draft),
            ChangeDraft::RoleCreated(draft) => self.tell(draft),
            ChangeDraft::RoleRemoved(draft) => self.tell(draft),
            ChangeDraft::PolicyUploaded(draft) => self.tell(draft),
            ChangeDraft::PolicyRemoved(draft) => self.tell(draft),
            ChangeDraft::NodeAdded(draft) => self.tell(draft),
            ChangeDraft::NodeRemoved(draft) => self.tell(draft),
            ChangeDraft::LockCreated(draft) => self.tell(draft),
            ChangeDraft::LockLifted(draft) => self.tell(draft),
            ChangeDraft::SessionEndRequested(draft) => self.tell(draft),
            ChangeDraft::ServiceCreated(draft) => self.tell(draft),
            ChangeDraft::ServiceChanged(draft) => self.tell(draft),
            ChangeDraft::ServiceTokenSet(draft) => self.tell(draft),
            ChangeDraft::ServiceRemoved(draft) => self.tell(draft),
            ChangeDraft::NodeTokenCreated(draft) => self.tell(draft),
            ChangeDraft::RestrictionCreated(draft) => self.tell(draft),
            ChangeDraft::RestrictionLifted(draft) => self.tell(draft),
        }
    }

    /// A change that must succeed, by JSON as the API gets it.
    pub fn command(&mut self, name: &str, body: serde_json::Value) -> u64 {
        let change = Change::parse(name, body.to_string().as_bytes()).unwrap();
        self.change("root", change).unwrap()
    }

    /// `alice`, an operator who may reach `web-1` as root by `text`.
    pub fn with_policy(text: &str) -> Self {
        let mut story = Self::begun();
        story.command("create-role", serde_json::json!({"name": "operator"}));
        story.command("create-user", serde_json::json!({"name": "alice", "roles": ["operator"]}));
        let node =
            serde_json::json!({"name": "web-1", "address": "192.0.2.10:22", "labels": {"env": "prod"}});
        story.command("add-node", node);
        if !text.is_empty() {
            story.command("upload-policy", serde_json::json!({"name": "test", "text": text}));
        }
        story
    }

    pub fn decide(&self, request: &Request) -> Decision {
        policy::decide(&self.state, request)
    }

    /// Opens a session as the proxy does; gives its id.
    pub fn open(&mut self, user: &str, node: &str, login: &str) -> SessionId {
        let id = SessionId::new();
        let decision = self.decide(&Request { session: Some(id), ..connect(user, node, login) });
        assert!(decision.allowed(), "{}", decision.made.reason);
        let target = Target {
            address: None,
            kind: "node".into(),
            login: Some(ByteString::from(login)),
            name: node.into(),
        };
        let recording = decision.recording.name().to_owned();
        let made = Draft::new(person(user), decision.made).session(id).target(target.clone());
        let cause = made.id;
        self.tell_as(ProducerKind::Proxy, made);
        let requested = session::Requested { protocol: "ssh".into(), recording };
        let requested = Draft::new(person(user), requested).cause(cause).session(id).target(target);
        self.tell_as(ProducerKind::Proxy, requested);
        self.session(id, session::Started::example());
        id
    }

    /// An event of a session by the proxy.
    pub fn session<D: EventData>(&mut self, id: SessionId, data: D) -> u64 {
        self.tell_as(ProducerKind::Proxy, Draft::new(person("alice"), data).session(id))
    }

    pub fn caused<D: EventData>(&mut self, kind: ProducerKind, cause: Option<EventId>, data: D) -> u64 {
        let mut draft = Draft::new(person("root"), data);
        draft.cause = cause;
        self.tell_as(kind, draft)
    }

    pub fn reason(&self, index: u64) -> Option<&'static str> {
        self.state.refused().at(index).map(|refusal| refusal.reason)
    }
}

/// Folds entries from nothing.
pub(crate) fn replayed(entries: &[Told]) -> State {
    let mut state = State::new();
    for (index, told) in entries.iter().enumerate() {
        state.apply_bytes(index as u64, told.appended, told.tag, &told.bytes).unwrap();
    }
    state
}
