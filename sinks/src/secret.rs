//! What a destination wants to be shown: read from the secret store each time, so that a new one counts at once and
//! none lies in memory.

use custody_core::log::durable::{create_directories, write_file};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const MODE: u32 = 0o600;
const BYTES_MAX: u64 = 64 * 1024;

/// The part of the secret store that holds sinks' credentials: one file for each, by name.
#[derive(Clone, Debug)]
pub struct Secrets {
    directory: PathBuf,
}

impl Secrets {
    /// In this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Reads one.
    ///
    /// # Errors
    /// One line that says what is wrong with it and nothing of what is in it.
    pub fn read(&self, name: &str) -> Result<Zeroizing<String>, String> {
        let path = self.path(name)?;
        let file = std::fs::File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no secret {name}: put it there with `custodyd secret put {name}`")
            }
            _ => format!("the secret {name} can't be read: {error}"),
        })?;
        let metadata =
            file.metadata().map_err(|error| format!("the secret {name} can't be read: {error}"))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(format!("{} may be read by others: chmod go= it", path.display()));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|_| format!("the secret {name} is no text of at most {BYTES_MAX} bytes"))?;
        let end = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(end);
        if text.is_empty() {
            return Err(format!("the secret {name} is empty"));
        }
        Ok(text)
    }

    /// Puts one there, in the place of what had its name.
    ///
    /// # Errors
    /// What the system says, or that it can't have this name.
    pub fn put(&self, name: &str, secret: &str) -> io::Result<()> {
        let path = self.path(name).map_err(io::Error::other)?;
        create_directories(&self.directory)?;
        write_file(&path, secret.as_bytes(), MODE)
    }

    fn path(&self, name: &str) -> Result<PathBuf, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(format!("\"{name}\" is no name of a secret: 1 to 64 of a-z, 0-9, - and _"));
        }
        Ok(self.directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_one_counts_at_once_and_errors_tell_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(&dir.path().join("sinks"));
        assert!(secrets.read("loki").unwrap_err().contains("custodyd secret put loki"));
        secrets.put("loki", "first\n").unwrap();
        assert_eq!(*secrets.read("loki").unwrap(), "first");
        secrets.put("loki", "second").unwrap();
        assert_eq!(*secrets.read("loki").unwrap(), "second");
        let path = dir.path().join("sinks/loki");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = secrets.read("loki").unwrap_err();
        assert!(error.contains("chmod") && !error.contains("second"), "{error}");
        for wrong in ["", "../x", "A", "a/b", &"a".repeat(65)] {
            assert!(secrets.read(wrong).is_err() && secrets.put(wrong, "x").is_err(), "{wrong}");
        }
    }
}
