//! Password hashing that cannot take the node with it (S21).
//!
//! A hash costs 19 MiB and tens of milliseconds of a core, on purpose. So only a few run at once, on threads of their own kind
//! (the runtime's blocking pool), and only so many wait; whoever comes then is told to come back. Limits on who may ask
//! at all come before, see [`super::rate_limit`].

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use rove_protocol::registry::ErrorCode;
use tokio::sync::Semaphore;

use super::error::ApiError;

/// OWASP's first choice for Argon2id with the least memory: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// How much hashing there may be at once.
#[derive(Debug, Clone, Copy)]
pub struct HashLimits {
    /// Hashes under way. Each has a core and 19 MiB to itself.
    pub concurrent: usize,
    /// Hashes that wait.
    pub queued: usize,
}

impl Default for HashLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            // Half of the cores: log-ins never take them all from the messages.
            concurrent: (cores / 2).max(1),
            // About ten seconds of work for one core: nobody waits longer than that for a log-in.
            queued: 256,
        }
    }
}

/// Hashes and verifies passwords.
#[derive(Debug, Clone)]
pub(super) struct Passwords(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    running: Arc<Semaphore>,
    /// Running and waiting.
    admitted: Arc<Semaphore>,
    /// The hash of a password nobody knows: what an unknown handle's password is compared with (S22).
    decoy: String,
}

impl Passwords {
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn new(limits: HashLimits) -> Result<Self, ApiError> {
        let mut nobodys = [0; 32];
        OsRng.try_fill_bytes(&mut nobodys).map_err(|error| ApiError::internal(&error))?;
        Ok(Self(Arc::new(Inner {
            running: Arc::new(Semaphore::new(limits.concurrent)),
            admitted: Arc::new(Semaphore::new(limits.concurrent + limits.queued)),
            decoy: hash(&nobodys)?,
        })))
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// Busy.
    pub(super) async fn hash(&self, password: String) -> Result<String, ApiError> {
        self.run(move || hash(password.as_bytes())).await?
    }

    /// Whether `password` is the one of `stored`. The same work if there is nothing stored: then it never is.
    ///
    /// # Errors
    /// Busy.
    pub(super) async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.0.decoy.clone());
        let right = self.run(move || verify(password.as_bytes(), &stored)).await??;
        Ok(right && known)
    }

    /// Hashes waiting and under way.
    pub(super) fn load(&self, limits: HashLimits) -> usize {
        (limits.concurrent + limits.queued).saturating_sub(self.0.admitted.available_permits())
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let busy = || ApiError::new(ErrorCode::Busy, "too many people are logging in; try again");
        let admitted = self.0.admitted.clone().try_acquire_owned().map_err(|_| busy())?;
        let running = self.0.running.clone().acquire_owned().await.map_err(|_| busy())?;
        // The permits go with the work: a client that goes away does not make room before its hash is done.
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop((running, admitted));
            result
        });
        done.await.map_err(|error| ApiError::internal(&error))
    }
}

fn argon2() -> Result<Argon2<'static>, ApiError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| ApiError::internal(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> Result<String, ApiError> {
    let mut salt = [0; 16];
    OsRng.try_fill_bytes(&mut salt).map_err(|error| ApiError::internal(&error))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| ApiError::internal(&error))?;
    let hash = argon2()?.hash_password(password, &salt).map_err(|error| ApiError::internal(&error))?;
    Ok(hash.to_string())
}

fn verify(password: &[u8], stored: &str) -> Result<bool, ApiError> {
    let stored = PasswordHash::new(stored).map_err(|error| ApiError::internal(&error))?;
    // The parameters are the stored hash's own, so that they can be raised later.
    Ok(argon2()?.verify_password(password, &stored).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_verifies_and_nothing_else() {
        let passwords = Passwords::new(HashLimits::default()).unwrap();
        let stored = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.verify("correct horse".to_owned(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".to_owned(), Some(stored)).await.unwrap());
        assert!(!passwords.verify("correct horse".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn rove_7_2_1_a_password_of_nobody_is_hashed_like_one_of_somebody() {
        let stored = hash(b"correct horse").unwrap();
        // Where there is no hashing, neither is answered; where there is, both use the same parameters.
        let none = Passwords::new(HashLimits { concurrent: 0, queued: 0 }).unwrap();
        for stored in [Some(stored.clone()), None] {
            let refused = none.verify("correct horse".to_owned(), stored).await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::Busy);
        }
        let parameters = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parameters(&none.0.decoy), parameters(&stored));
    }

    #[tokio::test]
    async fn beyond_the_queue_one_is_told_to_come_back() {
        let limits = HashLimits { concurrent: 1, queued: 1 };
        let passwords = Passwords::new(limits).unwrap();
        let hashes = (0..8).map(|number| passwords.hash(format!("password {number}")));
        let results = futures::future::join_all(hashes).await;
        let busy = results.iter().filter(|result| result.as_ref().is_err_and(|e| e.code() == ErrorCode::Busy)).count();
        assert_eq!((results.len() - busy, busy), (2, 6));
        assert_eq!(passwords.load(limits), 0);
        passwords.hash("and then there is room".to_owned()).await.unwrap();
    }
}
