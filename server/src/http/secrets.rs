//! Secrets and tokens: 256 random bits, base64url outside, SHA-256 inside.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use rove_core::directory::{Credentials, Digest, NewToken};

use super::error::ApiError;

/// Bytes of every secret: 256 bits.
const BYTES: usize = rove_protocol::limits::SECRET;

/// A secret on its way to its owner. Never logged: its `Debug` shows nothing.
pub(super) struct Secret([u8; BYTES]);

impl Secret {
    /// A new one.
    pub(super) fn draw() -> Result<Self, ApiError> {
        let mut bytes = [0; BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(|error| ApiError::internal(&error))?;
        Ok(Self(bytes))
    }

    /// As it travels.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// As it is kept.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The digest of a token as it was received, if it can be one.
pub(super) fn digest_of(text: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    (bytes.len() == BYTES).then(|| Digest::of(&bytes))
}

/// How long tokens live.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Of an access token, in milliseconds.
    pub access_ms: u64,
    /// Of a refresh token, in milliseconds.
    pub refresh_ms: u64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            // A stolen token is of little use after a quarter of an hour, and four refreshes an hour cost nothing.
            access_ms: 15 * 60 * 1_000,
            // Somebody back from a month away still needs no password.
            refresh_ms: 60 * 24 * 60 * 60 * 1_000,
        }
    }
}

/// An access and a refresh token.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) access: Secret,
    pub(super) refresh: Secret,
}

impl Tokens {
    pub(super) fn draw() -> Result<Self, ApiError> {
        Ok(Self { access: Secret::draw()?, refresh: Secret::draw()? })
    }

    pub(super) fn new_access(&self, lifetimes: Lifetimes) -> NewToken {
        NewToken { token: self.access.digest(), lifetime_ms: lifetimes.access_ms }
    }

    pub(super) fn new_refresh(&self, lifetimes: Lifetimes) -> NewToken {
        NewToken { token: self.refresh.digest(), lifetime_ms: lifetimes.refresh_ms }
    }
}

/// Everything a device gets when it signs in.
#[derive(Debug)]
pub(super) struct DeviceSecrets {
    pub(super) secret: Secret,
    pub(super) tokens: Tokens,
}

impl DeviceSecrets {
    pub(super) fn draw() -> Result<Self, ApiError> {
        Ok(Self { secret: Secret::draw()?, tokens: Tokens::draw()? })
    }

    pub(super) fn credentials(&self, lifetimes: Lifetimes) -> Credentials {
        Credentials {
            secret: self.secret.digest(),
            access: self.tokens.new_access(lifetimes),
            refresh: self.tokens.new_refresh(lifetimes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_to_its_digest_and_shows_nothing() {
        let secret = Secret::draw().unwrap();
        assert_eq!(digest_of(&secret.text()), Some(secret.digest()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_ne!(secret.text(), Secret::draw().unwrap().text());
        for bad in ["", "short", &"A".repeat(44), &format!("{} ", secret.text())] {
            assert_eq!(digest_of(bad), None, "{bad:?}");
        }
    }
}
