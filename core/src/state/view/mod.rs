//! What the fold reads of an event: the fields that it needs, and the others checked as strictly as [`Event::parse`]
//! does, without a copy of what isn't kept. A log of ten million events is folded at each start.
//!
//! Whatever is an event by one reading is one by the other; a test holds them against each other.

mod canonical;

use crate::event::{Actor, Event, EventId, Outcome, Payload, ProducerKind, SessionId, Timestamp};
use crate::policy::Circumstances;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::Error as _};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use uuid::Uuid;

/// An event whose bytes are elsewhere.
pub(super) struct EventView<'a> {
    pub cause: Option<EventId>,
    data: &'a str,
    pub id: EventId,
    pub producer: ProducerView<'a>,
    pub session: Option<SessionId>,
    pub target: Option<TargetView<'a>>,
    pub kind: Cow<'a, str>,
    version: u32,
}

/// [`crate::event::ProducerRef`].
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct ProducerView<'a> {
    pub boot: Uuid,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub kind: ProducerKind,
    pub seq: u64,
}

/// What is read of [`crate::event::Target`].
pub(super) struct TargetView<'a> {
    pub name: Cow<'a, str>,
}

/// The typed data of an event.
pub(super) enum DataView<'a> {
    /// A quarter of all events, and mostly not kept.
    Decision(MadeView<'a>),
    /// See [`Event::payload`].
    Other(Payload),
}

impl<'a> EventView<'a> {
    /// Reads an event and its data.
    ///
    /// # Errors
    /// When the bytes aren't an event.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, DataView<'a>), serde_json::Error> {
        if let Some(view) = canonical::read(bytes) {
            let data = view.data();
            if matches!(data, DataView::Other(Payload::Unknown)) {
                // Nobody has read it yet, so it may be no JSON at all.
                serde_json::from_str::<IgnoredAny>(view.data)?;
            }
            return Ok((view, data));
        }
        let view = Self::from(serde_json::from_slice::<EnvelopeView<'_>>(bytes)?);
        let data = view.data();
        Ok((view, data))
    }

    fn data(&self) -> DataView<'a> {
        if self.kind == "decision.made" && self.version == 1 {
            let made = serde_json::from_str(self.data);
            return made.map_or(DataView::Other(Payload::Unknown), DataView::Decision);
        }
        DataView::Other(Payload::parse(&self.kind, self.version, self.data))
    }
}

/// What is read of events that change nothing.
pub(super) struct Header<'a> {
    pub producer: ProducerView<'a>,
    pub session: Option<SessionId>,
    pub kind: Cow<'a, str>,
}

impl<'a> Header<'a> {
    /// Reads it; `None` if the bytes have none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if let Some(EventView { producer, session, kind, data, .. }) = canonical::read(bytes) {
            let header = Header { producer, session, kind };
            return serde_json::from_str::<IgnoredAny>(data).is_ok().then_some(header);
        }
        #[derive(Deserialize)]
        struct Parsed<'a> {
            #[serde(borrow)]
            producer: ProducerView<'a>,
            #[serde(default)]
            session: Option<SessionId>,
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        let Parsed { producer, session, kind } = serde_json::from_slice(bytes).ok()?;
        Some(Header { producer, session, kind })
    }
}

/// [`crate::event::Envelope`] as the parser reads it.
#[derive(Deserialize)]
struct EnvelopeView<'a> {
    #[serde(borrow, rename = "actor")]
    _actor: ActorView<'a>,
    #[serde(default)]
    cause: Option<EventId>,
    #[serde(borrow)]
    data: &'a RawValue,
    id: EventId,
    #[serde(default, rename = "outcome")]
    _outcome: Option<Outcome>,
    #[serde(borrow)]
    producer: ProducerView<'a>,
    #[serde(default)]
    session: Option<SessionId>,
    #[serde(default, rename = "source")]
    _source: Option<SourceView>,
    #[serde(default, borrow)]
    target: Option<ParsedTarget<'a>>,
    #[serde(rename = "time")]
    _time: Moment,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    version: u32,
}

impl<'a> From<EnvelopeView<'a>> for EventView<'a> {
    fn from(parsed: EnvelopeView<'a>) -> Self {
        let EnvelopeView { cause, data, id, producer, session, target, kind, version, .. } = parsed;
        let target = target.map(|target| TargetView { name: target.name });
        EventView { cause, data: data.get(), id, producer, session, target, kind, version }
    }
}

/// What is checked of [`crate::event::Target`].
#[derive(Deserialize)]
struct ParsedTarget<'a> {
    #[serde(default, rename = "address")]
    _address: Option<Text>,
    #[serde(rename = "kind")]
    _kind: Text,
    #[serde(default, rename = "login")]
    _login: Option<Text>,
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// What is checked of [`crate::event::Source`].
#[derive(Deserialize)]
struct SourceView {
    #[serde(rename = "address")]
    _address: Text,
    #[serde(default, rename = "client")]
    _client: Option<Text>,
    #[serde(rename = "port")]
    _port: u16,
}

/// What is read of [`crate::event::decision::Made`].
#[derive(Deserialize)]
pub(super) struct MadeView<'a> {
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    pub allowed: bool,
    context: Context,
    #[serde(default, rename = "errors")]
    _errors: Vec<Text>,
    #[serde(rename = "policies")]
    _policies: Vec<Text>,
    #[serde(rename = "principal")]
    _principal: Text,
    #[serde(rename = "reason")]
    _reason: Text,
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    #[serde(rename = "state")]
    _state: u64,
}

impl MadeView<'_> {
    /// See [`Circumstances::from_context`].
    pub fn circumstances(&self) -> Option<Circumstances> {
        let (Plain::Whole(certificate_seconds), Plain::Whole(time)) =
            (self.context.certificate_seconds, self.context.time)
        else {
            return None;
        };
        let (Plain::Bool(mfa), Plain::Text(Some(source))) = (self.context.mfa, self.context.source) else {
            return None;
        };
        Some(Circumstances { certificate_seconds, mfa, source, time: Timestamp::from_seconds(time) })
    }
}

/// A string, read and let go. It takes no room, so a list of them takes no memory.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl Visitor<'_> for AnyText {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}

/// Both kinds of [`Actor`] at once. What it doesn't take, [`Actor`] itself decides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyActor {
    #[serde(default, rename = "certificate")]
    _certificate: Option<Text>,
    #[serde(default)]
    identity_provider: Option<Text>,
    #[serde(default)]
    mfa: Option<bool>,
    #[serde(default)]
    roles: Option<Vec<Text>>,
    #[serde(default)]
    system: Option<Text>,
    #[serde(default)]
    user: Option<Text>,
}

/// An actor that was checked.
struct ActorView<'a>(std::marker::PhantomData<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for ActorView<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let map = raw.get().starts_with('{');
        let whole = map
            && serde_json::from_str::<AnyActor>(raw.get()).is_ok_and(|any| {
                let person = any.identity_provider.is_some() && any.mfa.is_some() && any.roles.is_some();
                (person && any.user.is_some()) || any.system.is_some()
            });
        if !whole {
            serde_json::from_str::<Actor>(raw.get()).map_err(D::Error::custom)?;
        }
        Ok(Self(std::marker::PhantomData))
    }
}

/// A time that was checked: by its digits where that suffices.
struct Moment;

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyMoment;
        impl Visitor<'_> for AnyMoment {
            type Value = Moment;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
                if !plainly_a_time(text.as_bytes()) {
                    text.parse::<Timestamp>().map_err(E::custom)?;
                }
                Ok(Moment)
            }
        }
        deserializer.deserialize_str(AnyMoment)
    }
}

/// Whether the text is a time in the form in which events are written. The ends of months and the ends of the range
/// are left to the calendar.
fn plainly_a_time(text: &[u8]) -> bool {
    const FORM: &[u8; 30] = b"0000-00-00T00:00:00.000000000Z";
    let fits = text.len() == FORM.len()
        && text
            .iter()
            .zip(FORM)
            .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form });
    let within = |at: usize, low: &[u8], high: &[u8]| {
        text.get(at..at + low.len()).is_some_and(|digits| low <= digits && digits <= high)
    };
    fits && within(0, b"1970", b"2553")
        && within(5, b"01", b"12")
        && within(8, b"01", b"28")
        && within(11, b"00", b"23")
        && within(14, b"00", b"59")
        && within(17, b"00", b"59")
}

/// A value of the context, as far as circumstances have such.
#[derive(Clone, Copy, Default)]
enum Plain {
    Bool(bool),
    Whole(u64),
    /// A string, and the address that it is.
    Text(Option<IpAddr>),
    #[default]
    Other,
}

/// The Cedar context of a decision: any JSON, of which the circumstances are read.
#[derive(Default)]
struct Context {
    certificate_seconds: Plain,
    mfa: Plain,
    source: Plain,
    time: Plain,
}

/// Takes whatever a `serde_json::Value` takes, in the same calls: what that refuses (a number beyond all range, values
/// nested too deeply), this refuses.
struct AnyValue<'c>(Option<&'c mut Context>);

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Plain;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain::Bool(value))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Plain, E> {
        Ok(Plain::Other)
    }
    fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain::Whole(value))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Plain, E> {
        Ok(Plain::Other)
    }
    fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
        Ok(Plain::Text(value.parse().ok()))
    }
    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        // A struct may stand as a list of its fields, in their order and just as many.
        let mut listed = [Plain::Other; 4];
        let mut count = 0;
        while let Some(item) = items.next_element::<Plain>()? {
            if let Some(place) = listed.get_mut(count) {
                *place = item;
            }
            count += 1;
        }
        if let Some(context) = self.0.filter(|_| count == listed.len()) {
            let [certificate_seconds, mfa, source, time] = listed;
            *context = Context { certificate_seconds, mfa, source, time };
        }
        Ok(Plain::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Plain, A::Error> {
        let mut ignored = Context::default();
        let context = self.0.unwrap_or(&mut ignored);
        while let Some(field) = fields.next_key::<Field>()? {
            let value = fields.next_value::<Plain>()?;
            match field {
                Field::CertificateSeconds => context.certificate_seconds = value,
                Field::Mfa => context.mfa = value,
                Field::Source => context.source = value,
                Field::Time => context.time = value,
                Field::Other => {}
            }
        }
        Ok(Plain::Other)
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue(None))
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut context = Self::default();
        deserializer.deserialize_any(AnyValue(Some(&mut context)))?;
        Ok(context)
    }
}

/// The fields of the context that are read.
enum Field {
    CertificateSeconds,
    Mfa,
    Source,
    Time,
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyField;
        impl Visitor<'_> for AnyField {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "certificate_seconds" => Field::CertificateSeconds,
                    "mfa" => Field::Mfa,
                    "source" => Field::Source,
                    "time" => Field::Time,
                    _ => Field::Other,
                })
            }
        }
        deserializer.deserialize_str(AnyField)
    }
}

/// The whole event, for what is kept of it. What was viewed parses.
pub(super) fn whole(bytes: &[u8]) -> Result<Event, &'static str> {
    Event::parse(bytes).map_err(|_| "it is no event")
}

#[cfg(test)]
mod tests;
