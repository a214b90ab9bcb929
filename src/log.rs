//! What the Rust side logs, on its way to JavaScript's loggers.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex, Once, PoisonError, Weak},
};

use napi_derive::napi;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::bridge::Outbox;

/// One line.
#[napi(object)]
#[derive(Clone)]
pub struct LogLine {
    pub level: String,
    pub message: String,
}

static OUTBOXES: Mutex<Vec<Weak<Outbox>>> = Mutex::new(Vec::new());

/// Sends what is logged from now on to an environment too.
pub fn add(outbox: &Arc<Outbox>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // Another addon of the process may have installed one of its own; then it takes our lines.
        let _ = tracing::subscriber::set_global_default(Forward);
    });
    let mut outboxes = OUTBOXES.lock().unwrap_or_else(PoisonError::into_inner);
    outboxes.retain(|outbox| outbox.strong_count() > 0);
    outboxes.push(Arc::downgrade(outbox));
}

struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = ["backend", "client", "store", "query", "userkeep"]
            .iter()
            .any(|name| metadata.target().split("::").next() == Some(name));
        ours && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = LogLine {
            level: event.metadata().level().as_str().to_ascii_lowercase(),
            message: format!("{}{}", text.message, text.fields),
        };
        let outboxes: Vec<_> =
            OUTBOXES.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        outboxes.iter().for_each(|outbox| outbox.log(line.clone()));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
