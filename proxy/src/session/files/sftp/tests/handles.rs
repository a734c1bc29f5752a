//! Handles: each stands for its file from when the target gives it until its close is asked for.

use super::*;

const GUESSED: &str = "uses one of too many handles that the target hasn't given";

fn set_mode(id: u32, handle: &[u8]) -> Vec<u8> {
    ask(kind::FSETSTAT, id, &[&string(handle), &4u32.to_be_bytes(), &0o100_777u32.to_be_bytes()])
}

fn copy(id: u32, from: &[u8], to: &[u8]) -> Vec<u8> {
    let numbers = [0u64, 0].map(u64::to_be_bytes).concat();
    let copy = [string(b"copy-data"), string(from), numbers, string(to), 0u64.to_be_bytes().to_vec()];
    ask(kind::EXTENDED, id, &[&copy.concat()])
}

/// `/up/a` is open as `h`.
fn opened(flags: u32) -> Channel {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "/up/a", flags), &handle(1, b"h"));
    channel
}

fn last_rights(channel: &Channel) -> &[(Right, Path)] {
    &channel.wanted.last().unwrap().rights
}

fn unknown() -> Path {
    Path { bytes: vec![], relative: true }
}

#[test]
fn once_its_close_is_asked_for_a_handle_stands_for_no_file() {
    for at_once in [true, false] {
        let mut channel = opened(open::READ);
        if at_once {
            channel.client(&[close(2, b"h"), set_mode(3, b"h")].concat());
        } else {
            channel.client(&close(2, b"h"));
            channel.client(&set_mode(3, b"h"));
        }
        assert_eq!(last_rights(&channel), [(Right::Write, unknown())]);
        channel.target(&[status(2, 0, ""), status(3, 4, "Failure")].concat());
        let told = channel.told();
        assert!(
            matches!(&told[0].outcome, Outcome::Completed(of) if of.path.to_text() == "/up/a"),
            "{told:?}"
        );
        assert!(channel.ended.is_none());
    }
    // Nor does it where the target refuses.
    let mut channel = opened(open::READ);
    channel.both(&close(2, b"h"), &status(2, 4, "Failure"));
    assert_eq!(channel.failed().status, Some(4));
    channel.client(&set_mode(3, b"h"));
    assert_eq!(last_rights(&channel), [(Right::Write, unknown())]);
}

/// OpenSSH gives the handle that became free last to the file that is opened next.
#[test]
fn a_handle_that_is_free_changes_no_other_file_under_its_old_name() {
    let mut channel = opened(open::READ);
    channel.client(&[close(2, b"h"), open_file(3, "/conf", open::READ), set_mode(4, b"h")].concat());
    assert_eq!(last_rights(&channel), [(Right::Write, unknown())]);

    let mut channel = opened(open::READ);
    channel.client(&close(2, b"h"));
    channel.client(&open_file(3, "/conf", open::READ));
    channel.client(&set_mode(4, b"h"));
    assert_eq!(last_rights(&channel), [(Right::Write, unknown())]);
    assert!(channel.ended.is_none());

    // Whichever answer comes first.
    for answers in [[status(2, 0, ""), handle(3, b"h")], [handle(3, b"h"), status(2, 0, "")]] {
        let mut channel = opened(open::READ);
        channel.client(&[close(2, b"h"), open_file(3, "/conf", open::READ)].concat());
        channel.target(&answers.concat());
        assert_eq!(channel.completed().path.to_text(), "/up/a");
        channel.client(&set_mode(4, b"h"));
        let [(Right::Write, path)] = last_rights(&channel) else { panic!("{:?}", channel.wanted) };
        assert_eq!((path.bytes.as_slice(), path.relative), (&b"/conf"[..], false));
    }
}

#[test]
fn a_handle_that_is_free_takes_no_data_for_its_old_file() {
    let mut channel = opened(open::WRITE);
    channel.both(&write(2, b"h", 0, b"abc"), &status(2, 0, ""));
    let more = write(5, b"h", 3, b"def");
    channel.client(&[close(3, b"h"), open_file(4, "/b", open::WRITE), more].concat());
    channel.target(&[status(3, 0, ""), handle(4, b"h"), status(5, 0, "")].concat());
    let told = channel.told();
    let [first, second] = told.as_slice() else { panic!("{told:?}") };
    let (Outcome::Completed(first), Outcome::Completed(second)) = (&first.outcome, &second.outcome) else {
        panic!("{told:?}")
    };
    assert_eq!((first.path.to_text(), second.path.to_text()), ("/up/a".into(), "/b".into()));
    let written = first.written.as_ref().unwrap();
    assert_eq!((written.bytes, written.sha256.clone()), (3, sha256(b"abc")));
    assert!(second.written.is_none(), "what went there isn't known: {second:?}");
}

/// What is changed, moved or closed so may be another file's: whichever gets the handle isn't said to be told whole.
#[test]
fn a_file_whose_handle_is_used_before_it_is_given_is_not_followed() {
    let uses = [
        write(3, b"x", 0, b"abc"),
        write(3, b"x", 0, b""),
        ask(kind::READDIR, 3, &[&string(b"x")]),
        close(3, b"x"),
        set_mode(3, b"x"),
        copy(3, b"x", b"h"),
        copy(3, b"h", b"x"),
    ];
    for opens in [open_file(2, "/f", open::READ | open::WRITE), named(kind::OPENDIR, 2, &["/f"])] {
        for used in &uses {
            for at_once in [true, false] {
                for given in [&b"x"[..], b"another"] {
                    let mut channel = opened(open::READ | open::WRITE);
                    if at_once {
                        channel.client(&[opens.clone(), used.clone()].concat());
                    } else {
                        channel.client(&opens);
                        channel.client(used);
                    }
                    assert!(channel.ended.is_none() && channel.to_target.ends_with(used));
                    channel.target(&handle(2, given));
                    let told = channel.told();
                    if given == b"x" {
                        let [Told { outcome: Outcome::Completed(of), .. }] = told.as_slice() else {
                            panic!("{told:?}")
                        };
                        assert_eq!((of.path.to_text(), &of.read, &of.written), ("/f".into(), &None, &None));
                    } else {
                        assert!(told.is_empty(), "what was closed twice, say, concerns no other: {told:?}");
                    }
                }
            }
        }
        // Whoever looks moves nothing.
        let mut channel = opened(open::READ);
        let looks = [named(kind::FSTAT, 3, &["x"]), extended(4, "fsync@openssh.com", &["x"])].concat();
        channel.client(&[opens.clone(), looks].concat());
        assert!(channel.ended.is_none());
    }
}

#[test]
fn what_is_read_by_a_handle_before_it_is_given_is_told_of_its_file() {
    let mut channel = Channel::new();
    channel.begin();
    let ahead = [read(2, b"h", 0, 9), read(3, b"h", 9, 9), read(4, b"other", 0, 9)].concat();
    channel.client(&[open_file(1, "/f", open::READ), ahead].concat());
    channel.target(&[handle(1, b"h"), data(2, b"123456789"), data(3, b"abc"), status(4, 4, "")].concat());
    channel.both(&close(5, b"h"), &status(5, 0, ""));
    let completed = channel.completed();
    let read_of_it = completed.read.unwrap();
    assert_eq!(completed.path.to_text(), "/f");
    assert_eq!((read_of_it.bytes, read_of_it.partial), (12, false));
    assert_eq!(read_of_it.sha256, sha256(b"123456789abc"));

    // No file has the handle: what comes is nobody's.
    channel.client(&[open_file(6, "/g", open::READ), read(7, b"h", 0, 9)].concat());
    channel.target(&[handle(6, b"i"), data(7, b"123")].concat());
    assert!(channel.lost().contains("data of a file that isn't open"));
    channel.client(&named(kind::STAT, 8, &["/x"]));
    assert!(channel.ended.is_some());
}

/// paramiko's thread that reads ahead goes on when its file is closed, and OpenSSH gives its handle to the next one.
#[test]
fn reading_ahead_behind_a_close_goes_on_and_is_told_of_the_file_that_it_hits() {
    let mut channel = opened(open::READ);
    channel.both(&read(2, b"h", 0, 3), &data(2, b"abc"));
    channel.client(&close(3, b"h"));
    channel.client(&read(4, b"h", 3, 3));
    channel.target(&[status(3, 0, ""), status(4, 4, "Failure")].concat());
    let of_first = channel.completed().read.unwrap();
    assert_eq!((of_first.bytes, of_first.sha256), (3, sha256(b"abc")));

    channel.client(&open_file(5, "/b", open::READ));
    channel.client(&read(6, b"h", 6, 3));
    channel.target(&[handle(5, b"h"), data(6, b"789")].concat());
    channel.both(&read(7, b"h", 0, 3), &data(7, b"123"));
    channel.both(&close(8, b"h"), &status(8, 0, ""));
    let completed = channel.completed();
    let of_second = completed.read.unwrap();
    assert_eq!(completed.path.to_text(), "/b");
    assert_eq!((of_second.bytes, of_second.partial, of_second.sha256), (6, true, None));

    // One that came too early is no failure of the file that has the handle now.
    channel.client(&open_file(9, "/c", open::READ));
    channel.client(&read(10, b"h", 9, 3));
    channel.target(&[status(10, 4, "Failure"), handle(9, b"h")].concat());
    channel.both(&close(11, b"h"), &status(11, 0, ""));
    assert_eq!(channel.completed().path.to_text(), "/c");
    assert!(channel.ended.is_none());
}

#[test]
fn handles_that_are_read_by_before_they_are_given_are_bounded() {
    let mut channel = Channel::new();
    channel.begin();
    let reads = |id: u32| read(id, &id.to_be_bytes(), 0, 9);
    // One file after the other: what wasn't given then never will be.
    for n in (1..200).step_by(3) {
        channel.client(&[open_file(n, "/f", open::READ), reads(n + 1), reads(n + 2)].concat());
        channel.target(&[status(n, 2, ""), status(n + 1, 4, ""), status(n + 2, 4, "")].concat());
        assert!(channel.ended.is_none());
    }
    channel.client(&open_file(1_000, "/f", open::READ));
    for n in 1_001..1_100 {
        channel.client(&reads(n));
    }
    assert!(channel.ended.take().unwrap().contains(GUESSED));
}

/// A handle whose close isn't answered takes room once, and no longer than that.
#[test]
fn handles_that_are_given_again_at_once_take_no_room_for_ever() {
    let long = [7; packet::HANDLE_BYTES_MAX];
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "/a", open::READ), &handle(1, &long));
    for _ in 0..2 * requests::HANDLES_BYTES_MAX / packet::HANDLE_BYTES_MAX {
        channel.client(&[close(2, &long), open_file(3, "/a", open::READ)].concat());
        channel.target(&[handle(3, &long), status(2, 0, "")].concat());
        assert_eq!(channel.completed().read.unwrap().sha256, sha256(b""));
    }
    assert_eq!(channel.sftp.requests.opened.len(), 1);
    assert!(!channel.sftp.requests.unfollowed);
}

/// So many files are open that one of them isn't followed, and there is room for one again.
fn crowded() -> Channel {
    let mut channel = Channel::new();
    channel.begin();
    for n in 0..=u32::try_from(requests::OPEN_MAX).unwrap() {
        assert!(!channel.sftp.requests.unfollowed);
        channel.both(&open_file(n + 1, "/a", open::READ), &handle(n + 1, &n.to_be_bytes()));
    }
    channel.both(&close(9_000, &[0; 4]), &status(9_000, 0, ""));
    assert!(channel.sftp.requests.unfollowed);
    assert_eq!(channel.told().len(), 2);
    channel
}

/// A handle that isn't known may be one of those that aren't followed.
#[test]
fn where_handles_are_not_followed_no_file_is_said_to_be_told_whole() {
    let mut channel = crowded();
    let uses = [read(9_002, b"x", 0, 9), write(9_003, b"x", 0, b"abc")].concat();
    channel.client(&[open_file(9_001, "/f", open::READ | open::WRITE), uses].concat());
    channel.target(&[handle(9_001, b"x"), data(9_002, &[1; 9]), status(9_003, 0, "")].concat());
    channel.both(&close(9_004, b"x"), &status(9_004, 0, ""));
    let completed = channel.completed();
    for moved in [completed.read.unwrap(), completed.written.unwrap()] {
        assert!(moved.partial && moved.sha256.is_none(), "{moved:?}");
    }
    assert!(channel.ended.is_none());
}

#[test]
fn where_handles_are_not_followed_one_that_is_closed_before_it_is_given_stands_for_no_file() {
    let mut channel = crowded();
    channel.client(&[open_file(9_001, "/up/a", open::READ), close(9_002, b"x")].concat());
    channel.target(&[handle(9_001, b"x"), status(9_002, 0, "")].concat());
    assert_eq!(channel.completed().read, None);
    channel.client(&[open_file(9_003, "/conf", open::READ), set_mode(9_004, b"x")].concat());
    assert_eq!(last_rights(&channel), [(Right::Write, unknown())]);
    assert!(channel.ended.is_none());
}

/// Whoever may have an extension that isn't known may have one that opens something.
#[test]
fn a_handle_that_an_unknown_extension_gave_is_not_followed() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&extended(1, "open-by-number@example.com", &[]), &handle(1, b"x"));
    channel.client(&[open_file(2, "/f", open::WRITE), write(3, b"x", 0, b"abc")].concat());
    channel.target(&[handle(2, b"h"), status(3, 0, "")].concat());
    channel.both(&close(4, b"h"), &status(4, 0, ""));
    let written = channel.completed().written.unwrap();
    assert!(channel.ended.is_none() && written.partial && written.sha256.is_none());
}

/// The target moves that by itself.
#[test]
fn what_was_copied_from_or_to_is_not_said_to_be_told_whole() {
    let mut channel = opened(open::READ | open::WRITE);
    channel.both(&open_file(2, "/out", open::READ | open::WRITE), &handle(2, b"o"));
    channel.both(&copy(3, b"h", b"o"), &status(3, 0, ""));
    channel.told();
    channel.both(&close(4, b"o"), &status(4, 0, ""));
    let out = channel.completed();
    let (read, written) = (out.read.unwrap(), out.written.unwrap());
    assert!(written.partial && written.sha256.is_none() && !read.partial);
    channel.both(&close(5, b"h"), &status(5, 0, ""));
    let from = channel.completed();
    let (read, written) = (from.read.unwrap(), from.written.unwrap());
    assert!(read.partial && read.sha256.is_none() && !written.partial);
}

/// OpenSSH opens for reading what isn't opened to write, whatever is to become of it first.
#[test]
fn what_is_not_opened_to_write_can_be_read() {
    for flags in [0, open::APPEND, open::CREATE, open::TRUNCATE, open::APPEND | open::TRUNCATE] {
        let mut channel = Channel::new();
        channel.begin();
        channel.client(&open_file(1, "/f", flags));
        assert!(last_rights(&channel).iter().any(|(right, _)| *right == Right::Read), "{flags}");
    }
}
