//! The quick way to an [`EventView`]: an event is written in one form only, its fields in one order and without spaces,
//! so most of it is compared, not parsed. Whatever deviates from the form by a byte is left to the parser.

use super::{EventView, ProducerView, TargetView};
use crate::event::canonical::plain_bytes;
use crate::event::{EventId, Outcome, ProducerKind, SessionId};
use std::borrow::Cow;
use uuid::Uuid;

const UUID_BYTES: usize = 36;
const TIME_BYTES: usize = 30;

/// Reads an event in its canonical form; `None` if it isn't quite that, event or not.
///
/// The data is only delimited: it is JSON if whoever parses it says so.
pub(super) fn read(bytes: &[u8]) -> Option<EventView<'_>> {
    let mut at = Cursor { text: std::str::from_utf8(bytes).ok()?, at: 0 };
    at.literal("{\"actor\":")?;
    at.actor()?;
    let cause = if at.literal(",\"cause\":").is_some() { Some(EventId(at.uuid()?)) } else { None };
    at.literal(",\"data\":")?;
    let data = at.object()?;
    at.literal(",\"id\":")?;
    let id = EventId(at.uuid()?);
    if at.literal(",\"outcome\":").is_some() {
        at.outcome()?;
    }
    at.literal(",\"producer\":{\"boot\":")?;
    let boot = at.uuid()?;
    at.literal(",\"id\":")?;
    let name = Cow::Borrowed(at.string()?);
    at.literal(",\"kind\":")?;
    let kind = at.kind()?;
    at.literal(",\"seq\":")?;
    let seq = at.number()?;
    at.literal("}")?;
    let producer = ProducerView { boot, id: name, kind, seq };
    let session = if at.literal(",\"session\":").is_some() { Some(SessionId(at.uuid()?)) } else { None };
    if at.literal(",\"source\":").is_some() {
        at.source()?;
    }
    let target = if at.literal(",\"target\":").is_some() { Some(at.target()?) } else { None };
    at.literal(",\"time\":")?;
    if !super::plainly_a_time(at.fixed(TIME_BYTES)?.as_bytes()) {
        return None;
    }
    at.literal(",\"type\":")?;
    let kind = Cow::Borrowed(at.string()?);
    at.literal(",\"version\":")?;
    let version = u32::try_from(at.number()?).ok()?;
    at.literal("}")?;
    if at.at != bytes.len() {
        return None;
    }
    Some(EventView { cause, data, id, producer, session, target, kind, version })
}

/// A place in a text. What isn't there leaves it where it was.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.rest().starts_with(literal.as_bytes()).then(|| self.at += literal.len())
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        let (b'"', inner) = self.rest().split_first()? else { return None };
        let length = plain_bytes(inner);
        let start = self.at + 1;
        let string = self.text.get(start..start + length)?;
        self.at = start + length;
        self.literal("\"").map(|()| string)
    }

    /// A string of `length` bytes, whatever they are.
    fn fixed(&mut self, length: usize) -> Option<&'a str> {
        let start = self.at + 1;
        let string = self.text.get(start..start + length)?;
        let quoted =
            self.rest().starts_with(b"\"") && self.text.as_bytes().get(start + length) == Some(&b'"');
        self.at = start + length + 1;
        quoted.then_some(string)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        Uuid::try_parse(self.fixed(UUID_BYTES)?).ok()
    }

    /// A whole number as JSON writes it.
    fn number(&mut self) -> Option<u64> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = self.text.get(self.at..self.at + digits)?;
        if digits > 1 && text.starts_with('0') {
            return None;
        }
        self.at += digits;
        text.parse().ok()
    }

    /// Something between braces, as far as they and the strings in it tell.
    fn object(&mut self) -> Option<&'a str> {
        let (rest, mut depth, mut length) = (self.rest(), 0_usize, 0);
        loop {
            match rest.get(length)? {
                b'"' => {
                    length += 1;
                    loop {
                        length += plain_bytes(rest.get(length..)?);
                        match rest.get(length)? {
                            b'"' => break,
                            b'\\' => length += 2,
                            _ => length += 1,
                        }
                    }
                }
                b'{' => depth += 1,
                b'}' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            length += 1;
            if depth == 0 {
                let object = self.text.get(self.at..self.at + length)?;
                self.at += length;
                return object.starts_with('{').then_some(object);
            }
        }
    }

    fn actor(&mut self) -> Option<()> {
        if self.literal("{\"system\":").is_some() {
            self.string()?;
            return self.literal("}");
        }
        if self.literal("{\"certificate\":").is_some() {
            self.string()?;
            self.literal(",\"identity_provider\":")?;
        } else {
            self.literal("{\"identity_provider\":")?;
        }
        self.string()?;
        self.literal(",\"mfa\":false,\"roles\":[").or_else(|| self.literal(",\"mfa\":true,\"roles\":["))?;
        if self.literal("]").is_none() {
            self.string()?;
            while self.literal(",").is_some() {
                self.string()?;
            }
            self.literal("]")?;
        }
        self.literal(",\"user\":")?;
        self.string()?;
        self.literal("}")
    }

    fn source(&mut self) -> Option<()> {
        self.literal("{\"address\":")?;
        self.string()?;
        if self.literal(",\"client\":").is_some() {
            self.string()?;
        }
        self.literal(",\"port\":")?;
        u16::try_from(self.number()?).ok()?;
        self.literal("}")
    }

    fn target(&mut self) -> Option<TargetView<'a>> {
        if self.literal("{\"address\":").is_some() {
            self.string()?;
            self.literal(",\"kind\":")?;
        } else {
            self.literal("{\"kind\":")?;
        }
        self.string()?;
        if self.literal(",\"login\":").is_some() {
            self.string()?;
        }
        self.literal(",\"name\":")?;
        let name = Cow::Borrowed(self.string()?);
        self.literal("}").map(|()| TargetView { name })
    }

    fn kind(&mut self) -> Option<ProducerKind> {
        Some(match self.string()? {
            "log" => ProducerKind::Log,
            "proxy" => ProducerKind::Proxy,
            "node" => ProducerKind::Node,
            "witness" => ProducerKind::Witness,
            _ => return None,
        })
    }

    fn outcome(&mut self) -> Option<Outcome> {
        Some(match self.string()? {
            "success" => Outcome::Success,
            "failure" => Outcome::Failure,
            "denied" => Outcome::Denied,
            _ => return None,
        })
    }
}
