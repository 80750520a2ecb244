//! The key ring: master keys by id, and what is wrapped under them.
//!
//! A master key never touches a message. It wraps each tenant's data keys and hash keys and the providers' secrets,
//! all of which travel wrapped in the directory. To rotate without a stop: add the new master key to every process as
//! a further one, then make it the first (new wraps use it), then [rewrap](crate::directory::Directory::rewrap) what is
//! under the old one; only then take the old one away.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

/// The bytes of a key.
pub type KeyBytes = [u8; 32];

/// A tenant's data key, ready for use.
#[derive(Clone)]
pub struct DataKey {
    id: String,
    secret: KeyBytes,
}

impl DataKey {
    /// A key of known bytes.
    pub fn from_secret(id: &str, secret: KeyBytes) -> Self {
        Self { id: id.to_owned(), secret }
    }

    /// Its id, as envelopes name it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) const fn secret(&self) -> &KeyBytes {
        &self.secret
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, REDACTED)", self.id)
    }
}

/// A secret wrapped under a master key. The context it was wrapped for (owner and purpose) is authenticated with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    /// The master key's id.
    pub master: String,
    /// Nonce, ciphertext and tag, base64.
    #[serde(with = "base64_bytes")]
    pub sealed: Vec<u8>,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wrapped(master {})", self.master)
    }
}

/// A secret that does not unwrap.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnwrapError {
    /// The ring lacks the master key.
    #[error("master key `{0}` is not in the key ring; add it to the key file of this process")]
    UnknownMasterKey(String),
    /// Damaged, or wrapped for another owner or purpose.
    #[error("a wrapped key does not open under master key `{0}`")]
    NotAuthentic(String),
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyRingError {
    /// There is no key in it.
    #[error("the key file holds no key; each line is `<id> <64 hex digits>`, the first key wraps, all unwrap")]
    Empty,
    /// A line is not a key.
    #[error("line {0} of the key file is not `<id> <64 hex digits>`")]
    BadLine(usize),
    /// Two keys have one id.
    #[error("line {0} of the key file repeats an id")]
    RepeatedId(usize),
}

/// The master keys of a process. The first wraps; all unwrap.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<(String, LessSafeKey)>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl KeyRing {
    /// Reads the text of a key file: a line for each key, `<id> <64 hex digits>`; blank lines and `#` comments are
    /// skipped. The first key wraps.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<(String, LessSafeKey)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || KeyRingError::BadLine(index + 1);
            let (id, digits) = line.split_once(char::is_whitespace).ok_or_else(bad)?;
            let mut bytes = [0; 32];
            hex::decode_to_slice(digits.trim(), &mut bytes).map_err(|_| bad())?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyRingError::RepeatedId(index + 1));
            }
            keys.push((id.to_owned(), aead_key(&bytes)));
        }
        if keys.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self { keys }) }
    }

    /// A new key file with one random key.
    pub fn generate_file(id: &str) -> String {
        let bytes: KeyBytes = rand::random();
        format!(
            "# Wharf master keys. The first wraps, all unwrap. Keep a copy: without it nothing stored can be read.\n{id} {}\n",
            hex::encode(bytes)
        )
    }

    /// The id of the key that wraps.
    pub fn active_id(&self) -> &str {
        &self.keys[0].0
    }

    /// Wraps a secret for one owner and purpose.
    pub fn wrap(&self, context: &str, secret: &[u8]) -> Wrapped {
        let (id, key) = &self.keys[0];
        let nonce: [u8; 12] = rand::random();
        let mut sealed = Vec::with_capacity(12 + secret.len() + 16);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(secret);
        let tag = key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated(context)),
            &mut sealed[12..],
        );
        let Ok(tag) = tag else { unreachable!("a secret is shorter than AES-GCM's limit of 64 GiB") };
        sealed.extend_from_slice(tag.as_ref());
        Wrapped { master: id.clone(), sealed }
    }

    /// Unwraps a secret that was wrapped for the same owner and purpose.
    pub fn unwrap(&self, context: &str, wrapped: &Wrapped) -> Result<Vec<u8>, UnwrapError> {
        let (_, key) = self
            .keys
            .iter()
            .find(|(id, _)| *id == wrapped.master)
            .ok_or_else(|| UnwrapError::UnknownMasterKey(wrapped.master.clone()))?;
        let bad = || UnwrapError::NotAuthentic(wrapped.master.clone());
        let (nonce, sealed) = wrapped.sealed.split_first_chunk::<12>().ok_or_else(bad)?;
        let mut buffer = sealed.to_vec();
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(associated(context)), &mut buffer)
            .map_err(|_| bad())?;
        Ok(plain.to_vec())
    }

    /// Unwraps a key of 32 bytes.
    pub fn unwrap_key(&self, context: &str, wrapped: &Wrapped) -> Result<KeyBytes, UnwrapError> {
        let bytes = self.unwrap(context, wrapped)?;
        bytes.try_into().map_err(|_| UnwrapError::NotAuthentic(wrapped.master.clone()))
    }

    /// The same secret under the active master key; `None` if it is already.
    pub fn rewrap(&self, context: &str, wrapped: &Wrapped) -> Result<Option<Wrapped>, UnwrapError> {
        if wrapped.master == self.active_id() {
            return Ok(None);
        }
        Ok(Some(self.wrap(context, &self.unwrap(context, wrapped)?)))
    }
}

fn associated(context: &str) -> String {
    format!("wharf/wrap/v1/{context}")
}

fn aead_key(bytes: &KeyBytes) -> LessSafeKey {
    let Ok(key) = UnboundKey::new(&AES_256_GCM, bytes) else { unreachable!("an AES-256 key has 32 bytes") };
    LessSafeKey::new(key)
}

/// Base64 in JSON for byte strings.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(ids: &[&str]) -> KeyRing {
        let line = |id: &&str| format!("{id} {}\n", hex::encode([id.as_bytes()[0]; 32]));
        KeyRing::parse(&ids.iter().map(line).collect::<String>()).unwrap()
    }

    #[test]
    fn a_wrapped_secret_opens_for_its_owner_only() {
        let keys = ring(&["a"]);
        let wrapped = keys.wrap("tenant/acme/data/1", b"secret");
        assert_eq!(keys.unwrap("tenant/acme/data/1", &wrapped).unwrap(), b"secret");
        assert!(matches!(keys.unwrap("tenant/other/data/1", &wrapped), Err(UnwrapError::NotAuthentic(_))));
    }

    #[test]
    fn rotation_needs_no_moment_in_which_anyone_cannot_read() {
        let (old, both, flipped, new) = (ring(&["a"]), ring(&["a", "b"]), ring(&["b", "a"]), ring(&["b"]));
        let wrapped = old.wrap("x", b"s");
        assert_eq!(both.unwrap("x", &wrapped).unwrap(), b"s");
        let rewrapped = flipped.rewrap("x", &wrapped).unwrap().unwrap();
        for reader in [&both, &flipped, &new] {
            assert_eq!(reader.unwrap("x", &rewrapped).unwrap(), b"s");
        }
        assert_eq!(flipped.rewrap("x", &rewrapped).unwrap(), None);
        assert_eq!(new.unwrap("x", &wrapped), Err(UnwrapError::UnknownMasterKey("a".into())));
    }

    #[test]
    fn bad_key_files_are_explained() {
        assert_eq!(KeyRing::parse("# nothing\n").unwrap_err(), KeyRingError::Empty);
        assert_eq!(KeyRing::parse("a 00").unwrap_err(), KeyRingError::BadLine(1));
        let twice = format!("a {0}\na {0}\n", "00".repeat(32));
        assert_eq!(KeyRing::parse(&twice).unwrap_err(), KeyRingError::RepeatedId(2));
        assert_eq!(KeyRing::parse(&KeyRing::generate_file("m1")).unwrap().active_id(), "m1");
    }
}
