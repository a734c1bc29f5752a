//! What follows sftp and scp between a client and a target that may both be hostile.

use custody_core::event::EventId;
use custody_core::event::command::Kind;
use custody_proxy::session::files::{Decided, Denied, Files, Says, Seen};

/// An input: the first byte says which program and what is decided, then pieces, each behind a byte with its length
/// (0 to 127) and whether the target says it.
///
/// Whatever both say: without denials the target hears just what the client said, in its order, but for what still waits
/// for the rest of a packet and what ended the channel; the client hears just what the target said; and each wanted thing
/// has one end.
pub fn files(bytes: &[u8]) {
    let Some((&which, mut rest)) = bytes.split_first() else { return };
    let (kind, command): (Kind, &[u8]) = match which % 4 {
        0 => (Kind::Exec, b"scp -t /tmp"),
        1 => (Kind::Exec, b"scp -r -p -f /tmp/a"),
        _ => (Kind::Subsystem, b"sftp"),
    };
    let denies = which & 0x10 != 0;
    let Some(mut files) = Files::of_program(1, kind, command, false) else { return };
    let (mut said, mut passed, mut requested, mut told) = (Vec::new(), Vec::new(), 0, 0);
    while let Some((&head, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(usize::from(head & 0x7f).min(behind.len()));
        rest = behind;
        if head & 0x80 != 0 {
            if let Some((instead, added)) = files.target(piece) {
                assert_eq!(instead.len(), piece.len() + added as usize, "what the target says passes");
            }
        } else {
            said.extend_from_slice(piece);
            match files.client(piece) {
                Seen::Passes => passed.extend_from_slice(piece),
                Seen::Instead(instead) => passed.extend(instead),
                Seen::Wants(wanted) => {
                    assert!(!wanted.is_empty());
                    requested +=
                        wanted.iter().filter(|wanted| matches!(wanted.says, Says::Requested(_))).count();
                    let verdict =
                        || if denies { Err(Denied::Policy("no".to_owned())) } else { Ok(EventId::new()) };
                    match files.decided(wanted.iter().map(|_| verdict()).collect()) {
                        Decided::Pass { data, given_back, .. } => {
                            assert!(denies || given_back == 0);
                            passed.extend(data);
                        }
                        Decided::End(_) => break,
                    }
                }
                Seen::Ends(_) => break,
            }
            if files.answers().is_some() {
                files.answered();
            }
        }
        assert!(denies || said.starts_with(&passed), "nothing is changed on its way");
        told += files.take_told().len();
    }
    told += files.end().len();
    assert!(denies || kind == Kind::Exec || told >= requested, "{told} ends of {requested}");
}

fn piece(target: bool, bytes: &[u8]) -> Vec<u8> {
    let chunks = bytes.chunks(100);
    chunks
        .flat_map(|chunk| {
            let head = u8::try_from(chunk.len()).unwrap() | if target { 0x80 } else { 0 };
            [&[head], chunk].concat()
        })
        .collect()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn packet(kind: u8, id: u32, parts: &[&[u8]]) -> Vec<u8> {
    string(&[[kind].as_slice(), &id.to_be_bytes(), &parts.concat()].concat())
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (init, version) = (string(&[1, 0, 0, 0, 3]), string(&[2, 0, 0, 0, 3]));
    let attributes = [0; 4];
    let handle = |id, name: &[u8]| packet(102, id, &[&string(name)]);
    let status = |id, code: u32| packet(101, id, &[&code.to_be_bytes(), &string(b""), &string(b"")]);
    let upload = [
        piece(false, &init),
        piece(true, &version),
        piece(false, &packet(3, 1, &[&string(b"/tmp/a"), &0x1a_u32.to_be_bytes(), &attributes])),
        piece(true, &handle(1, b"h")),
        piece(false, &packet(6, 2, &[&string(b"h"), &0_u64.to_be_bytes(), &string(&[7; 150])])),
        piece(true, &status(2, 0)),
        piece(false, &packet(4, 3, &[&string(b"h")])),
        piece(true, &status(3, 0)),
        piece(false, &packet(18, 4, &[&string(b"/tmp/a"), &string(b"../b")])),
        piece(true, &status(4, 3)),
        piece(
            false,
            &packet(200, 5, &[&string(b"posix-rename@openssh.com"), &string(b"/a"), &string(b"/b")]),
        ),
        piece(true, &status(5, 0)),
    ]
    .concat();
    let download = [
        piece(false, &init),
        piece(true, &version),
        piece(false, &packet(3, 1, &[&string(b"b"), &1_u32.to_be_bytes(), &attributes])),
        piece(true, &handle(1, b"h")),
        piece(false, &packet(5, 2, &[&string(b"h"), &0_u64.to_be_bytes(), &64_u32.to_be_bytes()])),
        piece(true, &packet(103, 2, &[&string(&[9; 64])])),
        piece(false, &packet(4, 3, &[&string(b"h")])),
        piece(true, &status(3, 0)),
    ]
    .concat();
    let to = [
        piece(true, b"\0"),
        piece(false, b"T1700000000 0 1700000000 0\nC0644 5 name\n"),
        piece(true, b"\0\0"),
        piece(false, b"hello\0D0755 0 folder\nE\n"),
        piece(true, b"\0\0\0"),
    ]
    .concat();
    let from = [
        piece(false, b"\0"),
        piece(true, b"D0755 0 folder\nC0644 5 name\n"),
        piece(false, b"\0\0"),
        piece(true, b"hello\0E\n"),
        piece(false, b"\0\0"),
    ]
    .concat();
    [(2, &upload), (2, &download), (0x12, &upload), (0x12, &download), (0, &to), (1, &from)]
        .map(|(which, said)| [&[which], said.as_slice()].concat())
        .to_vec()
}
