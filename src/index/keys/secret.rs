//! The secret of a key: 256 random bits from the system, shown once and kept nowhere.

use std::fmt;

use super::super::Error;

/// By it people, log scrubbers and secret scanners recognise one: `dsk_` and 64 hexadecimal digits.
const PREFIX: &str = "dsk_";

/// Hexadecimal digits of 256 bits.
const DIGITS: usize = 64;

/// Of the digits, those that a list of keys shows: enough to tell keys apart, and 224 bits are left to guess.
const SHOWN: usize = 8;

/// A new secret. Printed by [`KeySecret::reveal`] alone.
#[derive(Clone)]
pub struct KeySecret(String);

impl KeySecret {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn make() -> Result<Self, Error> {
        let mut bits = [0; 32];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut bits).map_err(|_| Error::Unavailable("the system gives no random numbers".to_owned()))?;
        // Only for its hexadecimal digits: nothing is hashed here.
        Ok(Self(format!("{PREFIX}{}", blake3::Hash::from_bytes(bits).to_hex())))
    }

    /// The secret, for the one time that it is shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What a list shows of it.
    pub(super) fn hint(&self) -> String {
        format!("{}…", &self.0[..PREFIX.len() + SHOWN])
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeySecret")
    }
}

/// What is stored of a secret, and looked up; none for a text that cannot be one.
pub(super) fn hash(secret: &[u8]) -> Option<blake3::Hash> {
    let digits = secret.strip_prefix(PREFIX.as_bytes())?;
    (digits.len() == DIGITS).then(|| blake3::hash(secret))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn secrets_are_recognisable_all_different_and_not_shown() {
        let secrets: Vec<KeySecret> = (0..1_000).map(|_| KeySecret::make().expect("random numbers")).collect();
        for secret in &secrets {
            let digits = secret.reveal().strip_prefix("dsk_").expect("the prefix");
            assert!(digits.len() == 64 && digits.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
            assert_eq!(format!("{secret:?}"), "KeySecret");
            assert!(hash(secret.reveal().as_bytes()).is_some());
        }
        let different: HashSet<&str> = secrets.iter().map(KeySecret::reveal).collect();
        assert_eq!(different.len(), secrets.len());
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_even_hashed() {
        for text in [&b""[..], b"dsk_", b"dsk_123", b"Bearer dsk_", &[0xff; 68], &[b'd'; 10_000]] {
            assert_eq!(hash(text), None);
        }
    }
}
