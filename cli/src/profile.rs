//! What a login leaves on a person's machine: a folder with short-lived keys and certificates.

use anyhow::{Context as _, anyhow, bail};
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What whoever writes the folder holds, and whoever reads more than one of its files.
const LOCK: &str = ".lock";

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
    /// Verifier key of the log (C2SP signed-note), pinned at the first login. It moves on the person's word alone.
    pub log_key: String,
}

impl Profile {
    /// Whether its certificates are still good: a server would only break the connection.
    pub fn in_time(&self) -> anyhow::Result<()> {
        let until: Timestamp = self.valid_until.parse().map_err(anyhow::Error::msg)?;
        if until <= Timestamp::from(SystemClock::new().wall()) {
            bail!("your login ran out at {}: `custody login`", self.valid_until);
        }
        Ok(())
    }
}

/// Leave to change the folder, which one program has at a time: so keys and certificates in it are of one login.
#[must_use]
pub struct Writing<'a> {
    home: &'a Home,
    _lock: File,
}

impl Deref for Writing<'_> {
    type Target = Home;

    fn deref(&self) -> &Home {
        self.home
    }
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

    /// Makes the folder if need be, for its owner only, and waits until nobody else reads or changes it.
    pub fn writing(&self) -> anyhow::Result<Writing<'_>> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("{} can't be made", self.0.display()))?;
        let path = self.path(LOCK);
        let lock = || -> std::io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let lock = lock().with_context(|| format!("{} can't be locked", path.display()))?;
        Ok(Writing { home: self, _lock: lock })
    }

    /// Waits until nobody changes the folder, and keeps it from changing while the file that it gives is open. There is none
    /// where nobody has ever written.
    pub fn reading(&self) -> anyhow::Result<Option<File>> {
        let path = self.path(LOCK);
        let lock = || -> std::io::Result<Option<File>> {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            file.lock_shared()?;
            Ok(Some(file))
        };
        lock().with_context(|| format!("{} can't be locked", path.display()))
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path)
            .with_context(|| format!("{} can't be read: log in with `custody login`", path.display()))
    }

    /// Who is logged in, and where.
    pub fn profile(&self) -> anyhow::Result<Profile> {
        match self.last_profile()? {
            Some(profile) => Ok(profile),
            None => bail!("you are not logged in: `custody login --api URL --ca FILE --user NAME`"),
        }
    }

    /// The profile of the last login, if there was one. What was pinned about the server stands in it: one that can't be
    /// read isn't as if there were none.
    pub fn last_profile(&self) -> anyhow::Result<Option<Profile>> {
        let path = self.path("profile.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{} can't be read", path.display())),
        };
        toml::from_str(&text).map(Some).map_err(|error| {
            anyhow!(
                "{} is damaged ({}), and the log's key was pinned in it: ask your auditors for that key, remove the file, then \
                 `custody login --api URL --user NAME --log-key KEY`",
                path.display(),
                error.message().replace('\n', " ")
            )
        })
    }
}

impl Writing<'_> {
    /// Puts a file in place, readable by its owner only; a reader sees the old one or the new one.
    pub fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (path, fresh) = (self.path(name), self.path(&format!(".{name}.new")));
        let write = || -> std::io::Result<()> {
            // Of somebody who was killed: nobody else writes now.
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
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("{} can't be removed", self.path(name).display()))
            }
        }
    }
}

#[cfg(test)]
impl Home {
    /// For tests, which may not change the environment.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::log::durable::write_file;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_are_for_their_owner_only_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"));
        assert!(home.reading().unwrap().is_none());
        let writing = home.writing().unwrap();
        writing.put("id", b"one").unwrap();
        writing.put("id", b"two").unwrap();
        assert_eq!(home.read("id").unwrap(), "two");
        assert_eq!(fs::metadata(home.path("id")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(home.path(LOCK)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&home.0).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(writing.remove("id").unwrap() && !writing.remove("id").unwrap());
    }

    #[test]
    fn files_that_belong_together_are_of_one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let write = |text: &str| {
            let writing = home.writing().unwrap();
            writing.put("client.key", text.as_bytes()).unwrap();
            writing.put("client.pem", text.as_bytes()).unwrap();
        };
        write("0");
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || (0..20).for_each(|round| write(&format!("{number} {round}"))));
            }
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _reading = home.reading().unwrap();
                        assert_eq!(home.read("client.key").unwrap(), home.read("client.pem").unwrap());
                    }
                });
            }
        });
    }

    #[test]
    fn a_profile_that_cannot_be_read_is_not_as_if_there_were_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert!(home.last_profile().unwrap().is_none());
        assert!(home.profile().unwrap_err().to_string().contains("not logged in"));
        write_file(&home.path("profile.toml"), b"api = \"https://custody", 0o600).unwrap();
        let error = home.last_profile().unwrap_err().to_string();
        assert!(error.contains("--log-key") && !error.contains('\n'), "{error}");
    }
}
