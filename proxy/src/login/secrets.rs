//! The secret store: password hashes by user id and version, and what else the API keeps secret, under ids that no user
//! has. Events carry id and version only.
//!
//! A new hash is written *beside* the old one under a higher version, and counts once an event in the log names that
//! version. So a crash between the two leaves the old password in force, and replaying the log to an earlier time
//! never makes a hash be taken for another.

use crate::ca::private_file::{self, PrivateFileError};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Longest user id, in bytes.
pub const USER_ID_BYTES_MAX: usize = 256;

/// Longest PHC string, in bytes.
pub const HASH_BYTES_MAX: usize = 512;

/// Why a secret can't be stored or read. No text holds anything of a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No id of a user: empty or longer than [`USER_ID_BYTES_MAX`].
    #[error("a user's id has 1 to {USER_ID_BYTES_MAX} bytes, this one has {bytes}")]
    BadUser {
        /// Its length.
        bytes: usize,
    },
    /// No PHC string: empty or longer than [`HASH_BYTES_MAX`].
    #[error("a password hash has 1 to {HASH_BYTES_MAX} bytes, this one has {bytes}")]
    BadHash {
        /// Its length.
        bytes: usize,
    },
    /// The file isn't what this store writes, or is another user's.
    #[error("secret {path} is damaged: set the user's password anew")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// Versions have run out.
    #[error("no version is left for this user's secret")]
    VersionsExhausted,
    /// It can't be what it should be.
    #[error("{0}")]
    Useless(&'static str),
    /// The directory can't be listed.
    #[error("can't list the secret store {path}: {source}")]
    List {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or the directory.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}

/// Secrets in files of one directory (0700): `SHA-256 of the user id . version .json`, mode 0600. Files and
/// directories that others may read are refused.
///
/// One process writes: two that set the same user's password at once may get one version, of which the second is
/// refused ([`PrivateFileError::Exists`]), never exchanged.
pub struct SecretStore {
    directory: PathBuf,
}

/// What a file holds. `user` and `version` stand in it so that a file that was renamed is found out.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct StoredSecret {
    user: String,
    version: u64,
    password_hash: String,
}

impl SecretStore {
    /// Opens the directory, or makes it.
    ///
    /// # Errors
    /// [`SecretError::File`] if it can't be opened, is someone else's, or others may read it.
    pub fn open(directory: &Path) -> Result<Self, SecretError> {
        private_file::open_directory(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Stores a password hash (a PHC string) durably under a new version, above `after` (the version that the state
    /// knows, 0 for none) and above all that are stored; gives the version, for the event.
    ///
    /// # Errors
    /// [`SecretError`]; then nothing is stored.
    pub fn put(&self, user: &str, after: u64, password_hash: &str) -> Result<u64, SecretError> {
        let bytes = password_hash.len();
        if bytes == 0 || bytes > HASH_BYTES_MAX {
            return Err(SecretError::BadHash { bytes });
        }
        let stored = self.versions(user)?.into_iter().max().unwrap_or(0);
        let version = stored.max(after).checked_add(1).ok_or(SecretError::VersionsExhausted)?;
        let path = self.path(user, version)?;
        let secret = StoredSecret { user: user.to_owned(), version, password_hash: password_hash.to_owned() };
        // Room for all of it, so that growing leaves no copies behind: escaping makes at most six bytes of one.
        let mut content = Zeroizing::new(Vec::with_capacity(6 * (USER_ID_BYTES_MAX + HASH_BYTES_MAX) + 128));
        serde_json::to_writer(&mut *content, &secret)
            .map_err(|_| SecretError::Damaged { path: path.clone() })?;
        private_file::create(&path, &content)?;
        Ok(version)
    }

    /// The password hash of that version; `None` if there is none.
    ///
    /// # Errors
    /// [`SecretError::Damaged`], or a file that others may read.
    pub fn get(&self, user: &str, version: u64) -> Result<Option<Zeroizing<String>>, SecretError> {
        let path = self.path(user, version)?;
        let Some(content) = private_file::read(&path)? else { return Ok(None) };
        let secret: Result<StoredSecret, _> = serde_json::from_slice(&content);
        match secret {
            Ok(mut secret) if secret.user == user && secret.version == version => {
                Ok(Some(Zeroizing::new(std::mem::take(&mut secret.password_hash))))
            }
            _ => Err(SecretError::Damaged { path }),
        }
    }

    /// Removes a user's hashes of versions below `version`, durably: to be called when an event in the log names
    /// `version`. `u64::MAX` removes all.
    ///
    /// # Errors
    /// [`SecretError`]; some may be left, calling again is right.
    pub fn retire_below(&self, user: &str, version: u64) -> Result<(), SecretError> {
        for old in self.versions(user)?.into_iter().filter(|old| *old < version) {
            private_file::remove(&self.path(user, old)?)?;
        }
        Ok(private_file::sync_directory(&self.directory)?)
    }

    fn path(&self, user: &str, version: u64) -> Result<PathBuf, SecretError> {
        Ok(self.directory.join(format!("{}.{version}.json", file_stem(user)?)))
    }

    fn versions(&self, user: &str) -> Result<Vec<u64>, SecretError> {
        let stem = file_stem(user)?;
        let list = |source| SecretError::List { path: self.directory.clone(), source };
        let mut versions = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let version: Option<u64> = name.to_str().and_then(|name| {
                name.strip_prefix(stem.as_str())?.strip_prefix('.')?.strip_suffix(".json")?.parse().ok()
            });
            versions.extend(version);
        }
        Ok(versions)
    }
}

/// A user id may hold anything; its SHA-256 is a file name of constant length.
fn file_stem(user: &str) -> Result<String, SecretError> {
    if user.is_empty() || user.len() > USER_ID_BYTES_MAX {
        return Err(SecretError::BadUser { bytes: user.len() });
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, user.as_bytes());
    let mut stem = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing to a String can't fail.
        write!(stem, "{byte:02x}").map_err(|_| SecretError::BadUser { bytes: user.len() })?;
    }
    Ok(stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn versions_stand_beside_each_other_until_retired() {
        let scratch = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&scratch.path().join("secrets")).unwrap();
        assert_eq!(store.put("ana", 0, "$argon2id$one").unwrap(), 1);
        assert_eq!(store.put("ana", 1, "$argon2id$two").unwrap(), 2);
        assert_eq!(store.put("../ana/\n", 0, "$argon2id$other").unwrap(), 1);
        assert_eq!(*store.get("ana", 1).unwrap().unwrap(), "$argon2id$one");
        assert_eq!(*store.get("ana", 2).unwrap().unwrap(), "$argon2id$two");
        assert_eq!(store.get("ana", 3).unwrap(), None);
        assert_eq!(store.get("bob", 1).unwrap(), None);
        store.retire_below("ana", 2).unwrap();
        assert_eq!(store.get("ana", 1).unwrap(), None);
        assert!(store.get("ana", 2).unwrap().is_some());
        store.retire_below("ana", u64::MAX).unwrap();
        assert_eq!(store.get("ana", 2).unwrap(), None);
        assert_eq!(*store.get("../ana/\n", 1).unwrap().unwrap(), "$argon2id$other");
        assert_eq!(store.put("ana", 2, "$argon2id$three").unwrap(), 3, "never a version that the log knows");
    }

    #[test]
    fn an_orphan_of_a_crash_is_passed_over() {
        let scratch = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&scratch.path().join("secrets")).unwrap();
        assert_eq!(store.put("ana", 4, "$argon2id$orphan").unwrap(), 5);
        // The event with version 5 never came: the state still says 4.
        assert_eq!(store.put("ana", 4, "$argon2id$new").unwrap(), 6);
    }

    #[test]
    fn what_others_may_read_or_was_exchanged_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&scratch.path().join("secrets")).unwrap();
        store.put("ana", 0, "$argon2id$ana").unwrap();
        store.put("bob", 0, "$argon2id$bob").unwrap();
        let file = |user| store.path(user, 1).unwrap();
        assert_eq!(std::fs::metadata(file("ana")).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::rename(file("bob"), file("ana")).unwrap();
        assert!(matches!(store.get("ana", 1), Err(SecretError::Damaged { .. })));
        std::fs::set_permissions(file("ana"), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.get("ana", 1), Err(SecretError::File(PrivateFileError::TooOpen { .. }))));
    }
}
