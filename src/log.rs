//! Delivers log lines to an environment.

use std::sync::{Arc, Weak};

use logging::{Level, Line, Receiver};
use napi::bindgen_prelude::External;
use napi_derive::napi;

use crate::{bridge::Bridge, outbox::Outbox};

/// A log line.
#[napi(object, object_from_js = false)]
pub(crate) struct LogLine {
    pub level: &'static str,
    pub message: String,
    /// The fields as a JSON object.
    pub fields: Option<String>,
}

impl Receiver for Outbox {
    fn level(&self) -> Level {
        self.log_level()
    }

    fn receive(&self, Line { level, message, fields }: Line) {
        self.log(LogLine { level, message, fields });
    }
}

/// Starts to forward log lines to an environment.
pub(crate) fn add(outbox: &Arc<Outbox>) {
    let receiver: Weak<dyn Receiver> = Arc::downgrade(&(Arc::clone(outbox) as Arc<dyn Receiver>));
    logging::add(receiver);
}

/// Sets the log level of an environment.
#[napi]
pub(crate) fn set_log_level(bridge: &External<Bridge>, level: String) -> napi::Result<()> {
    let known = Level::named(&level);
    let known = known.ok_or_else(|| napi::Error::from_reason(format!("there is no log level '{level}'")))?;
    bridge.outbox().set_log_level(known);
    logging::update();
    Ok(())
}
