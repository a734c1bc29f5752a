//! Passwords: Argon2id (RFC 9106), in PHC strings.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use zeroize::Zeroizing;

/// Memory of one hash, in KiB. With [`PASSES`] and [`LANES`] the OWASP minimum: 19 MiB, some 15 ms.
pub const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
pub const PASSES: u32 = 2;
/// Lanes.
pub const LANES: u32 = 1;

/// Longest password, in bytes: what a stranger may have us hash.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Shortest password that is taken for a new one, in characters (NIST SP 800-63B-4 section 3.1.1.2 asks for 15 where
/// it stands alone; with a second factor 8 would do).
pub const PASSWORD_CHARS_MIN: usize = 12;

/// Most memory that a stored hash may ask for, in KiB: a damaged secret store must not take the machine down.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most passes that a stored hash may ask for.
const PASSES_MAX: u32 = 16;

/// Why a password wasn't hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short.
    #[error("the password is too short: at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Too long.
    #[error("the password is too long: at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// The library failed: no memory, no random numbers.
    #[error("the password can't be hashed: no memory or no random numbers")]
    Crypto,
}

/// Hashes a new password with a salt of 16 random bytes; gives a PHC string. Takes [`MEMORY_KIB`] and blocks for
/// milliseconds: not on an async thread.
///
/// # Errors
/// [`PasswordError`].
pub fn hash_password(password: &str) -> Result<Zeroizing<String>, PasswordError> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(PasswordError::TooShort);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    hash(password.as_bytes())
}

/// Verifies passwords so that a user who doesn't exist costs what one costs who does.
pub struct PasswordVerification {
    /// The hash of a password that nobody knows.
    nobody: Zeroizing<String>,
}

impl PasswordVerification {
    /// Makes the hash that stands in for users who don't exist.
    ///
    /// # Errors
    /// [`PasswordError::Crypto`].
    pub fn new() -> Result<Self, PasswordError> {
        let mut unknown = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(unknown.as_mut_slice()).map_err(|_| PasswordError::Crypto)?;
        Ok(Self { nobody: hash(unknown.as_slice())? })
    }

    /// True if the password is the stored one. Without a stored hash, with one that can't be read, and with a
    /// password that is too long, an equal amount of work is done and the answer is no.
    ///
    /// Takes [`MEMORY_KIB`] and blocks for milliseconds: not on an async thread, and only behind the
    /// [limit](super::rate::LoginLimiter).
    #[must_use]
    pub fn verify(&self, stored: Option<&str>, password: &[u8]) -> bool {
        let password = password.get(..PASSWORD_BYTES_MAX.saturating_add(1)).unwrap_or(password);
        let known = stored.and_then(|hash| PasswordHash::new(hash).ok()).filter(is_reasonable);
        let nobody = PasswordHash::new(&self.nobody).ok();
        let is_known = known.is_some() && password.len() <= PASSWORD_BYTES_MAX;
        let Some(hash) = known.or(nobody) else { return false };
        let matches = Argon2::default().verify_password(password, &hash).is_ok();
        matches && is_known
    }

    /// True if a stored hash was made with less than today's parameters: hash the password anew at the next login.
    #[must_use]
    pub fn is_outdated(&self, stored: &str) -> bool {
        let Some(params) = PasswordHash::new(stored).ok().and_then(|hash| Params::try_from(&hash).ok())
        else {
            return true;
        };
        params.m_cost() < MEMORY_KIB || params.t_cost() < PASSES
    }
}

fn hash(password: &[u8]) -> Result<Zeroizing<String>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(Params::DEFAULT_OUTPUT_LEN));
    let params = params.map_err(|_| PasswordError::Crypto)?;
    let mut salt = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| PasswordError::Crypto)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password, &salt).map_err(|_| PasswordError::Crypto)?;
    Ok(Zeroizing::new(hash.to_string()))
}

/// Argon2id with parameters that this machine can bear.
fn is_reasonable(hash: &PasswordHash) -> bool {
    hash.algorithm == argon2::ARGON2ID_IDENT
        && Params::try_from(hash).is_ok_and(|params| {
            params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX && params.p_cost() <= 4
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "correct horse battery";

    #[test]
    fn the_right_password_and_no_other() {
        let verification = PasswordVerification::new().unwrap();
        let hash = hash_password(PASSWORD).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", *hash);
        assert!(verification.verify(Some(&hash), PASSWORD.as_bytes()));
        for wrong in ["", "correct horse batter", "correct horse battery ", "Correct horse battery"] {
            assert!(!verification.verify(Some(&hash), wrong.as_bytes()), "{wrong:?}");
        }
        assert_ne!(hash, hash_password(PASSWORD).unwrap(), "salted");
        assert!(!verification.is_outdated(&hash));
    }

    #[test]
    fn nobody_has_no_password() {
        let verification = PasswordVerification::new().unwrap();
        for stored in [None, Some(""), Some("$argon2id$rubbish"), Some("$2b$12$abc")] {
            assert!(!verification.verify(stored, PASSWORD.as_bytes()));
        }
        // Not even the stand-in's own string is a password.
        assert!(!verification.verify(None, verification.nobody.as_bytes()));
    }

    #[test]
    fn limits() {
        assert_eq!(hash_password("short").unwrap_err(), PasswordError::TooShort);
        assert_eq!(hash_password(&"x".repeat(1025)).unwrap_err(), PasswordError::TooLong);
        let longest = "x".repeat(1024);
        let hash = hash_password(&longest).unwrap();
        let verification = PasswordVerification::new().unwrap();
        assert!(verification.verify(Some(&hash), longest.as_bytes()));
        assert!(!verification.verify(Some(&hash), &[b'x'; 5000]));
    }

    #[test]
    fn a_vector_of_the_reference_program() {
        // phc-winner-argon2's test.c: Argon2id, v 19, t 2, m 65536, p 1, "password", "somesalt".
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let verification = PasswordVerification::new().unwrap();
        assert!(verification.verify(Some(stored), b"password"));
        assert!(!verification.verify(Some(stored), b"differentpassword"));
    }

    #[test]
    fn a_hash_that_asks_for_the_whole_machine_is_refused() {
        let stored =
            "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(!PasswordVerification::new().unwrap().verify(Some(stored), b"password"));
        let weak = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(PasswordVerification::new().unwrap().is_outdated(weak));
    }

    #[test]
    fn unknown_users_cost_what_known_ones_do() {
        let verification = PasswordVerification::new().unwrap();
        let hash = hash_password(PASSWORD).unwrap();
        let cost = |stored: Option<&str>| {
            let mut times: Vec<_> = (0..5)
                .map(|_| {
                    let start = std::time::Instant::now();
                    assert!(!verification.verify(stored, b"wrong password!"));
                    start.elapsed()
                })
                .collect();
            times.sort();
            times[0].as_secs_f64()
        };
        let ratio = cost(Some(&hash)) / cost(None);
        assert!((0.2..5.0).contains(&ratio), "known users cost {ratio:.2} times unknown ones");
    }
}
