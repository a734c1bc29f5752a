//! The player's state, without a terminal: what keys and time do to it.

use std::time::Duration;

/// How far the arrow keys jump.
const JUMP: Duration = Duration::from_secs(5);
/// Slowest and fastest.
pub const SPEED_MIN: f64 = 1.0 / 16.0;
/// See [`SPEED_MIN`].
pub const SPEED_MAX: f64 = 64.0;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Space.
    Pause,
    /// Right arrow, `l`.
    Forward,
    /// Left arrow, `h`.
    Back,
    /// `+`, `>`.
    Faster,
    /// `-`, `<`.
    Slower,
    /// `0`, Home.
    Start,
    /// `q`, Ctrl-C, Ctrl-D.
    Quit,
}

/// What the screen must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing but show the new state.
    Show,
    /// Show what stood there at the player's new position.
    Seek,
    /// End.
    Quit,
}

/// Where the player is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Player {
    /// Time since the first frame, as scheduled.
    pub position: Duration,
    /// Recorded seconds a second.
    pub speed: f64,
    /// Whether time stands still.
    pub paused: bool,
}

impl Player {
    /// At the start, running. A speed out of bounds is brought within them.
    pub fn new(speed: f64) -> Self {
        let speed = if speed.is_finite() { speed.clamp(SPEED_MIN, SPEED_MAX) } else { 1.0 };
        Self { position: Duration::ZERO, speed, paused: false }
    }

    /// `elapsed` went by in front of the screen.
    pub fn tick(&mut self, elapsed: Duration) {
        if !self.paused {
            self.position = self.position.saturating_add(elapsed.mul_f64(self.speed));
        }
    }

    /// A key was pressed.
    pub fn key(&mut self, key: Key) -> Action {
        match key {
            Key::Pause => self.paused = !self.paused,
            Key::Faster => self.speed = (self.speed * 2.0).min(SPEED_MAX),
            Key::Slower => self.speed = (self.speed / 2.0).max(SPEED_MIN),
            Key::Forward => {
                self.position = self.position.saturating_add(JUMP);
                return Action::Seek;
            }
            Key::Back => {
                self.position = self.position.saturating_sub(JUMP);
                return Action::Seek;
            }
            Key::Start => {
                self.position = Duration::ZERO;
                return Action::Seek;
            }
            Key::Quit => return Action::Quit,
        }
        Action::Show
    }
}

/// The keys in what a terminal sent; what means nothing is left out. An escape sequence that is cut by the
/// end of a read counts as nothing: a person presses the key again.
pub fn keys(mut input: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    loop {
        input = match input {
            [] => return keys,
            [0x1b, b'[' | b'O', letter @ (b'C' | b'D' | b'H'), rest @ ..] => {
                keys.push(match letter {
                    b'C' => Key::Forward,
                    b'D' => Key::Back,
                    _ => Key::Start,
                });
                rest
            }
            [0x1b, b'[' | b'O', rest @ ..] => {
                let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
                end.and_then(|end| rest.get(end + 1..)).unwrap_or_default()
            }
            [byte, rest @ ..] => {
                keys.extend(match byte {
                    b' ' => Some(Key::Pause),
                    b'+' | b'=' | b'>' | b'.' => Some(Key::Faster),
                    b'-' | b'<' | b',' => Some(Key::Slower),
                    b'l' => Some(Key::Forward),
                    b'h' => Some(Key::Back),
                    b'0' => Some(Key::Start),
                    b'q' | 3 | 4 => Some(Key::Quit),
                    _ => None,
                });
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_the_player() {
        let at = |seconds| Duration::from_secs(seconds);
        // position, speed, paused; key; the same afterwards, and what is to be done
        let table = [
            ((7, 1.0, false), Key::Pause, (7, 1.0, true), Action::Show),
            ((7, 1.0, true), Key::Pause, (7, 1.0, false), Action::Show),
            ((7, 1.0, true), Key::Forward, (12, 1.0, true), Action::Seek),
            ((7, 1.0, false), Key::Back, (2, 1.0, false), Action::Seek),
            ((3, 1.0, false), Key::Back, (0, 1.0, false), Action::Seek),
            ((7, 1.0, false), Key::Faster, (7, 2.0, false), Action::Show),
            ((7, 64.0, false), Key::Faster, (7, 64.0, false), Action::Show),
            ((7, 1.0, false), Key::Slower, (7, 0.5, false), Action::Show),
            ((7, 0.0625, false), Key::Slower, (7, 0.0625, false), Action::Show),
            ((7, 2.0, false), Key::Start, (0, 2.0, false), Action::Seek),
            ((7, 1.0, false), Key::Quit, (7, 1.0, false), Action::Quit),
        ];
        for ((position, speed, paused), key, after, action) in table {
            let mut player = Player { position: at(position), speed, paused };
            assert_eq!(player.key(key), action, "{key:?}");
            let (position, speed, paused) = after;
            assert_eq!(player, Player { position: at(position), speed, paused }, "{key:?}");
        }
    }

    #[test]
    fn time_runs_at_its_speed_and_stands_when_paused() {
        let mut player = Player::new(4.0);
        player.tick(Duration::from_millis(500));
        assert_eq!(player.position, Duration::from_secs(2));
        player.key(Key::Pause);
        player.tick(Duration::from_secs(9));
        assert_eq!(player.position, Duration::from_secs(2));
        assert_eq!(Player::new(0.0).speed, SPEED_MIN);
        assert_eq!(Player::new(f64::NAN).speed, 1.0);
    }

    #[test]
    fn keys_are_read() {
        let table: [(&[u8], &[Key]); 7] = [
            (b" q", &[Key::Pause, Key::Quit]),
            (b"\x1b[C\x1b[D\x1bOC", &[Key::Forward, Key::Back, Key::Forward]),
            (b"\x1b[1;5A+", &[Key::Faster]),
            (b"\x1b[", &[]),
            (b"\x1b", &[]),
            (b"\x03", &[Key::Quit]),
            (b"xyz\xff", &[]),
        ];
        for (input, expected) in table {
            assert_eq!(keys(input), expected, "{input:?}");
        }
    }
}
