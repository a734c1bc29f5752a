//! Which authorities a destination's certificate is checked against, and whether they are others by now: who trusts one, or no
//! longer does, needn't start anything anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

/// The file of the machine's own authorities, where there is one.
static OF_THE_MACHINE: LazyLock<Option<PathBuf>> = LazyLock::new(|| openssl_probe::probe().cert_file);

/// What shows that they are others: when their file was changed, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(Option<(SystemTime, u64)>);

impl Version {
    /// Of a file of authorities, or else of the machine's own as they are read without one.
    ///
    /// # Errors
    /// What the system says of the file that was named.
    pub fn of(file: Option<&Path>) -> io::Result<Self> {
        Ok(Self(match file {
            Some(file) => Some(now(file)?),
            // Without them, whoever reads them says so.
            None => OF_THE_MACHINE.as_deref().and_then(|file| now(file).ok()),
        }))
    }
}

fn now(file: &Path) -> io::Result<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file)?;
    Ok((metadata.modified()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;

    #[test]
    fn another_file_is_known_and_one_that_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        assert!(Version::of(Some(&file)).is_err());
        File::create(&file).unwrap().write_all(b"one").unwrap();
        let one = Version::of(Some(&file)).unwrap();
        assert_eq!(Version::of(Some(&file)).unwrap(), one);
        File::create(&file).unwrap().write_all(b"another").unwrap();
        assert_ne!(Version::of(Some(&file)).unwrap(), one);
        assert!(Version::of(None).is_ok(), "whether this machine has any or not");
    }
}
