//! Streams that aren't understood, or no longer: nothing in them can be decided, so they end.

use super::*;

/// That an extension was allowed says nothing of a stream that isn't understood.
#[test]
fn what_was_kept_back_never_passes_once_the_targets_side_is_lost() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&extended(1, "what@example.com", &[]), &status(1, 8, ""));
    let before = channel.to_target.len();
    let request = named(kind::STAT, 2, &["/a"]);
    channel.client(&request[..3]);
    channel.target(&[0, 0, 0, 0, 0]);
    assert!(channel.ended.is_none(), "what the target says is the client's to read");
    channel.client(&request[3..]);
    assert!(channel.ended.is_some());
    assert_eq!(channel.to_target.len(), before);
}

/// Whoever may write and not read could have had everything by it.
#[test]
fn an_id_that_is_used_twice_switches_no_decision_off() {
    fn reads(wanted: &Wanted) -> bool {
        wanted.rights.iter().any(|(right, _)| *right == Right::Read)
    }
    fn nothing(_: &Wanted) -> bool {
        false
    }
    let twice = [open_file(7, "/a", open::READ), open_file(7, "/b", open::READ)].concat();
    let secret = open_file(8, "/etc/shadow", open::READ);
    for deny in [reads as fn(&Wanted) -> bool, nothing] {
        let mut channel = Channel::denying(deny);
        channel.begin();
        channel.both(&open_file(1, "/srv/www/x", open::WRITE), &handle(1, b"h"));
        channel.client(&extended(2, "what@example.com", &[]));
        let before = channel.to_target.len();
        channel.client(&twice);
        assert!(channel.ended.take().unwrap().contains("the request id 7 is used again before its answer"));
        channel.client(&secret);
        assert!(channel.ended.is_some());
        assert_eq!(channel.to_target.len(), before);
        assert!(channel.lost().contains("used again"));
    }
}

/// The target's side is lost while a request of the client's is being decided: it was announced, so it has an end.
#[test]
fn what_was_allowed_too_late_has_its_end() {
    let mut channel = Channel::new();
    channel.begin();
    let Seen::Wants(wanted) = channel.sftp.client(&named(kind::REMOVE, 1, &["/a"])) else { panic!("wanted") };
    assert_eq!(wanted.len(), 1);
    channel.target(&[0, 0, 0, 0, 0]);
    assert!(channel.lost().contains("a packet of type 0 and 0 bytes"));
    assert!(matches!(channel.sftp.decided(vec![Ok(id_of(1))]), Decided::End(_)));
    assert_eq!(channel.failed().reason.to_text(), "the channel ended before it could pass");
}

/// There is one answer to a message: what stands in it before something that isn't understood doesn't pass either, nor does
/// what was decided too late.
#[test]
fn what_never_passed_is_not_counted() {
    let opened = || {
        let mut channel = Channel::new();
        channel.begin();
        channel.both(&open_file(1, "/f", open::WRITE), &handle(1, b"h"));
        channel.both(&write(2, b"h", 0, b"abc"), &status(2, 0, ""));
        channel
    };
    let written = |channel: &mut Channel| {
        let told = channel.told();
        let Some(Outcome::Failed(failed)) = told.first().map(|told| &told.outcome) else {
            panic!("{told:?}")
        };
        let written = failed.written.clone().unwrap();
        (written.bytes, written.sha256)
    };
    let more = write(5, b"h", 3, b"0123456789");
    let mut channel = opened();
    channel.client(&[more.clone(), named(kind::REMOVE, 6, &["a\0b"])].concat());
    assert!(channel.ended.is_some());
    assert_eq!(written(&mut channel), (3, sha256(b"abc")));

    let mut channel = opened();
    let asked = [more, named(kind::REMOVE, 6, &["/a"])].concat();
    assert!(matches!(channel.sftp.client(&asked), Seen::Wants(_)));
    channel.target(&[0, 0, 0, 0, 0]);
    assert_eq!(written(&mut channel), (3, sha256(b"abc")));
}

#[test]
fn what_is_no_sftp_is_said_and_ends() {
    let garbage: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 0, 1],
        &[0xff; 40],
        &ask(kind::OPEN, 1, &[&string(b"/x")]),
        &ask(kind::WRITE, 1, &[&string(&[1; 5_000]), &[0; 12]]),
        &ask(kind::WRITE, 1, &[&string(b"h"), &0u64.to_be_bytes(), &9u32.to_be_bytes(), b"short"]),
        &[open_file(7, "/a", open::READ), open_file(7, "/b", open::READ)].concat(),
    ];
    for garbage in garbage {
        let mut channel = Channel::new();
        channel.begin();
        let before = channel.to_target.len();
        channel.client(garbage);
        let line = channel.ended.take().unwrap();
        assert!(line.starts_with("this isn't understood as SFTP"), "{line}");
        channel.client(b"and more");
        assert_eq!(channel.ended.as_ref(), Some(&line), "{garbage:?}");
        assert_eq!(channel.to_target.len(), before, "{garbage:?}");
        assert!(line.contains(&channel.lost()), "{garbage:?}");
        channel.target(b"whatever");
        assert!(channel.to_client.ends_with(b"whatever") && channel.told().is_empty());
    }
}

#[test]
fn a_target_that_speaks_otherwise_ends_what_is_understood() {
    let answers: &[&[u8]] = &[
        &packet(kind::VERSION, &[&6u32.to_be_bytes()]),
        &status(99, 0, ""),
        &[0xff; 9],
        &[0, 0, 0, 1, 101],
        &ask(kind::DATA, 2, &[&9u32.to_be_bytes(), b"short"]),
    ];
    for answer in answers {
        let mut channel = Channel::new();
        channel.begin();
        channel.both(&open_file(1, "/a", open::READ), &handle(1, b"h"));
        channel.client(&read(2, b"h", 0, 100));
        channel.target(answer);
        let told = channel.told();
        let [failed, unparsed] = told.as_slice() else { panic!("{told:?}") };
        let Outcome::Failed(failed) = &failed.outcome else { panic!("{told:?}") };
        assert!(failed.reason.to_text().contains("isn't understood any more"));
        assert!(matches!(unparsed.outcome, Outcome::Unparsed(_)), "{told:?}");
        assert!(channel.to_client.ends_with(answer));
        let before = channel.to_target.len();
        channel.client(&named(kind::REMOVE, 5, &["/x"]));
        assert!(channel.ended.is_some() && channel.to_target.len() == before);
    }
}

/// Found by a fuzzer: a status of five bytes took what was awaited with it, and its end was never told.
#[test]
fn an_answer_that_is_cut_short_leaves_each_request_its_end() {
    let requests = [
        (open_file(7, "/tmp/a", open::READ), handle(7, b"h")),
        (named(kind::RENAME, 7, &["/tmp/a", "../b"]), status(7, 0, "")),
        (named(kind::REMOVE, 7, &["/tmp/a"]), status(7, 3, "no")),
        (open_file(7, "/tmp/a", open::READ), status(7, 2, "none")),
    ];
    for (request, answer) in requests {
        for length in 1..answer.len() - 4 {
            let mut channel = Channel::new();
            channel.begin();
            channel.client(&request);
            channel.target(&string(&answer[4..4 + length]));
            let mut told = channel.told();
            told.extend(channel.sftp.end());
            told.retain(|told| !matches!(told.outcome, Outcome::Unparsed(_)));
            assert_eq!(told.len(), 1, "of {length} bytes of {answer:?}: {told:?}");
        }
    }
}
