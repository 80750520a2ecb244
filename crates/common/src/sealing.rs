//! Sealing: AES-256-GCM under a key made for one envelope, the whole header as additional data.
//!
//! The envelope's key is HKDF-SHA256 of the tenant's data key with the envelope id as salt, so no two envelopes share a
//! key and a leaked one opens a single envelope. The nonce is random on top of that. Payloads over 1 KiB are compressed
//! first, each on its own, so that nothing about one leaks through the size of another.

use std::cell::RefCell;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use crate::envelope::{self, EnvelopeError, Header, Packing, Parts};
use crate::ids::EnvelopeId;
use crate::keys::DataKey;

/// Payloads up to this size are not compressed.
const COMPRESS_OVER: usize = 1024;
/// No payload unpacks to more than this; the gateway's limit for a body is 4 MiB.
const MAX_PAYLOAD: usize = 8 << 20;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const INFO: &[u8] = b"wharf/envelope/v1";

/// A sealed payload that does not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// See [`EnvelopeError`].
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Changed on the way, or sealed under another key of the same id.
    #[error("the payload does not open under its key: it was changed, or the key is another one")]
    NotAuthentic,
    /// It opens, but does not unpack to its announced size.
    #[error("the payload does not unpack")]
    Unpackable,
}

/// Seals `payload` into an envelope. `header.packing` and `header.size` are set here.
pub fn seal(mut header: Header, payload: &[u8], key: &DataKey) -> Vec<u8> {
    let packed = (payload.len() > COMPRESS_OVER).then(|| compress(payload)).flatten();
    header.packing = if packed.is_some() { Packing::Zstd } else { Packing::Plain };
    header.size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let plain = packed.as_deref().unwrap_or(payload);
    seal_packed(&header, plain, key, rand::random())
}

fn seal_packed(header: &Header, plain: &[u8], key: &DataKey, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
    let mut out = envelope::encode_prefix(header, NONCE_LEN + plain.len() + TAG_LEN);
    let associated_len = out.len();
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plain);
    let (associated, rest) = out.split_at_mut(associated_len);
    let sealing_key = envelope_key(key, header.id);
    let sealed = sealing_key.seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(&*associated),
        &mut rest[NONCE_LEN..],
    );
    // Only plaintexts of 64 GiB fail; the ingress limit is 4 MiB.
    let Ok(tag) = sealed else { unreachable!("payload is bounded by the body limit") };
    out.extend_from_slice(tag.as_ref());
    out
}

/// Opens an envelope that was taken apart by [`envelope::decode`].
pub fn open(parts: &Parts<'_>, key: &DataKey) -> Result<Vec<u8>, OpenError> {
    let Some((nonce, ciphertext)) = parts.sealed.split_first_chunk::<NONCE_LEN>() else {
        return Err(OpenError::NotAuthentic);
    };
    let mut buffer = ciphertext.to_vec();
    let opening_key = envelope_key(key, parts.header.id);
    let plain_len = opening_key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(parts.associated), &mut buffer)
        .map_err(|_| OpenError::NotAuthentic)?
        .len();
    buffer.truncate(plain_len);
    let size = parts.header.size as usize;
    let payload = match parts.header.packing {
        Packing::Plain => buffer,
        Packing::Zstd if size <= MAX_PAYLOAD => {
            zstd::bulk::decompress(&buffer, size).map_err(|_| OpenError::Unpackable)?
        }
        Packing::Zstd => return Err(OpenError::Unpackable),
    };
    if payload.len() == size { Ok(payload) } else { Err(OpenError::Unpackable) }
}

fn envelope_key(key: &DataKey, id: EnvelopeId) -> LessSafeKey {
    let pseudo_random = Salt::new(HKDF_SHA256, id.0.as_bytes()).extract(key.secret());
    let okm = pseudo_random.expand(&[INFO], &AES_256_GCM);
    let Ok(okm) = okm else { unreachable!("an AES-256 key is shorter than HKDF's limit") };
    LessSafeKey::new(UnboundKey::from(okm))
}

/// Compresses with a context kept per thread: making one costs more than compressing a webhook.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(1).ok();
        }
        slot.as_mut()?.compress(payload).ok()
    })
}

#[cfg(test)]
mod tests;
