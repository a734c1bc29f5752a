//! What a client has offered to its target: to bring it what comes in at a listener, to let it use an agent, an X
//! server. The target may open a channel only by an offer. Pure data.

use crate::ssh::message::forward::{Opening, Spot, allocated_port};
use custody_core::event::EventId;
use custody_core::event::connection::{self, Kind, ListenClosed, ListenEnd, ListenOpened, Place};
use std::collections::VecDeque;

/// Most offers of one session: listeners that live, and requests for an X server. People have a handful; the state
/// takes as many (`OFFERS_MAX` there), and the last few are kept for races with cancelling.
pub const OFFERS_MAX: usize = 1_000;

/// The offers, and the answers that the target still owes.
#[derive(Debug, Default)]
pub struct Offers {
    listeners: Vec<Listener>,
    agent: Option<EventId>,
    x11: Option<EventId>,
    x11_requests: usize,
    /// The client's global requests that were passed and want a reply, in their order: replies come in the same
    /// (RFC 4254, section 4).
    awaited: VecDeque<Awaited>,
}

/// What a reply of the target's will be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// Nothing that is looked at.
    Other,
    /// A listener, named by its `connection.listen-requested`.
    Start(EventId),
    /// The end of a listener.
    Cancel(EventId),
}

#[derive(Debug)]
struct Listener {
    offer: EventId,
    place: Place,
    connections: u64,
}

/// What a reply said of a listener, for its event.
#[derive(Debug)]
pub enum Told {
    /// The target listens.
    Opened(ListenOpened),
    /// It doesn't.
    Failed(connection::Failed),
    /// It no longer does.
    Closed(ListenClosed),
}

/// A channel of the target's that was offered.
#[derive(Debug, PartialEq, Eq)]
pub struct Offered {
    /// The `connection.listen-requested`.
    pub offer: EventId,
    /// What it leads to.
    pub kind: Kind,
    /// The listener, as it was asked for.
    pub place: Option<Place>,
}

impl Spot<'_> {
    /// As it stands in events.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Spot::Tcp { host, port } => Place::tcp(host, *port),
            Spot::Socket { path } => Place::socket(path),
        }
    }
}

impl Offers {
    /// Whether there is room for another listener or X server.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.listeners.len() + self.x11_requests < OFFERS_MAX
    }

    /// The request to listen at `place` goes to the target.
    pub fn listen(&mut self, offer: EventId, place: Place, want_reply: bool) {
        self.listeners.push(Listener { offer, place, connections: 0 });
        if want_reply {
            self.awaited.push_back(Awaited::Start(offer));
        }
    }

    /// The agent is offered to the target.
    pub fn agent(&mut self, offer: EventId) {
        self.agent = Some(offer);
    }

    /// Whether the agent was offered already: one offer is for the whole connection.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// An X server is offered to the target. Its channels don't say which of several requests they belong to.
    pub fn x11(&mut self, offer: EventId) {
        self.x11 = Some(offer);
        self.x11_requests += 1;
    }

    /// Another global request of the client's goes to the target and wants a reply.
    pub fn passes(&mut self) {
        self.awaited.push_back(Awaited::Other);
    }

    /// The client wants no more of what comes in at `spot`. Without a reply, as OpenSSH does it, that is the listener's
    /// end: what the target still brings was no longer asked for. Gives the listener's offer and what is to be said.
    pub fn cancel(&mut self, spot: &Spot<'_>, want_reply: bool) -> Option<(EventId, Told)> {
        let at = self.listeners.iter().position(|listener| listener.is_at(spot));
        if want_reply {
            let awaited = at.map_or(Awaited::Other, |at| Awaited::Cancel(self.listeners[at].offer));
            self.awaited.push_back(awaited);
            return None;
        }
        self.cancelled(at?)
    }

    fn cancelled(&mut self, at: usize) -> Option<(EventId, Told)> {
        let listener = self.listeners.remove(at);
        Some((listener.offer, Told::Closed(listener.closed(ListenEnd::Cancelled))))
    }

    /// The target answered the client's oldest global request: what it told with its success, or `None` for a failure.
    /// Gives the listener's offer and what is to be said.
    pub fn answered(&mut self, success: Option<&[u8]>) -> Option<(EventId, Told)> {
        match (self.awaited.pop_front()?, success) {
            (Awaited::Other, _) | (Awaited::Cancel(_), None) => None,
            (Awaited::Start(offer), Some(data)) => {
                let listener = self.listeners.iter_mut().find(|listener| listener.offer == offer)?;
                if let Some(port) = listener.place.port.as_mut().filter(|port| **port == 0) {
                    *port = allocated_port(data).unwrap_or_default();
                }
                Some((offer, Told::Opened(ListenOpened { place: listener.place.clone() })))
            }
            (Awaited::Start(offer), None) => {
                self.listeners.retain(|listener| listener.offer != offer);
                let reason = "the target refused to listen".into();
                Some((offer, Told::Failed(connection::Failed { channel: None, code: None, reason })))
            }
            (Awaited::Cancel(offer), Some(_)) => {
                let at = self.listeners.iter().position(|listener| listener.offer == offer)?;
                self.cancelled(at)
            }
        }
    }

    /// Whether a channel that the target opens was offered, and by what.
    pub fn take(&mut self, opening: &Opening<'_>) -> Option<Offered> {
        match opening {
            Opening::Direct { .. } => None,
            Opening::Forwarded { at, .. } => {
                let listener = self.listeners.iter_mut().find(|listener| listener.is_at(at))?;
                listener.connections = listener.connections.saturating_add(1);
                let (offer, place) = (listener.offer, listener.place.clone());
                Some(Offered { offer, kind: Kind::Accepted, place: Some(place) })
            }
            Opening::Agent => Some(Offered { offer: self.agent?, kind: Kind::Agent, place: None }),
            Opening::X11 { .. } => Some(Offered { offer: self.x11?, kind: Kind::X11, place: None }),
        }
    }

    /// The session ends, and each listener with it.
    pub fn end(&mut self) -> Vec<(EventId, Told)> {
        self.listeners
            .drain(..)
            .map(|listener| (listener.offer, Told::Closed(listener.closed(ListenEnd::SessionEnded))))
            .collect()
    }
}

impl Listener {
    /// Of two listeners at a place the older one is meant: a client that asks twice gets a failure for the second, and
    /// what is told of the first stays right.
    ///
    /// A port is one listener's at each address; RFC 4254 (7.2) has the target name the address as it was asked for,
    /// and OpenSSH does.
    fn is_at(&self, spot: &Spot<'_>) -> bool {
        match spot {
            Spot::Tcp { port: 0, .. } => false,
            spot => self.place == spot.place(),
        }
    }

    fn closed(self, reason: ListenEnd) -> ListenClosed {
        ListenClosed { connections: self.connections, place: self.place, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Spot<'static> = Spot::Tcp { host: b"", port: 0 };
    const GIVEN: Spot<'static> = Spot::Tcp { host: b"", port: 4711 };

    fn forwarded(at: Spot<'static>) -> Opening<'static> {
        Opening::Forwarded { at, origin: (b"127.0.0.1", 5) }
    }

    #[test]
    fn a_port_of_the_target_s_choice_is_learned_from_the_answer() {
        let mut offers = Offers::default();
        let (first, second) = (EventId::new(), EventId::new());
        offers.passes();
        offers.listen(first, ANY.place(), true);
        offers.listen(second, Spot::Socket { path: b"/s" }.place(), true);
        assert!(offers.take(&forwarded(GIVEN)).is_none(), "nobody listens yet");
        assert!(offers.answered(None).is_none(), "a keep-alive's");
        let (offer, told) = offers.answered(Some(&4711_u32.to_be_bytes())).unwrap();
        assert_eq!(offer, first);
        assert!(matches!(told, Told::Opened(ListenOpened { place }) if place == GIVEN.place()));
        assert_eq!(offers.take(&forwarded(GIVEN)).unwrap().offer, first);
        for other in [ANY, Spot::Tcp { host: b"localhost", port: 4711 }, Spot::Tcp { host: b"", port: 4712 }]
        {
            assert!(offers.take(&forwarded(other)).is_none(), "{other:?}");
        }
        assert!(matches!(offers.answered(None), Some((offer, Told::Failed(_))) if offer == second));
        assert!(offers.take(&forwarded(Spot::Socket { path: b"/s" })).is_none());
    }

    #[test]
    fn a_cancelled_listener_takes_nothing_and_one_that_could_not_be_cancelled_goes_on() {
        let mut offers = Offers::default();
        let offer = EventId::new();
        offers.listen(offer, GIVEN.place(), true);
        assert!(matches!(offers.answered(Some(b"")), Some((_, Told::Opened(_)))));
        assert!(offers.cancel(&GIVEN, true).is_none());
        assert!(offers.answered(None).is_none());
        assert!(offers.take(&forwarded(GIVEN)).is_some());
        assert!(offers.cancel(&GIVEN, true).is_none());
        let Some((_, Told::Closed(closed))) = offers.answered(Some(b"")) else { panic!("closed") };
        assert_eq!((closed.connections, closed.reason), (1, ListenEnd::Cancelled));
        assert!(offers.take(&forwarded(GIVEN)).is_none());
        assert!(offers.cancel(&GIVEN, true).is_none());
        assert!(offers.answered(Some(b"")).is_none(), "nothing to cancel");

        offers.listen(offer, GIVEN.place(), false);
        let Some((_, Told::Closed(closed))) = offers.cancel(&GIVEN, false) else { panic!("closed") };
        assert_eq!((closed.connections, closed.reason), (0, ListenEnd::Cancelled));
        assert!(offers.take(&forwarded(GIVEN)).is_none(), "nobody waits for it any more");
        assert!(offers.end().is_empty());
    }

    #[test]
    fn agent_and_x_server_are_there_once_they_are_offered() {
        let mut offers = Offers::default();
        let x11 = Opening::X11 { origin: (b"127.0.0.1", 1) };
        assert!(offers.take(&Opening::Agent).is_none() && offers.take(&x11).is_none());
        let (agent, display) = (EventId::new(), EventId::new());
        offers.agent(agent);
        assert!(offers.take(&x11).is_none());
        offers.x11(display);
        assert_eq!(offers.take(&Opening::Agent).unwrap().offer, agent);
        assert_eq!(offers.take(&x11).unwrap().offer, display);
        assert!(offers.answered(Some(b"")).is_none(), "an answer to nothing");
    }
}
