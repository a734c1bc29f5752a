//! Connections through a session that carry no program. What the client asks for (a forward, a listener, its agent at
//! the target, its X server) is decided; what the target opens must have been asked for. Either is durable before the
//! other side hears of it, and its end is told afterwards.

use super::decide::{Refused, permit};
use super::listen::{Offers, Told};
use super::{Access, Session};
use crate::ssh::certificate::Extensions;
use crate::ssh::message::forward::{Listening, Opening, Spot};
use crate::ssh::relay::{ChannelId, Side, Ticket};
use custody_core::event::connection::{
    self, Kind, ListenRequested, Offer, PLACE_BYTES_MAX, Place, Requested,
};
use custody_core::event::hex::to_hex;
use custody_core::event::{ByteString, Draft, EventData, EventId, Outcome};
use custody_core::log::{Durable, ProducerError};
use custody_core::policy::What;
use custody_core::policy::permit::{Forward, Listen, Permit};
use custody_core::recording::HASHED_BYTES_MIN;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// Refusals of a session that are told as events: what comes after those says nothing new, and would let a hostile
/// target fill the log.
const REFUSALS_TOLD_MAX: usize = 64;
/// How much of a target's words about a failure is kept, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// Something that waits in the relay under `ticket` until it is decided, or durable.
pub struct Ask {
    /// What waits.
    pub ticket: Ticket,
    /// The channel that it is about; none for a listener.
    pub channel: Option<ChannelId>,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What is wanted.
pub enum Wanted {
    /// A connection from the target to somewhere.
    Forward(Requested),
    /// A listener, the agent, the X server; whether the client wants a reply.
    Offer(ListenRequested, bool),
    /// A connection to the client by what it had offered, the event of which is the second.
    Offered(Requested, EventId),
}

impl Ask {
    /// Whether it is a connection, which has a channel of its own; else it is an offer.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        !matches!(self.wanted, Wanted::Offer(..))
    }

    /// A line about it for the recording.
    #[must_use]
    pub fn describe(&self) -> String {
        let (what, place) = match &self.wanted {
            Wanted::Forward(requested) => ("connects to", &requested.place),
            Wanted::Offered(Requested { kind: Kind::Agent, place, .. }, _) => ("uses the agent", place),
            Wanted::Offered(Requested { kind: Kind::X11, place, .. }, _) => ("uses the X server", place),
            Wanted::Offered(requested, _) => ("a connection came in at", &requested.place),
            Wanted::Offer(requested, _) => match requested.offer {
                Offer::Listen => ("may listen at", &requested.place),
                Offer::Agent => ("may use the agent", &requested.place),
                Offer::X11 => ("may use the X server", &requested.place),
            },
        };
        place.as_ref().map_or_else(|| what.to_owned(), |place| format!("{what} {place}"))
    }
}

/// Leave for what was wanted.
pub enum Leave {
    /// It was decided.
    Forward(Permit<Forward>),
    /// It was decided.
    Offer(Permit<Listen>),
    /// What it came by was decided; that it came is durable.
    Offered(Box<Durable<Requested>>),
}

impl Leave {
    /// The event that announced what was wanted.
    #[must_use]
    pub fn announced(&self) -> EventId {
        match self {
            Self::Forward(permit) => permit.announced(),
            Self::Offer(permit) => permit.announced(),
            Self::Offered(durable) => durable.id(),
        }
    }
}

/// What is said afterwards; nothing waits for it.
pub struct After {
    /// What it follows from; none: from the session itself.
    cause: Option<EventId>,
    said: Said,
}

impl After {
    fn of_listener((offer, told): (EventId, Told)) -> Self {
        Self { cause: Some(offer), said: Said::Listen(told) }
    }
}

enum Said {
    Completed(connection::Completed),
    Failed(connection::Failed),
    Refused(connection::Refused),
    Listen(Told),
}

/// What becomes of a message that is about a connection.
pub enum Seen {
    /// It may pass.
    Passes,
    /// It waits for an [`Ask`].
    Waits,
    /// It is refused with this line.
    Refused(String),
}

/// A connection that was announced, until its channel is gone.
struct Connection {
    requested: EventId,
    /// When it was confirmed, by the monotonic clock.
    open_since: Option<Duration>,
    /// The answer, where it was a refusal.
    failure: Option<(u32, ByteString)>,
    input: Stream,
    output: Stream,
}

#[derive(Default)]
struct Stream {
    bytes: u64,
    sha256: Sha256,
}

impl Stream {
    fn add(&mut self, data: &[u8]) {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        self.sha256.update(data);
    }

    /// The hash of what passed, unless that is so little that it could be guessed.
    fn hash(self) -> Option<String> {
        (self.bytes >= HASHED_BYTES_MIN).then(|| to_hex(&self.sha256.finalize()))
    }
}

/// The connections of one session.
pub struct Forwards {
    certificate: Extensions,
    offers: Offers,
    connections: BTreeMap<ChannelId, Connection>,
    asks: Vec<Ask>,
    after: Vec<After>,
    refusals: usize,
}

impl Forwards {
    /// None yet, for a client whose certificate has these extensions.
    pub fn new(certificate: Extensions) -> Self {
        Self {
            certificate,
            offers: Offers::default(),
            connections: BTreeMap::new(),
            asks: Vec::new(),
            after: Vec::new(),
            refusals: 0,
        }
    }

    /// What waits for a decision since the last call.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// What is to be said since the last call.
    pub fn take_after(&mut self) -> Vec<After> {
        std::mem::take(&mut self.after)
    }

    /// The channels of these connections.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.connections.keys().copied()
    }

    /// Whether the channel is one of these connections.
    pub fn has(&self, channel: ChannelId) -> bool {
        self.connections.contains_key(&channel)
    }

    /// A CHANNEL_OPEN that isn't a session's; `number` is the channel's in events.
    pub fn see_open(
        &mut self,
        (from, ticket): (Side, Ticket),
        (channel, number): (ChannelId, u32),
        kind: &[u8],
        data: &[u8],
    ) -> Seen {
        let opening = match Opening::parse(kind, data) {
            Ok(Some(opening)) => opening,
            Ok(None) => return self.refused(from, kind, None, "channels of this type aren't passed on"),
            Err(error) => return self.refused(from, kind, None, &error.to_string()),
        };
        let Some(opening) = opening.without_zero_bytes() else {
            return self.refused(from, kind, None, ZERO_BYTE);
        };
        let place = match opening {
            Opening::Direct { to: spot, .. } | Opening::Forwarded { at: spot, .. } => Some(spot),
            Opening::Agent | Opening::X11 { .. } => None,
        };
        let origin = match opening {
            Opening::Direct { origin, .. } | Opening::Forwarded { origin, .. } | Opening::X11 { origin } => {
                Some(origin).filter(|(host, _)| !host.is_empty()).map(|(host, port)| Place::tcp(host, port))
            }
            Opening::Agent => None,
        };
        let wanted = match (from, opening) {
            (Side::Client, Opening::Direct { to, .. }) => {
                let place = Some(to.place());
                if !self.certificate.port_forwarding {
                    return self.refused(from, kind, place, NO_FORWARDING);
                }
                if let Err(why) = fits(to) {
                    return self.refused(from, kind, place, why);
                }
                Wanted::Forward(Requested { channel: number, kind: Kind::Forward, origin, place })
            }
            (Side::Target, opening) => match self.offers.take(&opening) {
                Some(offered) => {
                    let (kind, place) = (offered.kind, offered.place);
                    Wanted::Offered(Requested { channel: number, kind, origin, place }, offered.offer)
                }
                None => {
                    let place = place.map(|spot| spot.place());
                    return self.refused(from, kind, place, "the client hasn't asked for it");
                }
            },
            (Side::Client, _) => {
                return self.refused(from, kind, None, "only a target opens channels of this type");
            }
        };
        self.asks.push(Ask { ticket, channel: Some(channel), wanted });
        Seen::Waits
    }

    /// A global request. `None`: it isn't about a listener.
    pub fn see_listening(
        &mut self,
        (from, ticket): (Side, Ticket),
        (name, want_reply): (&[u8], bool),
        data: &[u8],
    ) -> Option<Seen> {
        let listening = match Listening::parse(name, data) {
            Ok(listening) => listening?,
            Err(error) => return Some(self.refused(from, name, None, &error.to_string())),
        };
        let (Listening::Start(spot) | Listening::Cancel(spot)) = listening;
        let Some(spot) = spot.without_zero_bytes() else {
            return Some(self.refused(from, name, None, ZERO_BYTE));
        };
        let place = spot.place();
        if from == Side::Target {
            return Some(self.refused(from, name, Some(place), "only a client asks for listeners"));
        }
        if let Listening::Cancel(_) = listening {
            let ended = self.offers.cancel(&spot, want_reply);
            self.after.extend(ended.map(After::of_listener));
            return Some(Seen::Passes);
        }
        let refusal = if !self.certificate.port_forwarding {
            Some(NO_FORWARDING)
        } else if let Err(why) = fits(spot) {
            Some(why)
        } else if place.port == Some(0) && !want_reply {
            Some("a port of the target's choice can't be told without a reply")
        } else if !self.offers.has_room() {
            Some("too many listeners")
        } else {
            None
        };
        if let Some(why) = refusal {
            return Some(self.refused(from, name, Some(place), why));
        }
        let requested = ListenRequested { channel: None, offer: Offer::Listen, place: Some(place) };
        self.asks.push(Ask { ticket, channel: None, wanted: Wanted::Offer(requested, want_reply) });
        Some(Seen::Waits)
    }

    /// Another global request of the client's passes, and wants a reply.
    pub fn awaits_reply(&mut self) {
        self.offers.passes();
    }

    /// The target answers a global request of the client's.
    pub fn see_reply(&mut self, success: Option<&[u8]>) {
        self.after.extend(self.offers.answered(success).map(After::of_listener));
    }

    /// A client offers its agent or its X server on a session's channel.
    pub fn see_offer(
        &mut self,
        ticket: Ticket,
        (channel, number): (ChannelId, u32),
        offer: Offer,
        name: &[u8],
    ) -> Seen {
        let (permitted, line) = match offer {
            Offer::Agent => {
                (self.certificate.agent_forwarding, "your certificate permits no agent forwarding")
            }
            Offer::X11 => (self.certificate.x11_forwarding, "your certificate permits no X11 forwarding"),
            Offer::Listen => (self.certificate.port_forwarding, NO_FORWARDING),
        };
        if !permitted {
            return self.refused(Side::Client, name, None, line);
        }
        if offer == Offer::Agent && self.offers.has_agent() {
            // One offer is for the whole connection; what another is answered is the target's to say.
            return Seen::Passes;
        }
        if !self.offers.has_room() {
            return self.refused(Side::Client, name, None, "too many requests for an X server");
        }
        let requested = ListenRequested { channel: Some(number), offer, place: None };
        self.asks.push(Ask { ticket, channel: Some(channel), wanted: Wanted::Offer(requested, false) });
        Seen::Waits
    }

    /// There is leave: what was wanted is known from now on, and may pass.
    pub fn leave(&mut self, ask: &Ask, leave: Leave) {
        match (leave, &ask.wanted) {
            (Leave::Forward(permit), _) => self.connect(ask.channel, permit.announced()),
            (Leave::Offered(durable), _) => self.connect(ask.channel, durable.id()),
            (Leave::Offer(permit), Wanted::Offer(requested, want_reply)) => {
                let offer = permit.announced();
                match requested.offer {
                    Offer::Agent => self.offers.agent(offer),
                    Offer::X11 => self.offers.x11(offer),
                    Offer::Listen => {
                        self.offers.listen(offer, requested.place.clone().unwrap_or_default(), *want_reply);
                    }
                }
            }
            // Leave is made from the ask itself.
            (Leave::Offer(_), _) => {}
        }
    }

    fn connect(&mut self, channel: Option<ChannelId>, requested: EventId) {
        if let Some(channel) = channel {
            let connection = Connection {
                requested,
                open_since: None,
                failure: None,
                input: Stream::default(),
                output: Stream::default(),
            };
            self.connections.insert(channel, connection);
        }
    }

    /// The connection was confirmed.
    pub fn confirmed(&mut self, channel: ChannelId, now: Duration) {
        if let Some(connection) = self.connections.get_mut(&channel) {
            connection.open_since = Some(now);
        }
    }

    /// The connection was refused by the side that it leads to.
    pub fn failed(&mut self, channel: ChannelId, code: u32, description: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&channel) {
            connection.failure = Some((code, ByteString::cut(description, REASON_BYTES_MAX)));
        }
    }

    /// Bytes of a connection pass.
    pub fn moved(&mut self, channel: ChannelId, from: Side, data: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&channel) {
            let stream = if from == Side::Client { &mut connection.input } else { &mut connection.output };
            stream.add(data);
        }
    }

    /// The channel is gone.
    pub fn closed(&mut self, channel: ChannelId, number: u32, now: Duration) {
        let Some(connection) = self.connections.remove(&channel) else { return };
        let said = match (connection.open_since, connection.failure) {
            (Some(since), _) => Said::Completed(connection::Completed {
                bytes_in: connection.input.bytes,
                bytes_out: connection.output.bytes,
                channel: number,
                duration_ms: u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX),
                input_sha256: connection.input.hash(),
                output_sha256: connection.output.hash(),
            }),
            (None, failure) => {
                let (code, reason) = match failure {
                    Some((code, reason)) => (Some(code), reason),
                    None => (None, "the session ended before there was an answer".into()),
                };
                Said::Failed(connection::Failed { channel: Some(number), code, reason })
            }
        };
        self.after.push(After { cause: Some(connection.requested), said });
    }

    /// The session ends, and each listener with it; the channels were closed before.
    pub fn end(&mut self) -> Vec<After> {
        let ended = self.offers.end().into_iter();
        self.after.extend(ended.map(After::of_listener));
        self.take_after()
    }

    fn refused(&mut self, from: Side, what: &[u8], place: Option<Place>, why: &str) -> Seen {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= REFUSALS_TOLD_MAX {
            let what = ByteString::from(what);
            let refused = connection::Refused { by: from.to_string(), place, reason: why.to_owned(), what };
            self.after.push(After { cause: None, said: Said::Refused(refused) });
        }
        Seen::Refused(why.to_owned())
    }
}

const NO_FORWARDING: &str = "your certificate permits no port forwarding";
const ZERO_BYTE: &str = "a zero byte stands in a name, which servers read in different ways";

/// Whether an event and a policy can hold it whole: what is judged must be what the target reads.
fn fits(spot: Spot<'_>) -> Result<(), &'static str> {
    match spot {
        Spot::Tcp { port, .. } if port > u32::from(u16::MAX) => Err("there is no such port"),
        Spot::Tcp { host: text, .. } | Spot::Socket { path: text } if text.len() > PLACE_BYTES_MAX => {
            Err("the name is too long")
        }
        _ => Ok(()),
    }
}

/// Decides on what is wanted, where it is to be decided, and makes it durable.
///
/// # Errors
/// See [`Refused`].
pub async fn decide(access: &Access, session: &Session, ask: &Ask) -> Result<Leave, Refused> {
    let node = session.target.name.clone();
    let login = session.target.login.clone().unwrap_or_default();
    match &ask.wanted {
        Wanted::Forward(requested) => {
            let what = What::Forward { node, login, place: requested.place.clone().unwrap_or_default() };
            permit(access, session, what, requested.clone()).await.map(Leave::Forward)
        }
        Wanted::Offer(requested, _) => {
            let what = match requested.offer {
                Offer::Listen => {
                    What::Listen { node, login, place: requested.place.clone().unwrap_or_default() }
                }
                Offer::Agent => What::Agent { node, login },
                Offer::X11 => What::X11 { node, login },
            };
            permit(access, session, what, requested.clone()).await.map(Leave::Offer)
        }
        Wanted::Offered(requested, offer) => {
            let draft = about(session, requested.clone(), Some(*offer));
            let durable = access.proxy.append(draft).await.map_err(Refused::NoEvidence)?;
            Ok(Leave::Offered(Box::new(durable)))
        }
    }
}

/// The end of something that was announced by `requested` and could not pass any more.
#[must_use]
pub fn never_passed(ask: &Ask, requested: EventId, why: &str) -> After {
    let channel = match &ask.wanted {
        Wanted::Forward(wanted) | Wanted::Offered(wanted, _) => Some(wanted.channel),
        Wanted::Offer(wanted, _) => wanted.channel,
    };
    let failed = connection::Failed { channel, code: None, reason: why.into() };
    After { cause: Some(requested), said: Said::Failed(failed) }
}

/// Says how something ended. Nothing waits for it to be durable.
///
/// # Errors
/// When the log doesn't take it.
pub fn told(access: &Access, session: &Session, after: After) -> Result<(), ProducerError> {
    let After { cause, said } = after;
    match said {
        Said::Completed(data) => say(access, about(session, data, cause).outcome(Outcome::Success)),
        Said::Failed(data) | Said::Listen(Told::Failed(data)) => {
            say(access, about(session, data, cause).outcome(Outcome::Failure))
        }
        Said::Refused(data) => say(access, about(session, data, cause).outcome(Outcome::Denied)),
        Said::Listen(Told::Opened(data)) => {
            say(access, about(session, data, cause).outcome(Outcome::Success))
        }
        Said::Listen(Told::Closed(data)) => {
            say(access, about(session, data, cause).outcome(Outcome::Success))
        }
    }
}

fn say<D: EventData>(access: &Access, draft: Draft<D>) -> Result<(), ProducerError> {
    let _pending = access.proxy.submit(draft)?;
    Ok(())
}

/// An event of the session, which follows from `cause`, or else from the session itself.
fn about<D: EventData>(session: &Session, data: D, cause: Option<EventId>) -> Draft<D> {
    session.draft(data, cause.unwrap_or(session.announced)).source(session.source.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login through a tunnel is a few bytes: whoever reads the log could try passwords against their hash.
    #[test]
    fn what_is_so_little_that_it_could_be_guessed_has_no_hash() {
        let hash = |bytes: &[u8]| {
            let mut stream = Stream::default();
            bytes.chunks(10).for_each(|part| stream.add(part));
            stream.hash()
        };
        assert_eq!(hash(b"AUTH hunter2\r\n"), None);
        assert_eq!(hash(&[7; 1023]), None);
        assert_eq!(hash(&[7; 1024]), Some(to_hex(&Sha256::digest([7_u8; 1024]))));
    }
}
