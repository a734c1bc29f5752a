//! What a screen may be made to do: a few bytes can ask for millions of cells, and a recording is whatever its session
//! was.

use avt::parser::{DecMode, Function};

/// Cells that a recorded byte pays for: what a program draws pays for what it wipes, many times over.
const CELLS_A_BYTE: usize = 1000;
/// Bytes that a frame counts for beside its own: it takes about as many in a recording.
const BYTES_A_FRAME: usize = 16;
/// Cells that are paid for ahead: the largest screen some thirty times.
const CELLS_AHEAD_MAX: usize = 16 << 20;

/// How many cells a screen may still be made to touch.
#[derive(Clone, Debug)]
pub(super) struct Effort {
    cells: usize,
    refused: bool,
}

impl Default for Effort {
    fn default() -> Self {
        Self { cells: CELLS_AHEAD_MAX, refused: false }
    }
}

impl Effort {
    /// A frame came, with so many bytes to show.
    pub(super) fn earn(&mut self, bytes: usize) {
        let earned = bytes.saturating_add(BYTES_A_FRAME).saturating_mul(CELLS_A_BYTE);
        self.cells = self.cells.saturating_add(earned).min(CELLS_AHEAD_MAX);
    }

    /// Whether so many cells may be touched; they are if so.
    pub(super) fn spend(&mut self, cells: usize) -> bool {
        let Some(left) = self.cells.checked_sub(cells) else {
            self.refused = true;
            return false;
        };
        self.cells = left;
        true
    }

    /// Whether anything was ever refused.
    pub(super) fn has_refused(&self) -> bool {
        self.refused
    }
}

/// The cells that a function touches beyond those of a row, which are its bytes' own.
pub(super) fn cells_of(function: &Function, (cols, rows): (usize, usize)) -> usize {
    match function {
        Function::Decaln | Function::Ed(_) | Function::Ris => cols * rows,
        Function::Decset(modes) if modes.as_slice().iter().any(is_alternate) => cols * rows,
        Function::Dl(lines) | Function::Il(lines) | Function::Sd(lines) | Function::Su(lines) => {
            rows + cols * usize::from(*lines).clamp(1, rows)
        }
        _ => 0,
    }
}

/// The cells that one of many repeated characters touches: in the mode that inserts it moves a row, and at a row's end it
/// scrolls.
pub(super) fn cells_of_repeated((cols, rows): (usize, usize), at_end: bool) -> usize {
    1 + cols / 16 + if at_end { cols + rows } else { 0 }
}

/// Each time another screen is shown, it is made anew.
fn is_alternate(mode: &DecMode) -> bool {
    matches!(mode, DecMode::AltScreenBuffer | DecMode::SaveCursorAltScreenBuffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_paid_by_bytes() {
        let mut effort = Effort::default();
        assert!(effort.spend(CELLS_AHEAD_MAX) && !effort.has_refused());
        assert!(!effort.spend(1) && effort.has_refused());
        effort.earn(4);
        assert!(effort.spend((4 + BYTES_A_FRAME) * CELLS_A_BYTE) && !effort.spend(1));
        for _ in 0..3 {
            effort.earn(usize::MAX);
        }
        assert!(!effort.spend(CELLS_AHEAD_MAX + 1) && effort.spend(CELLS_AHEAD_MAX));
    }

    #[test]
    fn what_reaches_over_the_screen_costs_as_much() {
        let mut parser = avt::Parser::new();
        let mut cost = |text: &str| {
            let functions = text.chars().filter_map(|char| parser.feed(char));
            functions.map(|function| cells_of(&function, (100, 50))).sum::<usize>()
        };
        let table = [
            ("\x1b#8", 5000),
            ("\x1b[2J", 5000),
            ("\x1b[J", 5000),
            ("\x1bc", 5000),
            ("\x1b[?1049h", 5000),
            ("\x1b[?1049l", 0),
            ("\x1b[?25h", 0),
            ("\x1b[S", 150),
            ("\x1b[9T", 950),
            ("\x1b[9999L", 5050),
            ("\x1b[9999M", 5050),
            ("\x1b[99P\x1b[99@\x1b[99X\x1b[2K\r\nx", 0),
        ];
        for (text, cells) in table {
            assert_eq!(cost(text), cells, "{text:?}");
        }
    }
}
