//! Time and randomness, in one place so that tests can control the clock.

use std::sync::Arc;

use bson::{DateTime, oid::ObjectId};

/// The backend's source of time, of ids and of random bytes.
///
/// ```
/// use backend::Environment;
/// use bson::DateTime;
///
/// let environment = Environment::with_clock(|| DateTime::from_millis(1_999));
/// assert_eq!(environment.unix_seconds(), 1);
/// ```
#[derive(Clone)]
pub struct Environment {
    clock: Arc<dyn Fn() -> DateTime + Send + Sync>,
    ids: Arc<dyn Fn() -> ObjectId + Send + Sync>,
}

impl Environment {
    /// Uses the system's clock.
    pub fn system() -> Self {
        Self::with_clock(DateTime::now)
    }

    /// Uses the caller's clock.
    pub fn with_clock(clock: impl Fn() -> DateTime + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ids: Arc::new(ObjectId::new) }
    }

    /// Uses the caller's source of ids, each of which must be new.
    #[must_use]
    pub fn with_ids(self, ids: impl Fn() -> ObjectId + Send + Sync + 'static) -> Self {
        Self { ids: Arc::new(ids), ..self }
    }

    /// Returns a new id, for a user, a session or a document.
    pub fn new_id(&self) -> ObjectId {
        (self.ids)()
    }

    /// Returns the current time in whole seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> i64 {
        (self.clock)().timestamp_millis().div_euclid(1000)
    }

    /// Returns cryptographically secure random bytes.
    ///
    /// # Errors
    /// `InternalServerError` if the system cannot provide random bytes.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], crate::Error> {
        let mut bytes = [0; N];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| crate::Error::internal("the system provides no random bytes"))?;
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
        Self::new_id(self)
    }
}
