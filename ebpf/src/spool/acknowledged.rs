//! The file that remembers how far the log has acknowledged.
//!
//! It is written without a sync: a crash may lose or tear it, and then records are sent again that were sent already.
//! It can't run ahead, since only what was acknowledged is ever written into it.
//!
//! ```text
//! u64 position | u32 CRC-32C of it (little-endian)
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::disk::FILE_MODE;

const FILE_NAME: &str = "acknowledged";
const BYTES: usize = 12;

/// The open file.
#[derive(Debug)]
pub(super) struct Acknowledged(File);

impl Acknowledged {
    /// Opens the file in `directory`, which is made if it isn't there, and reads the position; 0 when it says none.
    pub fn open(directory: &Path) -> io::Result<(Acknowledged, u64)> {
        let path = directory.join(FILE_NAME);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        let mut bytes = [0; BYTES];
        let position = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        Ok((Acknowledged(file), position))
    }

    /// Remembers that everything before `position` is acknowledged.
    pub fn set(&self, position: u64) -> io::Result<()> {
        self.0.write_all_at(&encode(position), 0)
    }
}

fn encode(position: u64) -> [u8; BYTES] {
    let position = position.to_le_bytes();
    let crc = crc32c::crc32c(&position).to_le_bytes();
    let mut bytes = [0; BYTES];
    bytes.iter_mut().zip(position.into_iter().chain(crc)).for_each(|(to, from)| *to = from);
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<u64> {
    let (position, crc) = bytes.split_first_chunk::<8>()?;
    (crc32c::crc32c(position).to_le_bytes() == crc).then(|| u64::from_le_bytes(*position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_zeroes_say_nothing() {
        for position in [0, 1, 1 << 40, u64::MAX] {
            assert_eq!(decode(&encode(position)), Some(position));
        }
        assert_eq!(decode(&[0; BYTES]), None);
        let mut torn = encode(300);
        torn[1] = 0;
        assert_eq!(decode(&torn), None);
    }
}
