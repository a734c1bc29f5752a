//! What is known of one session channel: its terminal, its program, and what that came to.

use crate::session::files::Files;
use custody_core::event::command::{self, Variable};
use custody_core::event::hex::to_hex;
use custody_core::event::{ByteString, EventId};
use custody_core::recording::{Cut, Direction, HASHED_BYTES_MIN};
use sha2::{Digest as _, Sha256};

/// Longest name or value of a variable that is kept, in bytes.
const VARIABLE_BYTES_MAX: usize = 512;
/// Variables whose values can't be secrets: those of the terminal and of the locale (locale(7), and gettext's LANGUAGE). By
/// their whole names: an sshd takes whatever begins with LC_, so people call all sorts of things that.
const PLAIN_VARIABLES: [&[u8]; 16] = [
    b"TERM",
    b"LANG",
    b"LANGUAGE",
    b"LC_ALL",
    b"LC_ADDRESS",
    b"LC_COLLATE",
    b"LC_CTYPE",
    b"LC_IDENTIFICATION",
    b"LC_MEASUREMENT",
    b"LC_MESSAGES",
    b"LC_MONETARY",
    b"LC_NAME",
    b"LC_NUMERIC",
    b"LC_PAPER",
    b"LC_TELEPHONE",
    b"LC_TIME",
];

/// See the module.
#[derive(Default)]
pub(super) struct Program {
    pub terminal: Terminal,
    pub environment: Vec<Variable>,
    /// Whether a program was asked for.
    pub asked: bool,
    /// Whether data came before one was.
    pub early: bool,
    pub running: Option<EventId>,
    pub exit_status: Option<u32>,
    pub signal: Option<ByteString>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub bytes_err: u64,
    /// What a command was sent.
    pub input: Option<Sha256>,
    pub files: Option<Files>,
    /// Whether nothing but files passes, which are told one by one.
    pub is_sftp: bool,
    pub denied_lines: usize,
    /// Whether the client's request that waits for its decision wants a reply.
    pub held_wants_reply: bool,
    /// How many replies the target owes the client.
    replies: usize,
    /// How many of those come before the one about the terminal, if that is owed.
    before_terminal: Option<usize>,
}

/// A channel's terminal, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Terminal {
    /// None was asked for, or the target gives none.
    #[default]
    None,
    /// One was asked for.
    Asked,
    /// The target gave one, or was asked for one and not for an answer.
    Given,
}

impl Program {
    /// A request of the client's goes to the target.
    pub fn passes(&mut self, is_about_terminal: bool, wants_reply: bool) {
        if wants_reply {
            self.awaits_reply(is_about_terminal);
        } else if is_about_terminal {
            // Nobody will hear whether it is given (dropbear's client asks so), and what goes into one may be a password.
            self.terminal = Terminal::Given;
        }
    }

    /// The target owes a reply now: those come in the order of the requests (RFC 4254, section 5.4).
    fn awaits_reply(&mut self, is_about_terminal: bool) {
        if is_about_terminal {
            self.before_terminal = Some(self.replies);
        }
        self.replies = self.replies.saturating_add(1);
    }

    /// The request that waited goes to the target.
    pub fn held_passes(&mut self) {
        if std::mem::take(&mut self.held_wants_reply) {
            self.awaits_reply(false);
        }
    }

    /// The target answers the client's oldest request.
    pub fn replied(&mut self, success: bool) {
        self.replies = self.replies.saturating_sub(1);
        match self.before_terminal {
            Some(0) => {
                self.before_terminal = None;
                self.terminal = if success { Terminal::Given } else { Terminal::None };
            }
            Some(before) => self.before_terminal = Some(before - 1),
            None => {}
        }
    }

    /// What it came to, for its event. `cuts` and `output_sha256` are what the recorder says of the channel.
    pub fn end(
        self,
        channel: u32,
        cuts: &[Cut],
        output_sha256: Option<[u8; 32]>,
    ) -> Result<command::Completed, command::Failed> {
        if self.exit_status.is_none() && self.signal.is_none() {
            return Err(command::Failed {
                channel,
                reason: "the channel was closed and the target told no exit status".into(),
            });
        }
        // A terminal that was asked for and refused hides nothing.
        let is_told = |bytes: u64| self.terminal != Terminal::Given && bytes >= HASHED_BYTES_MIN;
        let cut = cuts.iter().find(|cut| cut.direction == Direction::Output).map(|cut| cut.sha256);
        Ok(command::Completed {
            bytes_err: self.bytes_err,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            channel,
            exit_status: self.exit_status,
            input_sha256: self
                .input
                .filter(|_| is_told(self.bytes_in))
                .map(|input| to_hex(&input.finalize())),
            output_sha256: cut
                .or(output_sha256)
                // Answers that the proxy gave in the target's place are in the recording, and so in its hash.
                .filter(|_| !self.is_sftp && is_told(self.bytes_out))
                .map(|sha256| to_hex(&sha256)),
            signal: self.signal,
        })
    }
}

/// Of most variables only the name is kept.
pub(super) fn variable(name: &[u8], value: &[u8]) -> Variable {
    Variable {
        name: ByteString::cut(name, VARIABLE_BYTES_MAX),
        value: PLAIN_VARIABLES.contains(&name).then(|| ByteString::cut(value, VARIABLE_BYTES_MAX)),
    }
}

/// Whether a command is what the mosh client has run at a server: `mosh-server new …`, after an `sh -c …` of its own if
/// it wants to know the server's address.
pub(super) fn starts_mosh(command: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(command) else { return false };
    let server = match text.rsplit_once(" ; ") {
        Some((before, server)) if before.starts_with("sh -c ") => server,
        _ => text,
    };
    let mut words = server.split_ascii_whitespace().map(|word| word.trim_matches('\''));
    words.next() == Some("mosh-server") && words.next() == Some("new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_locale_and_a_terminal_have_their_values_told() {
        for name in PLAIN_VARIABLES {
            assert_eq!(variable(name, b"C.UTF-8").value, Some("C.UTF-8".into()));
        }
        for name in ["LC_TOKEN", "LC_", "LC_ALL_", "lc_all", "LANGUAGES", "PASSWORD", ""] {
            let kept = variable(name.as_bytes(), b"hunter2");
            assert_eq!((kept.name.to_text().as_str(), kept.value), (name, None));
        }
    }

    /// A program that has ended, with so many bytes of output.
    fn ended(bytes_out: u64) -> Program {
        Program { exit_status: Some(0), bytes_out, ..Program::default() }
    }

    /// What the recorder reckons at `metadata`, where it keeps nothing.
    fn cut(bytes: u64) -> Cut {
        Cut { direction: Direction::Output, bytes, kept: 0, sha256: [7; 32] }
    }

    #[test]
    fn a_short_output_has_no_hash_though_nothing_of_it_is_kept() {
        let hash = |program: Program, cuts: &[Cut], output| {
            program.end(0, cuts, output).unwrap().output_sha256.is_some()
        };
        for (bytes, told) in [(8, false), (1023, false), (1024, true)] {
            assert_eq!(hash(ended(bytes), &[cut(bytes)], Some([7; 32])), told, "{bytes} bytes that were cut");
            assert_eq!(hash(ended(bytes), &[], Some([7; 32])), told, "{bytes} bytes");
        }
        for (terminal, told) in [(Terminal::None, true), (Terminal::Asked, true), (Terminal::Given, false)] {
            let program = Program { terminal, ..ended(5_000) };
            assert_eq!(hash(program, &[cut(5_000)], None), told, "{terminal:?}");
        }
    }

    #[test]
    fn a_terminal_that_the_target_does_not_give_is_none() {
        for (success, terminal) in [(true, Terminal::Given), (false, Terminal::None)] {
            let mut program = Program { terminal: Terminal::Asked, ..Program::default() };
            // Before it another request, behind it one that waits for a decision.
            program.passes(false, true);
            program.passes(true, true);
            program.held_wants_reply = true;
            program.held_passes();
            for other in [!success, success] {
                assert_eq!(program.terminal, Terminal::Asked);
                program.replied(other);
            }
            assert_eq!(program.terminal, terminal);
            program.replied(!success);
            assert_eq!(program.terminal, terminal, "that was the program's");
        }
    }

    #[test]
    fn a_terminal_that_nobody_hears_of_counts_as_given() {
        let mut program = Program { terminal: Terminal::Asked, ..ended(5_000) };
        program.passes(false, false);
        assert_eq!(program.terminal, Terminal::Asked);
        program.passes(true, false);
        assert_eq!(program.terminal, Terminal::Given);
        // This answers something else.
        program.passes(false, true);
        program.replied(false);
        assert_eq!(program.end(0, &[cut(5_000)], None).unwrap().output_sha256, None);
    }

    #[test]
    fn what_has_no_status_failed() {
        assert!(Program { bytes_out: 5, ..Program::default() }.end(0, &[], None).is_err());
        assert!(Program { signal: Some("TERM".into()), ..Program::default() }.end(0, &[], None).is_ok());
    }
}
