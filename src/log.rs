//! Forwards the log of the Rust crates to the loggers of JavaScript.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, Once, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use napi::bindgen_prelude::External;
use napi_derive::napi;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

use crate::{bridge::Bridge, outbox::Outbox};

/// The crates whose log is forwarded.
const OURS: [&str; 6] = ["backend", "client", "query", "server", "store", "userkeep"];

/// The levels by name, from the quietest to the most verbose.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// A log line.
#[napi(object)]
#[derive(Clone)]
pub(crate) struct LogLine {
    pub level: String,
    pub message: String,
    /// The fields as a JSON object.
    pub fields: Option<String>,
}

static OUTBOXES: Mutex<Vec<Weak<Outbox>>> = Mutex::new(Vec::new());

/// The most verbose level of all environments, as an index of [`LEVELS`].
static LOUDEST: AtomicUsize = AtomicUsize::new(0);

/// Starts to forward log lines to an environment, in addition to other environments.
pub(crate) fn add(outbox: &Arc<Outbox>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // If another addon of the process has already installed a subscriber, it receives these
        // lines.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Forward));
    });
    let mut outboxes = OUTBOXES.lock().unwrap_or_else(PoisonError::into_inner);
    outboxes.retain(|outbox| outbox.strong_count() > 0);
    outboxes.push(Arc::downgrade(outbox));
}

/// Sets the log level of an environment.
#[napi]
pub(crate) fn set_log_level(bridge: &External<Bridge>, level: String) -> napi::Result<()> {
    let place = LEVELS.iter().position(|(name, _)| *name == level);
    let place = place.ok_or_else(|| napi::Error::from_reason(format!("there is no log level '{level}'")))?;
    bridge.outbox().log_level.store(place, Ordering::Relaxed);
    let loudest = outboxes().iter().map(|outbox| outbox.log_level.load(Ordering::Relaxed)).max();
    LOUDEST.store(loudest.unwrap_or(0), Ordering::Relaxed);
    Ok(())
}

fn outboxes() -> Vec<Arc<Outbox>> {
    OUTBOXES.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}

fn is_wanted(place: usize, level: &Level) -> bool {
    LEVELS.get(place).is_some_and(|(_, filter)| level <= filter)
}

struct Forward;

/// The fields of a span, which are added to each of its lines.
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Forward {
    /// Prevents caching of the result of `enabled`, because the level may change at any time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let name = metadata.target().split("::").next().unwrap_or_default();
        is_wanted(LOUDEST.load(Ordering::Relaxed), metadata.level()) && OURS.contains(&name)
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Fields(text.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Fields(fields)) = span.extensions().get() {
                text.fields.extend(fields.clone());
            }
        }
        let level = event.metadata().level();
        let fields = if text.fields.is_empty() { None } else { serde_json::to_string(&text.fields).ok() };
        let line = LogLine { level: level.as_str().to_ascii_lowercase(), message: text.message, fields };
        for outbox in outboxes() {
            if is_wanted(outbox.log_level.load(Ordering::Relaxed), level) {
                outbox.log(line.clone());
            }
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: Map<String, Value>,
}

impl Text {
    fn note(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            name => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Text {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(field, format!("{value:?}").into());
    }
}
