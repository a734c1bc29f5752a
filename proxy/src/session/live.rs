//! The sessions that live in this proxy. It follows the log: whoever's right is gone, is told so and ended.

use custody_core::event::{EventId, SessionId, session::EndReason};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Why a session must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndCause {
    /// The kind of reason.
    pub reason: EndReason,
    /// One line for people.
    pub detail: String,
    /// The event that made it end, e.g. the lock.
    pub cause: Option<EventId>,
}

/// All sessions of this proxy that have a target.
#[derive(Default)]
pub struct LiveSessions {
    /// Whoever holds the lock sees and changes the whole list; nothing is awaited under it.
    sessions: Mutex<BTreeMap<SessionId, watch::Sender<Option<EndCause>>>>,
    /// Told whenever a session leaves the list.
    left: tokio::sync::Notify,
}

/// A session's place in the list; it leaves the list when this is dropped.
pub struct Enlisted {
    list: Arc<LiveSessions>,
    session: SessionId,
    /// Becomes `Some` when the session must end.
    pub end: watch::Receiver<Option<EndCause>>,
}

impl LiveSessions {
    /// Puts a session on the list.
    pub fn enlist(self: &Arc<Self>, session: SessionId) -> Enlisted {
        let (sender, end) = watch::channel(None);
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(session, sender);
        Enlisted { list: Arc::clone(self), session, end }
    }

    /// The sessions on the list.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Tells one session that it must end; the first reason counts.
    pub fn end(&self, session: SessionId, cause: EndCause) {
        if let Some(sender) = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&session) {
            sender.send_if_modified(|end| {
                let first = end.is_none();
                if first {
                    *end = Some(cause);
                }
                first
            });
        }
    }

    /// Waits until the list is empty.
    pub async fn drained(&self) {
        loop {
            let left = self.left.notified();
            if self.sessions().is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.list.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
        self.list.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(detail: &str) -> EndCause {
        EndCause { reason: EndReason::Locked, detail: detail.to_owned(), cause: None }
    }

    #[tokio::test]
    async fn the_first_reason_counts_and_the_list_empties() {
        let list = Arc::new(LiveSessions::default());
        let enlisted = list.enlist(SessionId::new());
        let session = list.sessions()[0];
        list.end(session, cause("first"));
        list.end(session, cause("second"));
        list.end(SessionId::new(), cause("nobody"));
        assert_eq!(enlisted.end.borrow().as_ref().unwrap().detail, "first");
        let drained = tokio::spawn({
            let list = Arc::clone(&list);
            async move { list.drained().await }
        });
        tokio::task::yield_now().await;
        drop(enlisted);
        drained.await.unwrap();
    }
}
