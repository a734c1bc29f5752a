//! Keyboard-interactive authentication (RFC 4256): what clients are asked who hold no certificate, and what they answer.

use super::message;
use crate::login::password::PASSWORD_BYTES_MAX;
use crate::ssh::field::{Fields, put_string};
use zeroize::Zeroizing;

/// Longest answer, in bytes: that of a password, longer than any name.
const ANSWER_BYTES_MAX: usize = PASSWORD_BYTES_MAX;

/// What a person typed.
pub(super) struct Answers {
    /// Who he says he is; empty if it can't be a name.
    pub(super) user: String,
    /// The password, whatever bytes it has.
    pub(super) password: Zeroizing<Vec<u8>>,
}

/// SSH_MSG_USERAUTH_INFO_REQUEST (section 3.2): the name, which is shown while it is typed, and the password.
pub(super) fn request() -> Vec<u8> {
    let mut payload = vec![message::USERAUTH_INFO_REQUEST];
    for text in ["Custody", "", ""] {
        put_string(&mut payload, text.as_bytes());
    }
    let prompts: [(&str, bool); 2] = [("Custody user: ", true), ("Password: ", false)];
    payload.extend_from_slice(&2_u32.to_be_bytes());
    for (prompt, is_shown) in prompts {
        put_string(&mut payload, prompt.as_bytes());
        payload.push(u8::from(is_shown));
    }
    payload
}

/// SSH_MSG_USERAUTH_INFO_RESPONSE (section 3.4) to that. `Some(None)` if it has other than two answers, which is a
/// failure and no fault; `None` if its fields can't be read.
pub(super) fn response(payload: &[u8]) -> Option<Option<Answers>> {
    let mut fields = Fields::new(payload);
    fields.byte()?;
    let count = fields.uint32()?;
    if count != 2 {
        return Some(None);
    }
    let (user, password) = (fields.string()?, fields.string()?);
    if !fields.is_empty() {
        return None;
    }
    let user = user.get(..ANSWER_BYTES_MAX).unwrap_or(user);
    // One byte more than a password may have is kept: it must not become right by being cut.
    let password = password.get(..ANSWER_BYTES_MAX.saturating_add(1)).unwrap_or(password);
    Some(Some(Answers {
        user: std::str::from_utf8(user).unwrap_or_default().trim().to_owned(),
        password: Zeroizing::new(password.to_vec()),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::server::{AnswerStep, Connection, Denied, ExpectAnswers, ServerFault, Step};
    use super::super::tests::{connection, serving};
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn ask() -> Vec<u8> {
        let mut payload = vec![message::USERAUTH_REQUEST];
        for field in [b"root+web-1" as &[u8], b"ssh-connection", b"keyboard-interactive", b"", b"pam"] {
            put_string(&mut payload, field);
        }
        payload
    }

    fn answer(answers: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![message::USERAUTH_INFO_RESPONSE];
        payload.extend_from_slice(&u32::try_from(answers.len()).unwrap().to_be_bytes());
        answers.iter().for_each(|answer| put_string(&mut payload, answer));
        payload
    }

    fn asking() -> ExpectAnswers {
        let connection = Connection { asks_passwords: true, ..connection() };
        match serving(connection).handle(&ask(), NOW).unwrap() {
            Step::Asks { send, next } => {
                assert_eq!(send, request());
                next
            }
            other => panic!("nothing was asked: {other:?}"),
        }
    }

    #[test]
    fn two_answers_are_a_claim_and_no_proof() {
        let AnswerStep::Claimed(mut claim) = asking().handle(&answer(&[b" ana ", b" pass "]), NOW).unwrap()
        else {
            panic!("no claim")
        };
        assert_eq!(claim.user(), "ana");
        assert_eq!(claim.take_password().as_slice(), b" pass ");
        assert!(claim.take_password().is_empty());
        assert!(!format!("{claim:?}").contains("pass"));
        let Step::Continue { send, denied: Some(Denied::Password), .. } = claim.refuse().unwrap() else {
            panic!("not refused")
        };
        assert_eq!(send.unwrap(), b"\x33\0\0\0\x1epublickey,keyboard-interactive\0");
    }

    #[test]
    fn other_answers_than_two_are_refused_and_the_client_may_go_on() {
        for answers in [&[] as &[&[u8]], &[b"ana"], &[b"a", b"b", b"c"]] {
            let AnswerStep::Instead(Step::Continue { next, denied: Some(Denied::Answers), .. }) =
                asking().handle(&answer(answers), NOW).unwrap()
            else {
                panic!("not refused")
            };
            assert!(matches!(next.handle(&ask(), NOW).unwrap(), Step::Asks { .. }));
        }
        // Another request in the place of answers gives the questions up.
        let again = asking().handle(&ask(), NOW).unwrap();
        assert!(matches!(again, AnswerStep::Instead(Step::Asks { .. })));
        let cut = answer(&[b"ana", b"secret"]);
        let fault = asking().handle(cut.get(..cut.len() - 1).unwrap(), NOW).unwrap_err();
        assert_eq!(fault, ServerFault::Malformed { what: "USERAUTH_INFO_RESPONSE" });
        let fault = asking().handle(&[90], NOW).unwrap_err();
        assert!(matches!(fault, ServerFault::Unexpected { .. }));
    }

    #[test]
    fn it_is_offered_where_it_is_configured_only() {
        let Step::Continue { send, denied: Some(Denied::Method { method }), .. } =
            serving(connection()).handle(&ask(), NOW).unwrap()
        else {
            panic!("not refused")
        };
        assert_eq!(method, "keyboard-interactive");
        assert_eq!(send.unwrap(), b"\x33\0\0\0\x09publickey\0");
    }

    #[test]
    fn what_is_too_long_stays_too_long() {
        let long = vec![b'x'; 5_000];
        let AnswerStep::Claimed(mut claim) = asking().handle(&answer(&[&long, &long]), NOW).unwrap() else {
            panic!("no claim")
        };
        assert_eq!(claim.user().len(), 1_024);
        assert_eq!(claim.take_password().len(), 1_025);
    }

    proptest! {
        #[test]
        fn no_rubbish_is_a_proof(rubbish in proptest::collection::vec(any::<u8>(), 0..60)) {
            for first in [message::USERAUTH_INFO_RESPONSE, message::USERAUTH_REQUEST, 2] {
                let payload = [&[first], rubbish.as_slice()].concat();
                let step = asking().handle(&payload, NOW);
                prop_assert!(!matches!(step, Ok(AnswerStep::Instead(Step::Proved(_)))));
            }
        }
    }
}
