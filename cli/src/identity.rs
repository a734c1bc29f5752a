//! The SSH key that a login has certified: a new one that lives as long as its certificate, or the person's own, which
//! may be a security key's.

use crate::profile::Writing;
use anyhow::{Context as _, bail};
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::Timestamp;
use russh::keys::ssh_key::{LineEnding, PrivateKey, PublicKey};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A key that is to be certified.
pub enum Identity {
    /// Made for this login.
    New(Box<PrivateKey>),
    /// The file that `ssh` is told of: the private half, or the public one where an agent has the other. Only the public
    /// half is ever read here.
    Own {
        /// Its path.
        file: PathBuf,
        /// The public half.
        public: Box<PublicKey>,
    },
}

impl Identity {
    /// The person's own key at `path`, which is absolute and has the public half beside it; a new one without a path.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), russh::keys::Algorithm::Ed25519)?;
            return Ok(Self::New(Box::new(key)));
        };
        let is_public = path.extension().is_some_and(|last| last == "pub");
        let private = if is_public { path.with_extension("") } else { path.to_owned() };
        let mut public = private.clone().into_os_string();
        public.push(".pub");
        let public = PathBuf::from(public);
        let text = std::fs::read_to_string(&public)
            .with_context(|| format!("{} can't be read: the public half of the key", public.display()))?;
        let key = PublicKey::from_openssh(text.trim())
            .with_context(|| format!("{} is no OpenSSH public key", public.display()))?;
        let file = if private.exists() { private } else { public };
        if file.to_string_lossy().contains(['"', '\n']) {
            bail!("{} can't stand in an ssh_config: rename it", file.display());
        }
        Ok(Self::Own { file, public: Box::new(key) })
    }

    /// The line that is to be certified.
    pub fn public(&self) -> anyhow::Result<String> {
        let public = match self {
            Self::New(key) => key.public_key(),
            Self::Own { public, .. } => public,
        };
        Ok(public.to_openssh()?)
    }

    /// Hands a new key to the agent at the socket `agent`, until its certificate runs out, so that it never lies on the disk. False
    /// where there is no agent, or it doesn't take it. It may ask a person first, or be at the far end of a line that is dead: nothing
    /// may be locked meanwhile.
    pub fn hand_over(&self, agent: Option<&OsStr>, until: Timestamp) -> anyhow::Result<bool> {
        match (self, agent) {
            (Self::New(key), Some(agent)) => agent_takes(agent, &key.to_openssh(LineEnding::LF)?, until),
            _ => Ok(false),
        }
    }

    /// Puts a new key into files, or its public half alone where an agent has it. Gives what `ssh` is to be told of.
    pub fn keep(&self, home: &Writing<'_>, in_agent: bool) -> anyhow::Result<PathBuf> {
        match self {
            Self::Own { file, .. } => {
                // Those of a login before.
                home.remove("id")?;
                home.remove("id.pub")?;
                Ok(file.clone())
            }
            Self::New(key) => {
                if in_agent {
                    home.remove("id")?;
                } else {
                    home.put("id", key.to_openssh(LineEnding::LF)?.as_bytes())?;
                }
                home.put("id.pub", format!("{} custody\n", key.public_key().to_openssh()?).as_bytes())?;
                Ok(home.path(if in_agent { "id.pub" } else { "id" }))
            }
        }
    }
}

fn agent_takes(agent: &OsStr, pem: &str, until: Timestamp) -> anyhow::Result<bool> {
    let now = Timestamp::from(SystemClock::new().wall());
    let seconds = until.seconds().saturating_sub(now.seconds()).to_string();
    let mut ssh_add = Command::new("ssh-add");
    ssh_add.env("SSH_AUTH_SOCK", agent).args(["-q", "-t", &seconds, "-"]);
    ssh_add.stdin(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = ssh_add.spawn() else { return Ok(false) };
    let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(pem.as_bytes()).is_ok());
    Ok(child.wait()?.success() && written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::log::durable::write_file;

    #[test]
    fn ones_own_key_is_named_by_either_half() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.old");
        assert!(Identity::new(Some(&key)).is_err());
        let Identity::New(new) = Identity::new(None).unwrap() else { panic!("a new one") };
        let line = new.public_key().to_openssh().unwrap();
        write_file(&dir.path().join("key.old.pub"), line.as_bytes(), 0o600).unwrap();
        let file = |path: &Path| match Identity::new(Some(path)).unwrap() {
            Identity::Own { file, public } => {
                assert_eq!(public.to_openssh().unwrap(), line);
                file
            }
            Identity::New(_) => panic!("not one's own"),
        };
        // An agent has the other half.
        let public = dir.path().join("key.old.pub");
        assert_eq!((file(&key), file(&public)), (public.clone(), public.clone()));
        write_file(&key, b"a handle", 0o600).unwrap();
        assert_eq!((file(&key), file(&public)), (key.clone(), key.clone()));
        write_file(&public, b"nothing", 0o600).unwrap();
        assert!(Identity::new(Some(&key)).is_err());
    }
}
