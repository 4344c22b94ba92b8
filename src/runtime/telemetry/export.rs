//! Spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! A thread of its own sends them in batches; requests only put them into a bounded queue, and a full one drops them. So a
//! collector that is away, slow or silent costs spans and nothing else. What is queued at the end is sent within a bound.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData},
};

use super::Error;
use crate::runtime::metrics;

/// Where spans go, and how many.
#[derive(Clone, Debug)]
pub struct Config {
    /// The collector's address, without `/v1/traces`.
    pub endpoint: String,
    /// The part of the requests whose caller has not decided.
    pub sample_ratio: f64,
}

/// Spans that wait. A request makes about ten, so this is a burst of 400 sampled requests; about 4 MB.
const QUEUE: usize = 4_096;

/// Spans of one call, as the specification has it.
const BATCH: usize = 512;

/// Waiting spans are sent this often: a trace is to be found when somebody looks for it.
const EVERY: Duration = Duration::from_secs(1);

/// One call to the collector. Above what a busy one takes, below what the end of the process allows.
const CALL: Duration = Duration::from_secs(3);

/// Starts the thread that sends.
///
/// # Errors
/// When no client can be made.
pub fn start(config: &Config) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", config.endpoint.trim_end_matches('/')))
        .with_timeout(CALL)
        .build()
        .map_err(|error| Error::Exporter(error.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(EVERY)
        .build();
    let exporter = Telling { exporter, failing: AtomicBool::new(false) };
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("doc-server").with_attribute(version).build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource);
    Ok(provider.with_sampler(sampler).build())
}

/// An exporter that says when the collector does not take spans: once, and once when it does again.
#[derive(Debug)]
struct Telling {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl trace::SpanExporter for Telling {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let number = spans.len();
        let sent = self.exporter.export(spans).await;
        let failed = sent.is_err();
        let before = self.failing.swap(failed, Ordering::Relaxed);
        match &sent {
            Err(error) => {
                metrics::record_spans_lost(number as u64);
                if !before {
                    tracing::warn!(%error, "the collector at otlp_endpoint takes no spans; they are lost until it does");
                }
            }
            Ok(()) if before => tracing::info!("the collector takes spans again"),
            Ok(()) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
