//! A deterministic environment for tests.

use bson::{DateTime, oid::ObjectId};
use query::Environment;

/// An environment with a fixed time and a fixed new id.
pub(crate) struct Fixed;

impl Environment for Fixed {
    fn now(&self) -> DateTime {
        DateTime::from_millis(0)
    }

    fn new_id(&self) -> ObjectId {
        ObjectId::from_bytes([7; 12])
    }
}
