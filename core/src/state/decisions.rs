//! The latest decisions that allow something: what an event that changes state must name as its cause.
//!
//! A decision and what it allows are appended as one batch, so the few thousand newest are enough, and a decision
//! can't be kept in reserve for later.

use super::view::{EventView, MadeView};
use crate::event::{EventId, ProducerKind, SessionId};
use crate::policy::Circumstances;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many of the newest allowing decisions are remembered.
pub const DECISIONS_MAX: usize = 1024;

/// The action of the one decision that a log begins with: it allows what `init` appends.
pub const BOOTSTRAP: &str = "bootstrap";

/// How many entries after the bootstrap's decision may name it.
pub const BOOTSTRAP_ENTRIES_MAX: u64 = 64;

/// A decision that allows something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// The action.
    pub action: String,
    /// Its index.
    pub index: u64,
    /// Who said so.
    pub producer: ProducerKind,
    /// The resource, as Cedar writes it.
    pub resource: String,
    /// The session that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(skip)]
    pub(super) circumstances: Option<Circumstances>,
}

/// The newest allowing decisions that weren't used up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decisions {
    allowed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap: Option<(EventId, u64)>,
    denied: u64,
    open: BTreeMap<EventId, Allowed>,
    #[serde(skip)]
    by_index: BTreeMap<u64, EventId>,
}

impl Decisions {
    /// How many decisions allowed something, and how many denied.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.allowed, self.denied)
    }

    pub(super) fn made(&mut self, index: u64, event: &EventView<'_>, data: &MadeView<'_>) {
        if !data.allowed {
            self.denied = self.denied.saturating_add(1);
            return;
        }
        self.allowed = self.allowed.saturating_add(1);
        let allowed = Allowed {
            action: cut(&data.action),
            index,
            producer: event.producer.kind,
            resource: cut(&data.resource),
            session: event.session,
            circumstances: data.circumstances(),
        };
        if let Some(before) = self.open.insert(event.id, allowed) {
            self.by_index.remove(&before.index);
        }
        self.by_index.insert(index, event.id);
        if self.by_index.len() > DECISIONS_MAX
            && let Some((_, oldest)) = self.by_index.pop_first()
        {
            self.open.remove(&oldest);
        }
    }

    /// The bootstrap's decision, while nothing else was ever changed.
    pub(super) fn bootstrap(&mut self, index: u64, id: EventId) -> Result<(), &'static str> {
        if self.bootstrap.is_some() {
            return Err("a log is bootstrapped once");
        }
        self.allowed = self.allowed.saturating_add(1);
        self.bootstrap = Some((id, index));
        Ok(())
    }

    /// Whether `cause` is the bootstrap's decision, and the entry `index` still belongs to the bootstrap.
    pub(super) fn is_bootstrap(&self, cause: EventId, index: u64) -> bool {
        self.bootstrap
            .is_some_and(|(id, from)| id == cause && index.saturating_sub(from) <= BOOTSTRAP_ENTRIES_MAX)
    }

    /// Uses up the decision `cause`, if it fits.
    pub(super) fn use_up(
        &mut self,
        cause: EventId,
        fits: impl FnOnce(&Allowed) -> bool,
    ) -> Result<Allowed, &'static str> {
        let found =
            self.open.get(&cause).ok_or("its cause is no decision that allows, or one that was used up")?;
        if !fits(found) {
            return Err("its cause allows something else");
        }
        let used = self.open.remove(&cause).ok_or("its cause was used up")?;
        self.by_index.remove(&used.index);
        Ok(used)
    }
}

/// More of it fits no action or resource that exists.
fn cut(text: &str) -> String {
    if text.len() <= 512 { text.to_owned() } else { text.chars().take(512).collect() }
}
