use bson::{DateTime, oid::ObjectId};
use query::Environment;

/// The environment of a running process: the system's clock, and globally unique ids.
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
