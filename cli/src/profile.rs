//! What a login leaves on a person's machine: a folder with short-lived keys and certificates.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The folder: `$CUSTODY_HOME`, else `~/.custody`.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// Which Custody this folder belongs to, `profile.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// URL of the API.
    pub api: String,
    /// Who is logged in.
    pub user: String,
    /// Roles at login.
    pub roles: Vec<String>,
    /// When the certificates run out, RFC 3339.
    pub valid_until: String,
    /// The SSH proxy, `host:port`.
    pub ssh_address: String,
    /// Whether SSH goes within TLS through the API's port.
    #[serde(default)]
    pub tls: bool,
    /// The person's own SSH key that each login has certified; a new one each time without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Verifier key of the log (C2SP signed-note), pinned at the first login.
    pub log_key: String,
}

impl Home {
    /// Finds the folder; it needn't be there yet.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(path) = std::env::var_os("CUSTODY_HOME") {
            return Ok(Self(std::path::absolute(path)?));
        }
        match std::env::var_os("HOME") {
            Some(home) => Ok(Self(Path::new(&home).join(".custody"))),
            None => bail!(
                "neither CUSTODY_HOME nor HOME is set: say where keys may be kept with CUSTODY_HOME=DIR"
            ),
        }
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folder, for its owner only.
    pub fn create(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("{} can't be made", self.0.display()))
    }

    /// Puts a file in place, readable by its owner only; a reader sees the old one or the new one.
    pub fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (path, fresh) = (self.path(name), self.path(&format!(".{name}.new")));
        let write = || -> std::io::Result<()> {
            if fresh.exists() {
                fs::remove_file(&fresh)?;
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().with_context(|| format!("{} can't be written", path.display()))
    }

    /// Removes a file if it is there.
    pub fn remove(&self, name: &str) -> anyhow::Result<bool> {
        match fs::remove_file(self.path(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("{} can't be removed", self.path(name).display()))
            }
        }
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path)
            .with_context(|| format!("{} can't be read: log in with `custody login`", path.display()))
    }

    /// Who is logged in, and where.
    pub fn profile(&self) -> anyhow::Result<Profile> {
        if !self.path("profile.toml").exists() {
            bail!("you are not logged in: `custody login --api URL --ca FILE --user NAME`");
        }
        let text = self.read("profile.toml")?;
        toml::from_str(&text)
            .with_context(|| format!("{} is damaged: log in again", self.path("profile.toml").display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_are_for_their_owner_only_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().join("home"));
        home.create().unwrap();
        home.put("id", b"one").unwrap();
        home.put("id", b"two").unwrap();
        assert_eq!(home.read("id").unwrap(), "two");
        assert_eq!(fs::metadata(home.path("id")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&home.0).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(home.remove("id").unwrap() && !home.remove("id").unwrap());
    }
}
