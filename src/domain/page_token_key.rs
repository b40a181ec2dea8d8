//! The key that signs page tokens.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac, digest::Key};
use sha2::Sha256;

/// Length of the key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Length of a signature, in bytes: 128 bits, beyond guessing.
pub const SIGNATURE_BYTES: usize = 16;

/// The key that signs page tokens. All replicas on a database share it. The default is for tokens
/// that never leave the process, and a placeholder in requests that are rejected.
#[derive(Clone, Copy, Default)]
pub struct PageTokenKey([u8; KEY_BYTES]);

impl PageTokenKey {
    /// Makes a key of random bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        PageTokenKey(bytes)
    }

    /// Returns the signature of `bytes`: the beginning of their HMAC-SHA-256.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        // HMAC pads a key with zeros to the block of its hash.
        let mut block = Key::<Hmac<Sha256>>::default();
        block
            .iter_mut()
            .zip(self.0)
            .for_each(|(to, from)| *to = from);
        let mac = Hmac::<Sha256>::new(&block).chain_update(bytes);
        let mac = mac.finalize().into_bytes();
        mac.into_iter().take(SIGNATURE_BYTES).collect()
    }
}

/// Hides the key, which would otherwise end up in a log.
impl fmt::Debug for PageTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageTokenKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_depends_on_every_byte_of_the_key_and_of_the_content() {
        let signature = PageTokenKey::new([7; KEY_BYTES]).sign(b"content");
        assert_eq!(signature.len(), SIGNATURE_BYTES);
        assert_ne!(
            PageTokenKey::new([7; KEY_BYTES]).sign(b"contenu"),
            signature
        );
        for at in 0..KEY_BYTES {
            let mut key = [7; KEY_BYTES];
            key[at] = 8;
            assert_ne!(PageTokenKey::new(key).sign(b"content"), signature);
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        let key = PageTokenKey::new([7; KEY_BYTES]);
        assert!(!format!("{key:?}").contains('7'));
    }
}
