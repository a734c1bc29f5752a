mod handles;
mod ids;
mod lost;
mod names;
mod sizes;

use super::super::sftp_packet::open;
use super::*;
use custody_core::event::file::{Completed, Failed, Operation};
use custody_core::event::hex::to_hex;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    string(&[&[kind], parts.concat().as_slice()].concat())
}

/// A request with an id.
fn ask(kind: u8, id: u32, parts: &[&[u8]]) -> Vec<u8> {
    packet(kind, &[&[id.to_be_bytes().as_slice()], parts].concat())
}

const NO_ATTRS: [u8; 4] = [0; 4];

fn open_file(id: u32, path: &str, flags: u32) -> Vec<u8> {
    ask(kind::OPEN, id, &[&string(path.as_bytes()), &flags.to_be_bytes(), &NO_ATTRS])
}

fn read(id: u32, handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    ask(kind::READ, id, &[&string(handle), &offset.to_be_bytes(), &length.to_be_bytes()])
}

fn write(id: u32, handle: &[u8], offset: u64, data: &[u8]) -> Vec<u8> {
    ask(kind::WRITE, id, &[&string(handle), &offset.to_be_bytes(), &string(data)])
}

fn close(id: u32, handle: &[u8]) -> Vec<u8> {
    ask(kind::CLOSE, id, &[&string(handle)])
}

fn named(kind: u8, id: u32, names: &[&str]) -> Vec<u8> {
    let names: Vec<Vec<u8>> = names.iter().map(|name| string(name.as_bytes())).collect();
    ask(kind, id, &names.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn extended(id: u32, name: &str, names: &[&str]) -> Vec<u8> {
    named(kind::EXTENDED, id, &[&[name], names].concat())
}

fn status(id: u32, code: u32, text: &str) -> Vec<u8> {
    ask(kind::STATUS, id, &[&code.to_be_bytes(), &string(text.as_bytes()), &string(b"")])
}

fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    ask(kind::HANDLE, id, &[&string(handle)])
}

fn data(id: u32, data: &[u8]) -> Vec<u8> {
    ask(kind::DATA, id, &[&string(data)])
}

fn names(id: u32, names: &[&str]) -> Vec<u8> {
    let mut parts = vec![u32::try_from(names.len()).unwrap().to_be_bytes().to_vec()];
    for name in names {
        parts.extend([string(name.as_bytes()), string(b"-rw-r--r--"), NO_ATTRS.to_vec()]);
    }
    ask(kind::NAME, id, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn id_of(count: usize) -> EventId {
    EventId(uuid::Uuid::from_u128(count as u128))
}

/// A channel whose wishes are granted, or not.
struct Channel {
    sftp: Sftp,
    wanted: Vec<Wanted>,
    to_target: Vec<u8>,
    to_client: Vec<u8>,
    given_back: u32,
    ended: Option<String>,
    deny: fn(&Wanted) -> bool,
}

impl Channel {
    fn new() -> Self {
        Self::denying(|_| false)
    }

    fn denying(deny: fn(&Wanted) -> bool) -> Self {
        Self {
            sftp: Sftp::new(3),
            wanted: vec![],
            to_target: vec![],
            to_client: vec![],
            given_back: 0,
            ended: None,
            deny,
        }
    }

    fn client(&mut self, bytes: &[u8]) {
        match self.sftp.client(bytes) {
            Seen::Passes => self.to_target.extend_from_slice(bytes),
            Seen::Instead(instead) => self.to_target.extend(instead),
            Seen::Wants(wanted) => {
                let mut verdicts = Vec::new();
                for want in wanted {
                    let denied = (self.deny)(&want);
                    self.wanted.push(want);
                    let id = id_of(self.wanted.len());
                    verdicts.push(if denied { Err(Denied::Policy("no".into())) } else { Ok(id) });
                }
                match self.sftp.decided(verdicts) {
                    Decided::Pass { data, given_back, .. } => {
                        self.to_target.extend(data);
                        self.given_back += given_back;
                    }
                    Decided::End(line) => self.ended = Some(line),
                }
            }
            Seen::Ends(line) => self.ended = Some(line),
        }
        self.answer();
    }

    fn target(&mut self, bytes: &[u8]) {
        match self.sftp.target(bytes) {
            None => self.to_client.extend_from_slice(bytes),
            Some((instead, _)) => self.to_client.extend(instead),
        }
        self.answer();
    }

    fn answer(&mut self) {
        if let Some(answers) = self.sftp.answers() {
            self.to_client.extend_from_slice(answers);
            self.sftp.answered();
        }
    }

    /// A request and its answer.
    fn both(&mut self, request: &[u8], answer: &[u8]) {
        self.client(request);
        self.target(answer);
    }

    fn told(&mut self) -> Vec<Told> {
        self.sftp.take_told()
    }

    fn one(&mut self) -> Told {
        let mut told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        told.pop().unwrap()
    }

    fn completed(&mut self) -> Completed {
        match self.one() {
            Told { outcome: Outcome::Completed(completed), cause: Some(_) } => completed,
            other => panic!("{other:?}"),
        }
    }

    fn failed(&mut self) -> Failed {
        match self.one() {
            Told { outcome: Outcome::Failed(failed), cause: Some(_) } => failed,
            other => panic!("{other:?}"),
        }
    }

    /// What it was told that isn't understood: that is the end.
    fn lost(&mut self) -> String {
        let told = self.told().pop();
        match told {
            Some(Told { outcome: Outcome::Unparsed(unparsed), cause: None }) => unparsed.reason,
            other => panic!("{other:?}"),
        }
    }

    fn requested(&self) -> Vec<(Operation, String)> {
        let requested = self.wanted.iter().filter_map(|wanted| match &wanted.says {
            Says::Requested(requested) => Some((requested.operation, requested.path.to_text())),
            Says::Unparsed(_) => None,
        });
        requested.collect()
    }

    fn unparsed(&self) -> Vec<String> {
        let unparsed = self.wanted.iter().filter_map(|wanted| match &wanted.says {
            Says::Requested(_) => None,
            Says::Unparsed(unparsed) => Some(unparsed.reason.clone()),
        });
        unparsed.collect()
    }

    fn begin(&mut self) {
        self.both(
            &packet(kind::INIT, &[&3u32.to_be_bytes()]),
            &packet(kind::VERSION, &[&3u32.to_be_bytes()]),
        );
        self.both(&named(kind::REALPATH, 0, &["."]), &names(0, &["/root"]));
    }
}

fn sha256(bytes: &[u8]) -> Option<String> {
    Some(to_hex(&Sha256::digest(bytes)))
}

#[test]
fn an_upload_is_one_event_with_the_hash_of_the_whole() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "a b", open::WRITE | open::CREATE), &handle(1, b"\0\0\0\0"));
    assert_eq!(channel.requested(), [(Operation::Write, "/root/a b".to_owned())]);
    for n in 0..4u32 {
        channel.client(&write(10 + n, b"\0\0\0\0", u64::from(n) * 3, b"abc"));
    }
    for n in 0..4 {
        channel.target(&status(10 + n, 0, ""));
    }
    channel.both(&close(20, b"\0\0\0\0"), &status(20, 0, ""));
    let completed = channel.completed();
    let written = completed.written.unwrap();
    assert_eq!((written.bytes, written.partial, written.sha256), (12, false, sha256(b"abcabcabcabc")));
    assert_eq!((completed.read, completed.path.to_text().as_str()), (None, "/root/a b"));
}

/// pkg/sftp sends its whole buffer with each WRITE; what stands behind the data isn't the file's.
#[test]
fn what_stands_behind_the_data_of_a_write_is_passed_over() {
    let head = [&string(b"h") as &[u8], &0_u64.to_be_bytes(), &string(b"data")].concat();
    let long = ask(kind::WRITE, 2, &[&head, b"behind"]);
    for cut in 0..long.len() {
        let mut channel = Channel::new();
        channel.begin();
        channel.both(&open_file(1, "/f", open::WRITE | open::CREATE), &handle(1, b"h"));
        let (first, rest) = long.split_at(cut);
        channel.client(first);
        channel.both(rest, &status(2, 0, ""));
        channel.both(&write(3, b"h", 4, b" more"), &status(3, 0, ""));
        channel.both(&close(4, b"h"), &status(4, 0, ""));
        let written = channel.completed().written.unwrap();
        assert_eq!((written.bytes, written.sha256, written.partial), (9, sha256(b"data more"), false));
        assert!(channel.unparsed().is_empty());
    }
}

#[test]
fn a_download_in_pieces_that_come_in_another_order_has_its_hash() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "/etc/hostname", open::READ), &handle(1, b"h"));
    channel.client(&[read(2, b"h", 0, 3), read(3, b"h", 3, 3), read(4, b"h", 6, 3)].concat());
    channel.target(&[data(3, b"def"), data(2, b"abc"), status(4, 1, "End of file")].concat());
    channel.both(&close(5, b"h"), &status(5, 0, ""));
    let read = channel.completed().read.unwrap();
    assert_eq!((read.bytes, read.partial, read.sha256), (6, false, sha256(b"abcdef")));
}

#[test]
fn failures_carry_the_targets_status() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "missing", open::READ), &status(1, 2, "No such file"));
    let failed = channel.failed();
    assert_eq!((failed.status, failed.reason.to_text().as_str()), (Some(2), "No such file"));
    assert_eq!(failed.path.to_text(), "/root/missing");
    channel.both(&named(kind::REMOVE, 2, &["/x"]), &status(2, 3, ""));
    assert_eq!(channel.failed().reason.to_text(), "permission denied");
    // A write that fails is told at the close, whatever that says.
    channel.both(&open_file(3, "/full", open::WRITE), &handle(3, b"h"));
    channel.both(&write(4, b"h", 0, b"abc"), &status(4, 4, "Failure"));
    channel.both(&close(5, b"h"), &status(5, 0, ""));
    let failed = channel.failed();
    assert_eq!((failed.status, failed.written.unwrap().bytes), (Some(4), 3));
}

#[test]
fn every_change_of_a_name_is_told_with_both_names() {
    let mut channel = Channel::new();
    channel.begin();
    // The request; operation, path, the other path, and how many rights it takes.
    let table = vec![
        (named(kind::RENAME, 1, &["a", "b c"]), Operation::Rename, "/root/a", Some("/root/b c"), 2),
        (extended(2, "posix-rename@openssh.com", &["/a", "/b"]), Operation::Rename, "/a", Some("/b"), 2),
        (named(kind::SYMLINK, 3, &["../to", "link"]), Operation::Symlink, "/root/link", Some("../to"), 2),
        (extended(4, "hardlink@openssh.com", &["/a", "/b"]), Operation::Hardlink, "/a", Some("/b"), 2),
        (named(kind::REMOVE, 5, &["/a/../c"]), Operation::Remove, "/c", None, 1),
        (named(kind::RMDIR, 6, &["/d"]), Operation::Rmdir, "/d", None, 1),
        (ask(kind::MKDIR, 7, &[&string(b"/d"), &NO_ATTRS]), Operation::Mkdir, "/d", None, 1),
        (
            ask(kind::SETSTAT, 8, &[&string(b"/f"), &4u32.to_be_bytes(), &0o100_640u32.to_be_bytes()]),
            Operation::SetAttributes,
            "/f",
            None,
            1,
        ),
    ];
    for (n, (request, operation, path, to, rights)) in table.into_iter().enumerate() {
        channel.both(&request, &status(u32::try_from(n).unwrap() + 1, 0, ""));
        let completed = channel.completed();
        assert_eq!(completed.operation, operation);
        assert_eq!(completed.path.to_text(), path);
        assert_eq!(completed.to.map(|to| to.to_text()).as_deref(), to);
        assert_eq!(channel.wanted.last().unwrap().rights.len(), rights);
    }
    assert_eq!(channel.wanted.last().unwrap().rights[0].0, Right::Write);
}

#[test]
fn attributes_by_a_handle_and_copies_are_told_by_the_paths() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "/from", open::READ), &handle(1, b"f"));
    channel.both(&open_file(2, "/to", open::WRITE), &handle(2, b"t"));
    channel.both(&ask(kind::FSETSTAT, 3, &[&string(b"t"), &1u32.to_be_bytes(), &0u64.to_be_bytes()]), &[]);
    assert_eq!(channel.requested()[2], (Operation::SetAttributes, "/to".to_owned()));
    let numbers = [0u64, 0].map(u64::to_be_bytes).concat();
    let copy = [string(b"copy-data"), string(b"f"), numbers, string(b"t"), 0u64.to_be_bytes().to_vec()];
    channel.client(&ask(kind::EXTENDED, 4, &[&copy.concat()]));
    assert_eq!(channel.requested()[3], (Operation::Copy, "/from".to_owned()));
    channel.target(&status(3, 0, ""));
    channel.target(&status(4, 0, ""));
    assert_eq!(channel.told().len(), 2);
}

#[test]
fn a_listing_is_one_event_and_says_how_many() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&named(kind::OPENDIR, 1, &["/srv"]), &handle(1, b"d"));
    channel.both(&ask(kind::READDIR, 2, &[&string(b"d")]), &names(2, &["a", "b", "."]));
    channel.both(&ask(kind::READDIR, 3, &[&string(b"d")]), &status(3, 1, "End of file"));
    channel.both(&close(4, b"d"), &status(4, 0, ""));
    assert_eq!(channel.completed().entries, Some(3));
}

#[test]
fn what_is_unfinished_at_the_end_is_said_to_be() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "/a", open::WRITE), &handle(1, b"h"));
    channel.client(&write(2, b"h", 0, b"abc"));
    channel.client(&named(kind::REMOVE, 3, &["/b"]));
    let told = channel.sftp.end();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|told| matches!(told.outcome, Outcome::Failed(_))), "{told:?}");
}

#[test]
fn a_denied_request_is_answered_in_its_targets_place_between_packets() {
    let mut channel = Channel::denying(
        |wanted| matches!(&wanted.says, Says::Requested(requested) if requested.path.to_text() == "/no"),
    );
    channel.begin();
    channel.both(&open_file(1, "/yes", open::READ), &handle(1, b"h"));
    channel.client(&read(2, b"h", 0, 100));
    let answer = data(2, &[7; 100]);
    let (before, after) = answer.split_at(50);
    channel.to_client.clear();
    channel.to_target.clear();
    channel.target(before);
    // In the middle of the target's answer: it must wait.
    let denied = open_file(3, "/no", open::WRITE);
    let stat = named(kind::STAT, 4, &["/x"]);
    channel.client(&[denied.clone(), stat.clone()].concat());
    assert_eq!(channel.to_target, stat);
    assert_eq!(channel.given_back as usize, denied.len());
    assert_eq!(channel.to_client, before);
    channel.target(&[after, &status(4, 2, "no")].concat());
    let refusal = packet::refusal(3, packet::status::PERMISSION_DENIED, "custody: denied: no");
    assert_eq!(channel.to_client, [answer, refusal, status(4, 2, "no")].concat());
    assert!(channel.told().is_empty());
    // Its id may be used again.
    channel.both(&open_file(3, "/yes", open::READ), &status(3, 2, ""));
    assert_eq!(channel.failed().status, Some(2));
}

#[test]
fn a_request_that_comes_in_pieces_reaches_the_target_whole_or_not_at_all() {
    let mut channel = Channel::denying(|_| true);
    channel.begin();
    channel.to_target.clear();
    for byte in named(kind::REMOVE, 1, &["/etc/passwd"]) {
        channel.client(&[byte]);
        assert!(channel.to_target.is_empty());
    }
    assert!(channel.to_client.ends_with(&packet::refusal(1, 3, "custody: denied: no")));
}

#[test]
fn an_unknown_extension_is_said_once_and_needs_all_rights() {
    let mut channel = Channel::new();
    channel.begin();
    for id in 1..4 {
        channel.both(&extended(id, "brew-coffee@example.com", &["strong"]), &status(id, 8, ""));
    }
    assert_eq!(channel.unparsed(), ["the extension brew-coffee@example.com isn't known"]);
    let anything = Path { bytes: vec![], relative: true };
    assert_eq!(channel.wanted[0].rights, [(Right::Read, anything.clone()), (Right::Write, anything)]);
    channel.both(&open_file(9, "/a", open::READ), &status(9, 2, ""));
    assert_eq!(channel.failed().status, Some(2));
    let mut channel = Channel::denying(|_| true);
    channel.begin();
    channel.client(&extended(1, "brew-coffee@example.com", &["strong"]));
    assert!(channel.to_client.ends_with(&packet::refusal(1, 3, "custody: denied: no")));
}

#[test]
fn many_handles_and_requests_are_bounded() {
    let mut channel = Channel::new();
    channel.begin();
    for n in 0..10_000u32 {
        channel.both(&open_file(n + 1, "/a", open::READ), &handle(n + 1, &n.to_be_bytes()));
    }
    assert_eq!(channel.sftp.requests.opened.len(), requests::OPEN_MAX);
    assert_eq!(channel.told().len(), 10_000 - requests::OPEN_MAX);
    for n in 0..100_000u32 {
        channel.client(&read(20_000 + n, &[0; 4], u64::from(n) * 10, 10));
    }
    assert_eq!(channel.sftp.requests.awaited.len(), requests::AWAITED_MAX);
    for n in 0..100_000u32 {
        channel.target(&data(20_000 + n, &[1; 10]));
    }
    channel.both(&close(1, &[0; 4]), &status(1, 0, ""));
    let read = channel.completed().read.unwrap();
    assert!(read.partial && read.sha256.is_none());
    assert_eq!(channel.sftp.end().len(), requests::OPEN_MAX - 1);
}

/// A conversation that has a bit of everything: what each side says, in turns.
fn conversation() -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = b"all work and no play ".repeat(9);
    vec![
        (packet(kind::INIT, &[&3u32.to_be_bytes()]), packet(kind::VERSION, &[&3u32.to_be_bytes()])),
        (named(kind::REALPATH, 0, &["."]), names(0, &["/root"])),
        (open_file(1, "a", open::WRITE | open::CREATE), handle(1, b"h1")),
        (
            [write(2, b"h1", 0, &text), write(3, b"h1", text.len() as u64, &text)].concat(),
            [status(2, 0, ""), status(3, 0, "")].concat(),
        ),
        (
            [close(4, b"h1"), named(kind::RENAME, 5, &["a", "b"])].concat(),
            [status(4, 0, ""), status(5, 0, "")].concat(),
        ),
        (open_file(6, "b", open::READ), handle(6, b"h2")),
        (
            [read(7, b"h2", 0, 50), read(8, b"h2", 50, 50)].concat(),
            [data(7, &text[..50]), data(8, &text[50..100])].concat(),
        ),
        (
            [close(9, b"h2"), named(kind::OPENDIR, 10, &["/"])].concat(),
            [status(9, 0, ""), handle(10, b"d")].concat(),
        ),
        (ask(kind::READDIR, 11, &[&string(b"d")]), names(11, &["x", "y"])),
        (extended(12, "what@example.com", &[]), status(12, 8, "")),
        (
            [close(13, b"d"), open_file(14, "missing", open::READ)].concat(),
            [status(13, 0, ""), status(14, 2, "No such file")].concat(),
        ),
    ]
}

fn cut_at(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let (mut pieces, mut at) = (Vec::new(), 0);
    for place in places.into_iter().chain([bytes.len()]) {
        pieces.push(bytes[at..place].to_vec());
        at = place;
    }
    pieces
}

proptest! {
    /// However the streams are cut, the same passes, the same is asked for, and the same is told.
    #[test]
    fn events_are_the_same_under_any_cutting(
        cuts in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..6), prop::collection::vec(any::<prop::sample::Index>(), 0..6)), 11)
    ) {
        let mut whole = Channel::new();
        let mut pieces = Channel::new();
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        for ((request, answer), (by_client, by_target)) in conversation().iter().zip(&cuts) {
            whole.both(request, answer);
            for piece in cut_at(request, by_client) {
                pieces.client(&piece);
            }
            for piece in cut_at(answer, by_target) {
                pieces.target(&piece);
            }
            sent.extend_from_slice(request);
            answered.extend_from_slice(answer);
        }
        prop_assert_eq!(&whole.to_target, &sent);
        prop_assert_eq!(&pieces.to_target, &sent);
        prop_assert_eq!(&whole.to_client, &answered);
        prop_assert_eq!(&pieces.to_client, &answered);
        prop_assert_eq!(whole.requested(), pieces.requested());
        prop_assert_eq!(whole.unparsed(), pieces.unparsed());
        prop_assert_eq!(whole.unparsed().len(), 1);
        prop_assert_eq!(whole.told(), pieces.told());
    }

    /// Whatever comes, what is allowed passes unchanged and in its order, and nothing panics.
    #[test]
    fn no_byte_is_changed_by_garbage(
        messages in prop::collection::vec((any::<bool>(), hostile()), 0..12),
    ) {
        let mut channel = Channel::new();
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        for (by_client, bytes) in messages {
            if channel.ended.is_some() {
                break;
            }
            if by_client {
                channel.client(&bytes);
                sent.extend(bytes);
            } else {
                channel.target(&bytes);
                answered.extend(bytes);
            }
        }
        prop_assert!(sent.starts_with(&channel.to_target));
        if channel.ended.is_none() {
            prop_assert_eq!(sent.len() - channel.to_target.len(), channel.sftp.withheld.len());
        }
        prop_assert!(channel.sftp.withheld.len() <= REQUEST_BYTES_MAX + 4);
        prop_assert_eq!(channel.to_client, answered);
        channel.sftp.end();
    }

    /// A denied one is dropped whole, and each has one answer.
    #[test]
    fn what_is_denied_never_passes(messages in prop::collection::vec(hostile(), 0..12)) {
        let mut channel = Channel::denying(|_| true);
        let mut sent = 0;
        for bytes in messages {
            if channel.ended.is_none() {
                sent += bytes.len();
                channel.client(&bytes);
            }
        }
        if channel.ended.is_none() {
            let there = channel.to_target.len() + channel.sftp.withheld.len() + channel.given_back as usize;
            prop_assert_eq!(sent, there);
        }
    }
}

/// Packets that are nearly right, and what is none.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![
        1u8, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 16, 18, 20, 23, 101, 102, 103, 104, 200,
    ]);
    let nearly = (kinds, 0u32..4, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..4))
        .prop_map(|(kind, id, parts)| {
            let parts: Vec<Vec<u8>> = parts.iter().map(|part| string(part)).collect();
            ask(kind, id, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
        });
    let spoken =
        prop::sample::select(conversation().into_iter().flat_map(|(a, b)| [a, b]).collect::<Vec<_>>());
    let cut = (spoken.clone(), any::<prop::sample::Index>())
        .prop_map(|(bytes, at)| bytes[..at.index(bytes.len())].to_vec());
    prop_oneof![nearly, spoken, cut, prop::collection::vec(any::<u8>(), 0..40)]
}
