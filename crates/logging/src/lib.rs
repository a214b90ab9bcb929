//! Forwards the log of Userkeep's crates to receivers, as lines with fields.
//!
//! The crates write their log with `tracing`. Each receiver has a level of its own: an application
//! has one per JavaScript environment.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, Once, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Map, Value};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

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

/// A level of the log, from `off` to `trace`.
///
/// ```
/// use logging::Level;
///
/// assert!(Level::named("debug") > Level::named("warn"));
/// assert_eq!(Level::named("loud"), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(usize);

impl Level {
    /// Returns a level by its name: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub fn named(name: &str) -> Option<Self> {
        LEVELS.iter().position(|(known, _)| *known == name).map(Self)
    }

    fn of(level: tracing::Level) -> Self {
        Self(LEVELS.iter().position(|(_, filter)| *filter == level).unwrap_or_default())
    }

    fn name(self) -> &'static str {
        LEVELS.get(self.0).map_or("off", |(name, _)| name)
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name of the level.
    pub level: &'static str,
    /// The message.
    pub message: String,
    /// The fields of the line and of its spans, as a JSON object; `None` if there are none.
    pub fields: Option<String>,
}

/// Receives the lines up to its level.
pub trait Receiver: Send + Sync {
    /// The most verbose level of the lines to receive. Call [`update`] after a change.
    fn level(&self) -> Level;

    /// Receives a line, on the thread that wrote it.
    fn receive(&self, line: Line);
}

static RECEIVERS: Mutex<Vec<Weak<dyn Receiver>>> = Mutex::new(Vec::new());

/// The most verbose level of all receivers.
static LOUDEST: AtomicUsize = AtomicUsize::new(0);

/// Starts to forward lines to a receiver, in addition to others.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use logging::{Level, Line, Receiver};
///
/// struct Lines(Mutex<Vec<Line>>);
///
/// impl Receiver for Lines {
///     fn level(&self) -> Level {
///         Level::named("info").unwrap_or_default()
///     }
///
///     fn receive(&self, line: Line) {
///         self.0.lock().unwrap().push(line);
///     }
/// }
///
/// let lines = Arc::new(Lines(Mutex::default()));
/// let receiver: Arc<dyn Receiver> = lines.clone();
/// logging::add(Arc::downgrade(&receiver));
/// tracing::info!(target: "store", documents = 3, "compacted");
/// tracing::debug!(target: "store", "not received");
/// let line = Line { level: "info", message: "compacted".into(), fields: Some(r#"{"documents":3}"#.into()) };
/// assert_eq!(*lines.0.lock().unwrap(), [line]);
/// ```
pub fn add(receiver: Weak<dyn Receiver>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // If another addon of the process has already installed a subscriber, it receives these
        // lines.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Forward));
    });
    let mut receivers = RECEIVERS.lock().unwrap_or_else(PoisonError::into_inner);
    receivers.retain(|receiver| receiver.strong_count() > 0);
    receivers.push(receiver);
    drop(receivers);
    update();
}

/// Reads the levels of all receivers again.
pub fn update() {
    let loudest = receivers().iter().map(|receiver| receiver.level()).max();
    LOUDEST.store(loudest.unwrap_or_default().0, Ordering::Relaxed);
}

fn receivers() -> Vec<Arc<dyn Receiver>> {
    RECEIVERS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
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
        Level::of(*metadata.level()).0 <= LOUDEST.load(Ordering::Relaxed) && OURS.contains(&name)
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
        let level = Level::of(*event.metadata().level());
        let fields = if text.fields.is_empty() { None } else { serde_json::to_string(&text.fields).ok() };
        let line = Line { level: level.name(), message: text.message, fields };
        for receiver in receivers().into_iter().filter(|receiver| level <= receiver.level()) {
            receiver.receive(line.clone());
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
