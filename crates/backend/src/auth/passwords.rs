//! Password hashing with argon2id, on a few dedicated threads with a bounded queue, so that a
//! flood of log-ins delays only other log-ins.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use tokio::sync::oneshot;

use crate::{Error, Result, Secret};

/// The maximum number of passwords that wait to be hashed. Further log-ins are rejected.
const QUEUE: usize = 128;

/// The value of `Retry-After` if the queue is full, in seconds.
const RETRY_AFTER: u64 = 2;

/// The parameters that OWASP recommends: 19 MiB, two passes, one lane
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The niceness of the threads: the amount by which their priority is below the default.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

type Work = Box<dyn FnOnce(&Argon2<'static>) + Send>;

/// The thread pool, shared by all backends of the process.
#[derive(Clone)]
pub(crate) struct Passwords {
    queue: SyncSender<Work>,
    /// A hash to verify against if the user does not exist, so that the response takes the same
    /// time.
    decoy: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Passwords> = OnceLock::new();
        SHARED.get_or_init(Self::start).clone()
    }

    fn start() -> Self {
        let (queue, work) = sync_channel::<Work>(QUEUE);
        let work = Arc::new(Mutex::new(work));
        let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4));
        for number in 0..threads {
            let work = Arc::clone(&work);
            let spawned =
                std::thread::Builder::new().name(format!("userkeep-password-{number}")).spawn(move || run(&work));
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start a password hashing thread");
            }
        }
        Self { queue, decoy: Arc::default() }
    }

    /// Hashes a password for storage.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String> {
        self.run(move |argon2| argon2.hash_password(password.expose().as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(Error::internal)
    }

    /// True if the password matches the hash. Without a hash, takes the same time and returns
    /// false.
    pub(crate) async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        let decoy = Arc::clone(&self.decoy);
        self.run(move |argon2| {
            let known = hash.is_some();
            let hash = hash.unwrap_or_else(|| {
                let nobodys = || argon2.hash_password(&[0; 32]).map(|hash| hash.to_string()).unwrap_or_default();
                decoy.get_or_init(nobodys).clone()
            });
            let is_right = argon2.verify_password(password.expose().as_bytes(), hash.as_str()).is_ok();
            known && is_right
        })
        .await
    }

    /// Creates the decoy hash, so that the first log-in of an unknown user takes no longer than
    /// others.
    pub(crate) fn warm_up(&self) {
        let decoy = Arc::clone(&self.decoy);
        let _ = self.queue.try_send(Box::new(move |argon2| {
            decoy.get_or_init(|| argon2.hash_password(&[0; 32]).map(|hash| hash.to_string()).unwrap_or_default());
        }));
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Work = Box::new(move |argon2| {
            // Fails if the client has disconnected, which needs no result.
            if !reply.is_closed() {
                let _ = reply.send(work(argon2));
            }
        });
        match self.queue.try_send(job) {
            Ok(()) => answer.await.map_err(Error::internal),
            Err(TrySendError::Full(_)) => {
                Err(Error::retry_later("too many log-ins at once; try again later", RETRY_AFTER))
            }
            Err(TrySendError::Disconnected(_)) => Err(Error::internal("the password hashing threads have ended")),
        }
    }
}

fn run(work: &Mutex<Receiver<Work>>) {
    // If there are more log-ins than cores, requests of logged-in users take precedence. On other
    // systems, a thread cannot lower its own priority without privileges.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap_or_default();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // If a job panics, its caller receives an error, and the thread continues.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&argon2)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_is_accepted() {
        let passwords = Passwords::shared();
        let hash = passwords.hash("passw0rd".to_owned().into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("passw0rd".to_owned().into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("Passw0rd".to_owned().into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("passw0rd".to_owned().into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn passwords_beyond_the_queue_are_rejected() {
        let (queue, _kept) = sync_channel::<Work>(1);
        let passwords = Passwords { queue, decoy: Arc::default() };
        passwords.warm_up();
        let error = passwords.hash("passw0rd".to_owned().into()).await.unwrap_err();
        assert_eq!(error.code.status(), 429);
    }
}
