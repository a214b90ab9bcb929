//! Metrics of the server, in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use backend::Backend;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The upper bounds of the buckets of the duration histogram, in seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// The metrics of a server.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    /// Number of open event streams.
    pub(crate) streams: Gauge,
}

/// Counts a running request or an open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    metrics: &'a Metrics,
    gauge: &'a Gauge,
}

/// Exports the counters of the backend.
#[derive(Debug)]
struct OfBackend(Arc<Backend>);

impl Collector for OfBackend {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            ("userkeep_refused_attempts", "Attempts rejected by the rate limit", self.0.refused()),
            (
                "userkeep_log_entries_dropped",
                "Log entries dropped because there were too many",
                self.0.log_entries_dropped(),
            ),
            (
                "userkeep_custom_data_left_out",
                "Access tokens issued without custom data because it was too large",
                self.0.custom_data_left_out(),
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

impl Metrics {
    pub(crate) fn new(backend: Arc<Backend>) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(BOUNDS));
        let (in_flight, connections, streams) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("userkeep_http_requests", "Completed requests", requests.clone());
        registry.register_with_unit(
            "userkeep_http_request_duration",
            "Duration of requests",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register("userkeep_http_requests_in_flight", "Running requests", in_flight.clone());
        registry.register("userkeep_http_connections", "Open connections", connections.clone());
        registry.register("userkeep_event_streams", "Open streams of change events", streams.clone());
        registry.register_collector(Box::new(OfBackend(backend)));
        Self { registry: Arc::new(Mutex::new(registry)), requests, durations, in_flight, connections, streams }
    }

    /// Counts a request as running until the returned guard is dropped.
    pub(crate) fn begin(&self) -> Running<'_> {
        Running::new(self, &self.in_flight)
    }

    /// Counts a connection as open until the returned guard is dropped.
    pub(crate) fn connected(&self) -> Running<'_> {
        Running::new(self, &self.connections)
    }

    /// Returns all metrics as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

impl<'a> Running<'a> {
    fn new(metrics: &'a Metrics, gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self { metrics, gauge }
    }

    /// Records a completed request. If the client disconnects before the response, the guard is
    /// dropped and the request is not recorded.
    pub(crate) fn end(self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let labels = RequestLabels { method: name(method), route: route.to_owned(), status: status.as_u16() };
        self.metrics.requests.get_or_create(&labels).inc();
        self.metrics.durations.get_or_create(&RouteLabels { route: labels.route }).observe(took.as_secs_f64());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Returns the label of a method. Unknown methods share one label, so that clients cannot create
/// new time series.
fn name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "HEAD" => "HEAD",
        _ => "other",
    }
}
