//! What the daemon says of itself, on standard error.
//!
//! Standard error may be a file on the very disk that is full. Then a line is lost, and nothing else may be: the default
//! writer panics in the middle of whatever was doing the work.

use std::io::{self, IsTerminal as _, Write};
use tracing_subscriber::EnvFilter;

/// Begins to say it; `CUSTODYD_LOG` says how much.
pub fn begin() {
    let filter = EnvFilter::try_from_env("CUSTODYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lossy(io::stderr()))
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .init();
}

/// Drops what can't be written.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _lost = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _lost = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn a_full_disk_costs_a_line_and_no_more() {
        let mut lossy = Lossy(Full);
        assert_eq!(lossy.write(b"a line").unwrap(), 6);
        lossy.write_all(b"another").unwrap();
        lossy.flush().unwrap();
    }
}
