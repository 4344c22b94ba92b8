//! The W3C trace context (`traceparent`, `tracestate`): taken from who asks, and given to whom this process asks.
//!
//! Nothing here does anything while no spans are exported: each call is then one load.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{Status, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Whether spans are exported; set once, at the start.
static EXPORTING: AtomicBool = AtomicBool::new(false);

pub(super) fn begin() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Whether spans go to a collector.
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// Makes `span` that of a request whose headers `header` reads: a child of the caller's, with its trace id in the log.
pub fn adopt<'a>(span: &Span, header: impl Fn(&str) -> Option<&'a str>) {
    if !is_exporting() {
        return;
    }
    let caller = Incoming { traceparent: header("traceparent"), tracestate: header("tracestate") };
    let caller = TraceContextPropagator::new().extract(&caller);
    // Fails only for a span that nobody records.
    let _ = span.set_parent(caller);
    // Before the context is asked for, which begins the span as it is then.
    span.record("otel.kind", "server");
    let context = span.context();
    let own = context.span().span_context().clone();
    if own.is_valid() {
        span.record("trace_id", tracing::field::display(own.trace_id()));
    }
}

/// Tells with `span` how its request ended.
pub fn finish(span: &Span, status: u16) {
    if !is_exporting() {
        return;
    }
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(status.to_string()));
    }
}

/// The headers that make what is asked now a part of the current span's trace.
#[must_use]
pub fn outgoing() -> Vec<(String, String)> {
    let mut headers = Outgoing(Vec::new());
    if is_exporting() {
        TraceContextPropagator::new().inject_context(&Span::current().context(), &mut headers);
        headers.0.retain(|(_, value)| !value.is_empty());
    }
    headers.0
}

struct Incoming<'a> {
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct Outgoing(Vec<(String, String)>);

impl Injector for Outgoing {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}
