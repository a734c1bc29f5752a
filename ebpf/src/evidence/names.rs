//! The names by which sessions know addresses: what name servers answered to their own sockets.
//!
//! A name is what the session was told, not who has the address: whoever runs the name server, or the session itself by a server of its
//! own, may say anything. So nothing is decided by it.

use crate::sensor::record::mapped;
use domain::base::iana::{Class, Rcode};
use domain::base::{Message, Ttl};
use domain::rdata::{A, Aaaa};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many addresses of a session have names; the one that was named longest ago goes first.
const ADDRESSES_MAX: usize = 256;
/// How many sessions have named addresses; likewise.
const SESSIONS_MAX: usize = 1_024;
/// How long a name counts for connections that are opened later: as long as the answer says, within these bounds, since programs
/// connect somewhat later than that, and an answer may say anything; nanoseconds.
const LASTS_NS_MIN: u64 = 300 * 1_000_000_000;
const LASTS_NS_MAX: u64 = 86_400 * 1_000_000_000;

/// What all sessions were told.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<[u8; 16], Told>);

/// What one session was told, by address.
#[derive(Debug, Default)]
struct Told {
    names: BTreeMap<[u8; 16], Name>,
    last: u64,
}

/// A name of an address. Times are the kernel's, in nanoseconds since boot.
#[derive(Debug)]
struct Name {
    name: String,
    since: u64,
    last: u64,
    until: u64,
}

impl Names {
    /// A session was sent this message by a name server at that time. What isn't an answer to a question for addresses says nothing.
    pub fn learn(&mut self, session: [u8; 16], message: &[u8], at: u64) {
        let Some((name, addresses)) = answer(message) else { return };
        if addresses.is_empty() {
            return;
        }
        make_room(&mut self.0, &session, SESSIONS_MAX, |told| told.last);
        let told = self.0.entry(session).or_default();
        told.last = at;
        for (address, ttl) in addresses {
            let address = mapped(address);
            let lasts = u64::from(ttl.as_secs()).saturating_mul(1_000_000_000);
            let until = at.saturating_add(lasts.clamp(LASTS_NS_MIN, LASTS_NS_MAX));
            make_room(&mut told.names, &address, ADDRESSES_MAX, |name| name.last);
            match told.names.get_mut(&address) {
                Some(known) if known.name == name && known.until >= at => {
                    known.last = at;
                    known.until = until.max(known.until);
                }
                _ => {
                    told.names.insert(address, Name { name: name.clone(), since: at, last: at, until });
                }
            }
        }
    }

    /// The name by which a session knew an address when it opened a connection to it at that time.
    #[must_use]
    pub fn of(&self, session: [u8; 16], address: [u8; 16], at: u64) -> Option<&str> {
        let name = self.0.get(&session)?.names.get(&address)?;
        (name.since <= at && at <= name.until).then_some(&*name.name)
    }
}

/// Forgets what was told longest ago, where another key would be one too many.
fn make_room<V>(all: &mut BTreeMap<[u8; 16], V>, key: &[u8; 16], max: usize, last: impl Fn(&V) -> u64) {
    if all.len() < max || all.contains_key(key) {
        return;
    }
    if let Some(oldest) = all.iter().min_by_key(|(_, value)| last(value)).map(|(key, _)| *key) {
        all.remove(&oldest);
    }
}

/// The name that was asked for, and the addresses that the answer has for it or for what it is another name of. A message that is cut
/// or damaged says what stands before that.
fn answer(message: &[u8]) -> Option<(String, Vec<(IpAddr, Ttl)>)> {
    let message = Message::from_slice(message).ok()?;
    if !message.header().qr() || message.header().rcode() != Rcode::NOERROR {
        return None;
    }
    let question = message.sole_question().ok().filter(|question| question.qclass() == Class::IN)?;
    let canonical = message.canonical_name()?;
    let answers = message.answer().ok()?;
    let four = answers.limit_to_in::<A>().filter_map(Result::ok);
    let four = four.filter(|record| *record.owner() == canonical);
    let six = answers.limit_to_in::<Aaaa>().filter_map(Result::ok);
    let six = six.filter(|record| *record.owner() == canonical);
    let four = four.map(|record| (IpAddr::V4(record.data().addr()), record.ttl()));
    let six = six.map(|record| (IpAddr::V6(record.data().addr()), record.ttl()));
    let mut name = question.qname().to_string();
    name.make_ascii_lowercase();
    Some((name, four.chain(six).take(ADDRESSES_MAX).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::iana::Rtype;
    use domain::base::{MessageBuilder, Name as DomainName};
    use domain::rdata::Cname;
    use proptest::prelude::{any, proptest};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const SESSION: [u8; 16] = [1; 16];
    const FOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    fn name(text: &str) -> DomainName<Vec<u8>> {
        DomainName::from_chars(text.chars()).unwrap()
    }

    /// An answer to a question for `asked`, which is another name of `canonical`, which has both addresses.
    fn message(asked: &str, canonical: &str, ttl: u32) -> Vec<u8> {
        let ttl = Ttl::from_secs(ttl);
        let mut question = MessageBuilder::new_vec().question();
        question.header_mut().set_qr(true);
        question.push((name(asked), Rtype::A)).unwrap();
        let mut answer = question.answer();
        if asked != canonical {
            answer.push((name(asked), ttl, Cname::new(name("between.example")))).unwrap();
            answer.push((name("between.example"), ttl, Cname::new(name(canonical)))).unwrap();
        }
        answer.push((name(canonical), ttl, A::new(FOUR))).unwrap();
        answer.push((name("other.example"), ttl, A::new(Ipv4Addr::new(192, 0, 2, 9)))).unwrap();
        answer.push((name(canonical), ttl, Aaaa::new(SIX))).unwrap();
        answer.finish()
    }

    fn of(names: &Names, address: impl Into<IpAddr>, at: u64) -> Option<&str> {
        names.of(SESSION, mapped(address.into()), at)
    }

    #[test]
    fn an_address_has_the_name_that_was_asked_for_from_then_on_and_for_that_session() {
        let mut names = Names::default();
        names.learn(SESSION, &message("WWW.Example.com", "edge.example.net", 60), 1_000);
        for address in [IpAddr::V4(FOUR), IpAddr::V6(SIX)] {
            assert_eq!(of(&names, address, 1_000), Some("www.example.com"));
            assert_eq!(of(&names, address, 999), None, "before it was told");
        }
        assert_eq!(of(&names, [192, 0, 2, 9], 1_000), None, "nobody asked for its name");
        assert_eq!(names.of([2; 16], mapped(FOUR.into()), 1_000), None, "another session");
        // Another name takes its place, and isn't that of connections that were opened before.
        names.learn(SESSION, &message("b.example", "b.example", 60), 5_000);
        assert_eq!((of(&names, FOUR, 2_000), of(&names, FOUR, 5_000)), (None, Some("b.example")));
    }

    #[test]
    fn a_name_lasts_as_the_answer_says_within_bounds() {
        let mut names = Names::default();
        for (ttl, lasts) in [(0, LASTS_NS_MIN), (3_600, 3_600 * 1_000_000_000), (u32::MAX / 2, LASTS_NS_MAX)]
        {
            let asked = format!("ttl-{ttl}.example");
            names.learn(SESSION, &message(&asked, &asked, ttl), 7);
            assert_eq!(of(&names, FOUR, 7 + lasts), Some(&*asked));
            assert_eq!(of(&names, FOUR, 8 + lasts), None);
        }
        // The same again: it goes on, for what was opened before as well.
        let hour = 3_600 * 1_000_000_000;
        names.learn(SESSION, &message("a.example", "a.example", 3_600), 10);
        names.learn(SESSION, &message("a.example", "a.example", 3_600), hour);
        assert_eq!(
            (of(&names, FOUR, 10), of(&names, FOUR, 2 * hour)),
            (Some("a.example"), Some("a.example"))
        );
    }

    #[test]
    fn what_is_no_answer_says_nothing_and_a_cut_one_what_it_has() {
        let mut names = Names::default();
        let whole = message("a.example", "a.example", 60);
        let mut question = whole.clone();
        question[2] &= 0x7f;
        let mut refused = whole.clone();
        refused[3] |= 5;
        let mut two_questions = whole.clone();
        two_questions[5] = 2;
        for bytes in [&question, &refused, &two_questions, &whole[..11].to_vec()] {
            names.learn(SESSION, bytes, 1);
            assert!(names.0.is_empty());
        }
        names.learn(SESSION, &whole[..whole.len() - 1], 1);
        assert_eq!((of(&names, FOUR, 1), of(&names, SIX, 1)), (Some("a.example"), None));
    }

    #[test]
    fn what_a_hostile_server_or_session_tells_is_bounded() {
        let mut names = Names::default();
        for number in 0..ADDRESSES_MAX + 9 {
            let address = Ipv4Addr::from(u32::try_from(number).unwrap());
            let mut question = MessageBuilder::new_vec().question();
            question.header_mut().set_qr(true);
            question.push((name("a.example"), Rtype::A)).unwrap();
            let mut answer = question.answer();
            answer.push((name("a.example"), Ttl::from_secs(1), A::new(address))).unwrap();
            names.learn(SESSION, &answer.finish(), number as u64);
        }
        let told = &names.0[&SESSION].names;
        assert_eq!(told.len(), ADDRESSES_MAX);
        assert!(!told.contains_key(&mapped(Ipv4Addr::from(8).into())));
        for number in 0..SESSIONS_MAX + 9 {
            let session = (number as u128).to_be_bytes();
            names.learn(session, &message("a.example", "a.example", 1), 1_000 + number as u64);
        }
        assert_eq!(names.0.len(), SESSIONS_MAX);
        assert!(!names.0.contains_key(&SESSION) && !names.0.contains_key(&[0; 16]));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            Names::default().learn(SESSION, &bytes, 1);
        }

        #[test]
        fn no_damage_is_too_strange(damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..20), cut in any::<u16>()) {
            let mut bytes = message("www.example.com", "edge.example.net", 60);
            let length = bytes.len();
            for (at, value) in damage {
                bytes[usize::from(at) % length] = value;
            }
            bytes.truncate(usize::from(cut) % (length + 1));
            let mut names = Names::default();
            names.learn(SESSION, &bytes, 1);
            assert!(names.0.values().flat_map(|told| told.names.values()).all(|name| name.name.len() <= 1_024));
        }
    }
}
