use super::*;
use custody_core::event::hex::to_hex;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// Who says what, in turns.
type Talk<'a> = &'a [(char, &'a [u8])];

fn listen(command: &str, talk: Talk<'_>) -> Vec<Told> {
    let mut scp = Scp::of_command(0, command.as_bytes()).unwrap();
    for (who, bytes) in talk {
        match who {
            'c' => scp.client(bytes),
            _ => scp.target(bytes),
        }
    }
    scp.end()
}

fn line(told: &Told) -> String {
    match &told.outcome {
        Outcome::Completed(done) => {
            let moved = done.read.as_ref().or(done.written.as_ref());
            let moved = moved.map(|moved| format!(" {} {}", moved.bytes, moved.partial)).unwrap_or_default();
            let name = done.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{:?} {}{name}{moved}", done.operation, done.path)
        }
        Outcome::Failed(failed) => {
            format!("{:?} {} failed: {}", failed.operation, failed.path, failed.reason)
        }
        Outcome::Unparsed(unparsed) => format!("unparsed: {}", unparsed.reason),
    }
}

fn lines(command: &str, talk: Talk<'_>) -> Vec<String> {
    listen(command, talk).iter().map(line).collect()
}

#[test]
fn only_servers_of_scp_are_listened_to() {
    for command in
        ["scp -t /x", "/usr/bin/scp -r -p -d -t -- '/a b'", "scp -f x", "'scp' -rf x", "scp -t x; bash"]
    {
        assert!(Scp::of_command(0, command.as_bytes()).is_some(), "{command}");
    }
    for command in ["", "scp a b", "bash -c 'scp -t x'", "scpx -t x", "rsync --server -t", ";scp -t x"] {
        assert!(Scp::of_command(0, command.as_bytes()).is_none(), "{command}");
    }
    let words = |line: &str| {
        words(line.as_bytes()).iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(words(r#"scp  -t 'a b'\ c "d\"e" '' f;g"#), ["scp", "-t", "a b c", "d\"e", "", "f"]);
}

#[test]
fn an_upload_is_told_with_its_hash() {
    let told = listen(
        "scp -d -t /srv",
        &[
            ('t', b"\0"),
            ('c', b"T1 0 1 0\n"),
            ('t', b"\0"),
            ('c', b"C0644 5 a b\n"),
            ('t', b"\0"),
            ('c', b"he"),
            ('c', b"llo\0"),
            ('t', b"\0"),
        ],
    );
    let Outcome::Completed(done) = &told[0].outcome else { panic!("{told:?}") };
    let written = done.written.as_ref().unwrap();
    assert_eq!((written.bytes, written.partial), (5, false));
    assert_eq!(written.sha256, Some(to_hex(&Sha256::digest(b"hello"))));
    assert_eq!((done.path.to_text().as_str(), done.mode.as_deref()), ("/srv/a b", Some("0644")));
    assert_eq!(told.len(), 1);
}

#[test]
fn directories_within_each_other_are_followed() {
    let talk: Talk<'_> = &[
        ('c', b"\0"),
        ('t', b"D0755 0 www\n"),
        ('c', b"\0"),
        ('t', b"D0755 0 deep\n"),
        ('c', b"\0"),
        ('t', b"C0600 0 empty\n"),
        ('c', b"\0"),
        ('t', b"\0"),
        ('c', b"\0"),
        ('t', b"E\n"),
        ('c', b"\0"),
        ('t', b"C0600 1 x\n"),
        ('c', b"\0"),
        ('t', b"y\0"),
        ('c', b"\0"),
        ('t', b"E\n"),
        ('c', b"\0"),
    ];
    assert_eq!(
        lines("scp -r -f /srv/www", talk),
        [
            "List /srv/www",
            "List /srv/www/deep",
            "Read /srv/www/deep/empty 0 false",
            "Read /srv/www/x 1 false",
        ]
    );
    // By a pattern only the target knows where they are.
    assert_eq!(lines("scp -r -f /srv/w*", talk)[3], "Read /srv/w* (www/x) 1 false");
}

#[test]
fn failures_are_told_by_whom_they_come_from() {
    assert_eq!(
        lines(
            "scp -t /ro/x",
            &[('t', b"\0"), ('c', b"C0644 5 x\n"), ('t', b"\x01scp: /ro/x: Permission denied\n")]
        ),
        ["Write /ro/x failed: scp: /ro/x: Permission denied"]
    );
    assert_eq!(
        lines("scp -f /gone", &[('c', b"\0"), ('t', b"\x01scp: /gone: No such file or directory\n")]),
        ["Read /gone failed: scp: /gone: No such file or directory"]
    );
    assert_eq!(
        lines("scp -t /x", &[('t', b"\0"), ('c', b"C0644 5 x\n"), ('t', b"\0"), ('c', b"he")]),
        ["Write /x failed: the channel ended before the file did"]
    );
    assert_eq!(
        lines(
            "scp -t /x",
            &[('t', b"\0"), ('c', b"C0644 2 x\n"), ('t', b"\0"), ('c', b"he\x01read error\n"), ('t', b"\0")]
        ),
        ["Write /x failed: read error"]
    );
}

#[test]
fn what_is_no_scp_is_said_once_and_no_more() {
    let long = vec![b'C'; LINE_BYTES_MAX * 3];
    let table: &[(Talk<'_>, &str)] = &[
        (&[('t', b"\0"), ('c', b"rm -rf /\n"), ('c', b"C0644 1 x\n")], "a line isn't one of scp's"),
        (&[('t', b"root@web:~# ")], "an answer isn't one of scp's"),
        (&[('c', b"C0644 1 x\nyy")], "something was sent before the receiver had answered"),
        (&[('c', b"C0644 99999999999999999999999 x\n")], "a line isn't one of scp's"),
        (&[('c', b"C0644 1 ../x\n")], "a line isn't one of scp's"),
        (&[('c', &long)], "a line is too long"),
    ];
    for (talk, reason) in table {
        let told = lines("scp -t /x", talk);
        assert_eq!(told.iter().filter(|line| line.starts_with("unparsed")).count(), 1, "{told:?}");
        assert_eq!(told.last().unwrap(), &format!("unparsed: {reason}"));
    }
}

proptest! {
    #[test]
    fn any_cutting_tells_the_same(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let talk: Talk<'_> = &[
            ('t', b"\0"), ('c', b"D0755 0 d\n"), ('t', b"\0"), ('c', b"C0644 5 a\n"), ('t', b"\0"), ('c', b"hello\0"),
            ('t', b"\0"), ('c', b"C0644 1 b\n"), ('t', b"\x01no\n"), ('c', b"E\n"), ('t', b"\0"),
        ];
        let mut pieces: Vec<(char, Vec<u8>)> = Vec::new();
        for (n, (who, bytes)) in talk.iter().enumerate() {
            let at = cuts.get(n % cuts.len().max(1)).map_or(0, |cut| cut.index(bytes.len() + 1));
            pieces.push((*who, bytes[..at].to_vec()));
            pieces.push((*who, bytes[at..].to_vec()));
        }
        let pieces: Vec<(char, &[u8])> = pieces.iter().map(|(who, bytes)| (*who, bytes.as_slice())).collect();
        prop_assert_eq!(lines("scp -r -t /x", &pieces), lines("scp -r -t /x", talk));
    }

    #[test]
    fn garbage_never_panics_and_is_bounded(messages in prop::collection::vec((any::<bool>(), prop_oneof![
        prop::collection::vec(any::<u8>(), 0..30),
        prop::sample::select(vec![b"\0".to_vec(), b"C0644 3 x\n".to_vec(), b"D0 0 d\n".to_vec(), b"E\n".to_vec(), b"\x01no\n".to_vec(), b"abc\0".to_vec()]),
    ]), 0..40)) {
        let mut scp = Scp::of_command(0, b"scp -t /x").unwrap();
        for (by_client, bytes) in &messages {
            if *by_client { scp.client(bytes) } else { scp.target(bytes) }
        }
        prop_assert!(scp.end().len() <= 2 * messages.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + 2);
    }
}
