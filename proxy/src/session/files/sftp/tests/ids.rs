//! Ids of requests that are used again before their answers.

use super::*;

/// Of which paths an end is told, and whether it went well.
fn ends(channel: &mut Channel) -> Vec<(String, bool)> {
    let told = channel.told().into_iter();
    told.map(|told| match told.outcome {
        Outcome::Completed(completed) => (completed.path.to_text(), true),
        Outcome::Failed(failed) => (failed.path.to_text(), false),
        Outcome::Unparsed(unparsed) => panic!("{unparsed:?}"),
    })
    .collect()
}

fn end(path: &str, well: bool) -> (String, bool) {
    (path.to_owned(), well)
}

fn removes(paths: [&str; 3]) -> [Vec<u8>; 3] {
    paths.map(|path| named(kind::REMOVE, 1, &[path]))
}

/// phpseclib deletes a directory so: up to fifty requests at once, each with the id 1.
#[test]
fn changes_that_share_an_id_are_answered_first_come_first_served() {
    let removes = removes(["/a", "/b", "/c"]);
    for at_once in [true, false] {
        let mut channel = Channel::new();
        channel.begin();
        channel.to_target.clear();
        if at_once {
            channel.client(&removes.concat());
        } else {
            for remove in &removes {
                channel.client(remove);
            }
        }
        assert!(channel.ended.is_none());
        assert_eq!(channel.to_target, removes.concat());
        for _ in 0..3 {
            channel.target(&status(1, 0, ""));
        }
        assert_eq!(ends(&mut channel), [end("/a", true), end("/b", true), end("/c", true)]);

        channel.client(&removes.concat());
        channel.target(&[status(1, 0, ""), status(1, 3, "no")].concat());
        assert_eq!(ends(&mut channel), [end("/a", true), end("/b", false)]);
        // What has no answer at the end has an end all the same.
        assert_eq!(channel.sftp.end().len(), 1);
    }
}

#[test]
fn what_is_denied_takes_no_answer_from_those_that_share_its_id() {
    let mut channel = Channel::denying(
        |wanted| matches!(&wanted.says, Says::Requested(requested) if requested.path.to_text() == "/no"),
    );
    channel.begin();
    channel.to_target.clear();
    let removes = removes(["/a", "/no", "/b"]);
    channel.client(&removes.concat());
    assert_eq!(channel.to_target, [removes[0].clone(), removes[2].clone()].concat());
    assert!(channel.to_client.ends_with(&packet::refusal(1, 3, "custody: denied: no")));
    channel.target(&[status(1, 0, ""), status(1, 4, "busy")].concat());
    assert_eq!(ends(&mut channel), [end("/a", true), end("/b", false)]);
    assert!(channel.ended.is_none());
}

/// The first of the two waits for its decision and the other doesn't; the target hears of them in their order.
#[test]
fn answers_to_one_id_are_taken_in_the_order_of_the_requests() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(2, "/f", open::WRITE), &handle(2, b"h"));
    channel.client(&[named(kind::REMOVE, 1, &["/a"]), write(1, b"h", 0, b"abc")].concat());
    channel.target(&[status(1, 0, ""), status(1, 4, "full")].concat());
    assert_eq!(ends(&mut channel), [end("/a", true)]);
    channel.both(&close(3, b"h"), &status(3, 0, ""));
    assert_eq!(ends(&mut channel), [end("/f", false)]);
}

/// Whose answer it is decides there what a handle stands for, where paths count from, and which file was read.
#[test]
fn what_opens_reads_or_asks_for_home_shares_its_id_with_nothing() {
    let remove = named(kind::REMOVE, 7, &["/x"]);
    let others = [
        open_file(7, "/a", open::READ),
        named(kind::OPENDIR, 7, &["/"]),
        named(kind::REALPATH, 7, &["."]),
        read(7, b"h", 0, 9),
        ask(kind::READDIR, 7, &[&string(b"h")]),
    ];
    for other in &others {
        for (first, second) in [(&remove, other), (other, &remove), (other, other)] {
            for at_once in [true, false] {
                let mut channel = Channel::new();
                channel.begin();
                channel.both(&open_file(1, "/h", open::READ), &handle(1, b"h"));
                if at_once {
                    channel.client(&[first.clone(), second.clone()].concat());
                } else {
                    channel.client(first);
                    assert!(channel.ended.is_none());
                    channel.client(second);
                }
                let line = channel.ended.take().unwrap();
                assert!(line.contains("the request id 7 is used again before its answer"), "{line}");
            }
        }
    }
}

/// The answer to one that isn't followed may be taken for that of another one with its id, and give it another handle.
#[test]
fn once_requests_are_not_followed_no_handle_has_a_path_and_no_answer_says_where_paths_count_from() {
    let mut channel = Channel::new();
    channel.both(&open_file(1, "/a", open::READ), &handle(1, b"h"));
    let empty = |id| ask(kind::FSETSTAT, id, &[&string(b"h"), &1u32.to_be_bytes(), &0u64.to_be_bytes()]);
    channel.both(&empty(2), &status(2, 0, ""));
    assert_eq!(channel.requested().last().unwrap().1, "/a");
    for _ in 0..=requests::AWAITED_MAX {
        channel.client(&named(kind::STAT, 3, &["/x"]));
    }
    assert_eq!(channel.sftp.requests.awaited.len(), requests::AWAITED_MAX);
    channel.client(&empty(4));
    let unknown = Path { bytes: vec![], relative: true };
    assert_eq!(channel.wanted.last().unwrap().rights, [(Right::Write, unknown)]);

    channel.target(&status(3, 2, ""));
    channel.both(&named(kind::REALPATH, 5, &["."]), &names(5, &["/srv"]));
    channel.client(&open_file(6, "x", open::READ));
    assert_eq!(channel.requested().last().unwrap().1, "x");
    assert!(channel.ended.is_none());
}
