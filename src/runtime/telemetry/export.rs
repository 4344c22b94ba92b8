//! Spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! A thread of its own sends them in batches; requests only put them into a bounded queue, and a full one drops them. So a
//! collector that is away, slow or silent costs spans and nothing else. What is queued at the end is sent within a bound.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};

use super::Error;

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
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("doc-server").with_attribute(version).build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource);
    Ok(provider.with_sampler(sampler).build())
}
