use bson::{DateTime, oid::ObjectId};
use query::Environment;

/// The system's clock, and ids that nobody else has.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now(&self) -> DateTime {
        DateTime::now()
    }

    fn new_id(&self) -> ObjectId {
        ObjectId::new()
    }
}
