use super::*;
use proptest::prelude::*;
use proptest::test_runner::Config;

/// A message that owns its bytes, to be drawn at random.
#[derive(Debug, Clone)]
struct Drawn {
    number: u8,
    name: Vec<u8>,
    a: Vec<u8>,
    b: Vec<u8>,
    c: Vec<u8>,
    n: [u32; 5],
    flag: bool,
    which: u8,
}

impl Drawn {
    fn request(&self) -> Request<'_> {
        let [n0, n1, n2, n3, _] = self.n;
        match self.which % 15 {
            0 => Request::Pty { term: &self.a, columns: n0, rows: n1, width: n2, height: n3, modes: &self.b },
            1 => Request::X11 { single: self.flag, protocol: &self.a, cookie: Cookie(&self.b), screen: n0 },
            2 => Request::Env { name: &self.a, value: &self.b },
            3 => Request::Shell,
            4 => Request::Exec { command: &self.a },
            5 => Request::Subsystem { name: &self.a },
            6 => Request::WindowChange { columns: n0, rows: n1, width: n2, height: n3 },
            7 => Request::XonXoff { client_can_do: self.flag },
            8 => Request::Signal { name: &self.a },
            9 => Request::ExitStatus { status: n0 },
            10 => Request::ExitSignal {
                name: &self.a,
                core_dumped: self.flag,
                message: &self.b,
                language: &self.c,
            },
            11 => Request::EndOfWrite,
            12 => Request::AuthAgent,
            13 => Request::KeepAlive,
            _ => Request::Other { name: &self.name, data: &self.a },
        }
    }

    fn message(&self) -> Message<'_> {
        let [recipient, sender, window, max_packet, reason] = self.n;
        match self.number {
            80 => Message::GlobalRequest { name: &self.name, want_reply: self.flag, data: &self.a },
            81 => Message::RequestSuccess { data: &self.a },
            82 => Message::RequestFailure,
            90 => Message::ChannelOpen { kind: &self.name, sender, window, max_packet, data: &self.a },
            91 => Message::ChannelOpenConfirmation { recipient, sender, window, max_packet, data: &self.a },
            92 => Message::ChannelOpenFailure { recipient, reason, description: &self.a, language: &self.b },
            93 => Message::WindowAdjust { recipient, bytes: window },
            94 => Message::Data { recipient, data: &self.a },
            95 => Message::ExtendedData { recipient, stream: reason, data: &self.a },
            96 => Message::Eof { recipient },
            97 => Message::Close { recipient },
            98 => Message::ChannelRequest { recipient, want_reply: self.flag, request: self.request() },
            99 => Message::ChannelSuccess { recipient },
            _ => Message::ChannelFailure { recipient },
        }
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    let number = prop_oneof![80u8..=82, 90u8..=100, Just(98u8)];
    let name = proptest::collection::vec(any::<u8>(), 0..=NAME_BYTES_MAX);
    (number, name, bytes(), bytes(), bytes(), any::<[u32; 5]>(), any::<bool>(), any::<u8>())
        .prop_map(|(number, name, a, b, c, n, flag, which)| Drawn { number, name, a, b, c, n, flag, which })
}

fn config() -> Config {
    Config { failure_persistence: None, cases: 2_000, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_is_read(drawn in drawn()) {
        let message = drawn.message();
        let payload = message.to_payload();
        prop_assert_eq!(Message::parse(&payload), Ok(message));
    }

    /// Every shorter payload is refused, or read as something that is written as these very bytes: no byte
    /// is invented or ignored. (An open failure without its texts is the one exception.)
    #[test]
    fn a_cut_message_is_not_completed(drawn in drawn(), cut in any::<prop::sample::Index>()) {
        let payload = drawn.message().to_payload();
        let short = &payload[..cut.index(payload.len())];
        if let Ok(message) = Message::parse(short)
            && message.number() != number::CHANNEL_OPEN_FAILURE
        {
            prop_assert_eq!(message.to_payload(), short);
        }
    }

    #[test]
    fn random_bytes_do_not_panic(number in 78u8..=102, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut payload = vec![number];
        payload.extend(body);
        if let Ok(message) = Message::parse(&payload) {
            let again = message.to_payload();
            prop_assert_eq!(Message::parse(&again), Ok(message));
        }
    }

    #[test]
    fn a_byte_behind_the_last_field_is_refused(drawn in drawn(), extra in any::<u8>()) {
        let mut payload = drawn.message().to_payload();
        payload.push(extra);
        match drawn.message() {
            // These end in bytes that belong to a type which isn't known here.
            Message::GlobalRequest { .. } | Message::RequestSuccess { .. } | Message::ChannelOpen { .. }
            | Message::ChannelOpenConfirmation { .. }
            | Message::ChannelRequest { request: Request::Other { .. }, .. } => {}
            // This one says nothing more by them.
            Message::RequestFailure => prop_assert_eq!(Message::parse(&payload), Ok(Message::RequestFailure)),
            _ => {
                let refused = matches!(Message::parse(&payload), Err(MessageError::Trailing { bytes: 1, .. }));
                prop_assert!(refused);
            }
        }
    }

    #[test]
    fn patching_changes_channel_numbers_only(drawn in drawn(), recipient: u32, sender: u32, max: u32) {
        let message = drawn.message();
        let mut payload = message.to_payload();
        let expected = match message {
            Message::ChannelOpen { kind, window, data, .. } => {
                set_open(&mut payload, kind.len(), sender, max).unwrap();
                Message::ChannelOpen { kind, sender, window, max_packet: max, data }
            }
            Message::ChannelOpenConfirmation { window, data, .. } => {
                set_confirmation(&mut payload, recipient, sender, max).unwrap();
                Message::ChannelOpenConfirmation { recipient, sender, window, max_packet: max, data }
            }
            Message::Data { data, .. } => {
                set_recipient(&mut payload, recipient).unwrap();
                Message::Data { recipient, data }
            }
            other => other,
        };
        prop_assert_eq!(Message::parse(&payload), Ok(expected));
    }
}

/// Bytes as RFC 4254 lays them out, written by hand.
#[test]
fn known_bytes() {
    let exec = b"\x62\0\0\0\x07\0\0\0\x04exec\x01\0\0\0\x03l\xff\n";
    assert_eq!(
        Message::parse(exec),
        Ok(Message::ChannelRequest {
            recipient: 7,
            want_reply: true,
            request: Request::Exec { command: b"l\xff\n" }
        })
    );
    let eow = b"\x62\0\0\0\x01\0\0\0\x0feow@openssh.com\0";
    assert_eq!(
        Message::parse(eow),
        Ok(Message::ChannelRequest { recipient: 1, want_reply: false, request: Request::EndOfWrite })
    );
    let open = b"\x5a\0\0\0\x07session\0\0\0\x02\0\x20\0\0\0\0\x80\0";
    assert_eq!(
        Message::parse(open),
        Ok(Message::ChannelOpen {
            kind: b"session",
            sender: 2,
            window: 0x0020_0000,
            max_packet: 0x8000,
            data: b""
        })
    );
    assert_eq!(Message::parse(b"\x5f\0\0\0\x05\0\0\0\x01\0\0\0\x02hi").unwrap().window_bytes(), 2);
}

#[test]
fn refusals_name_what_is_wrong() {
    assert_eq!(Message::parse(b""), Err(MessageError::Empty));
    assert_eq!(Message::parse(b"\x53"), Err(MessageError::UnknownNumber(83)));
    assert_eq!(
        Message::parse(b"\x5e\0\0\0\x01\0\0\0\x09short"),
        Err(MessageError::Truncated { message: "CHANNEL_DATA", field: "data" })
    );
    // An exec whose command is followed by more: sshd would read it otherwise than we do.
    assert_eq!(
        Message::parse(b"\x62\0\0\0\0\0\0\0\x04exec\0\0\0\0\x01l;"),
        Err(MessageError::Trailing { message: "exec", bytes: 1 })
    );
    let long = Message::ChannelOpen { kind: &[b'x'; 65], sender: 0, window: 0, max_packet: 0, data: b"" };
    assert_eq!(
        Message::parse(&long.to_payload()),
        Err(MessageError::NameTooLong { message: "CHANNEL_OPEN", bytes: 65 })
    );
    // Go's servers say why, where the RFC has no room for it.
    assert_eq!(Message::parse(b"\x52no forwarding here"), Ok(Message::RequestFailure));
    // Old servers leave out description and language.
    assert!(Message::parse(b"\x5c\0\0\0\x01\0\0\0\x02").is_ok());
}

#[test]
fn a_cookie_is_not_printed() {
    let request = Request::X11 { single: false, protocol: b"MIT", cookie: Cookie(b"secret"), screen: 0 };
    let printed = format!("{request:?}");
    let bytes = format!("{:?}", b"secret");
    assert!(!printed.contains("secret") && !printed.contains(&bytes), "{printed}");
}
