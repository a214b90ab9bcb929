//! Time and randomness, behind one door so that a test can hold both.

use std::sync::Arc;

use bson::{DateTime, oid::ObjectId};

/// Where the backend takes the time and random bytes from.
#[derive(Clone)]
pub struct Environment {
    clock: Arc<dyn Fn() -> DateTime + Send + Sync>,
}

impl Environment {
    /// The system's clock.
    pub fn system() -> Self {
        Self { clock: Arc::new(DateTime::now) }
    }

    /// A clock of the caller's.
    pub fn with_clock(clock: impl Fn() -> DateTime + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock) }
    }

    /// Seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> i64 {
        (self.clock)().timestamp_millis().div_euclid(1000)
    }

    /// Bytes that nobody can guess.
    ///
    /// # Errors
    /// Where the system has none to give.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], crate::Error> {
        let mut bytes = [0; N];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| crate::Error::internal("no randomness"))?;
        Ok(bytes)
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Environment")
    }
}

impl query::Environment for Environment {
    fn now(&self) -> DateTime {
        (self.clock)()
    }

    fn new_id(&self) -> ObjectId {
        ObjectId::new()
    }
}
