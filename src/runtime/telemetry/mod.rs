//! Logs on standard error, JSON for machines or readable lines for people, and spans to a collector where one is named.
//!
//! Without a collector the log's filter is everybody's, so that spans below its level do not exist. With one, log and export
//! have a filter each: the stages' spans are exported whatever the log shows.

mod context;
pub mod export;
mod filter;

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::dynamic_filter_fn,
    fmt,
    layer::{self, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub use self::{
    context::{adopt, finish, is_exporting, outgoing},
    filter::Filter,
};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, fields flattened.
    Json,
    /// Coloured text on a terminal, plain text elsewhere.
    #[default]
    Pretty,
}

/// Why logging could not start, or change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A word that is no level.
    #[error("log_level: {0:?} is not a level; use error, warn, info, debug, trace, off, or target=level pairs")]
    Level(String),
    /// The filter does not parse.
    #[error("log_level {0:?} is not a log filter ({1}); use error, warn, info, debug, trace or target=level pairs")]
    Filter(String, tracing_subscriber::filter::ParseError),
    /// No spans can be sent.
    #[error("otlp_endpoint: spans cannot be exported: {0}")]
    Exporter(String),
    /// Another subscriber is installed already.
    #[error("logging is already set up: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// What is written where.
#[derive(Clone, Debug)]
pub struct Config {
    /// How a log line looks.
    pub format: LogFormat,
    /// A level, or `target=level` pairs.
    pub filter: String,
    /// Where spans go; nowhere when none.
    pub export: Option<export::Config>,
}

/// The process's telemetry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    filter: Filter,
    provider: Option<SdkTracerProvider>,
}

/// Installs the process's subscriber.
///
/// # Errors
/// When the filter does not parse, no spans can be sent, or a subscriber is installed already.
pub fn install(config: &Config) -> Result<Telemetry, Error> {
    let filter = Filter::parse(&config.filter)?;
    let provider = config.export.as_ref().map(export::start).transpose()?;
    match &provider {
        None => tracing_subscriber::registry().with(filter.clone()).with(log(config.format)).try_init()?,
        Some(provider) => {
            let spans = tracing_opentelemetry::layer::<Registry>()
                .with_tracer(provider.tracer("doc-server"))
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_filter(exported());
            let log = log(config.format).with_filter(filter.clone());
            tracing_subscriber::registry().with(spans).with(log).try_init()?;
            context::begin();
        }
    }
    Ok(Telemetry { filter, provider })
}

impl Telemetry {
    /// Filters the log by `filter` from now on.
    ///
    /// # Errors
    /// When it does not parse; nothing changes then.
    pub fn set_filter(&self, filter: &str) -> Result<(), Error> {
        self.filter.set(filter)
    }

    /// Sends what waits, and nothing after. Blocks for `within` at most.
    pub fn close(&self, within: Duration) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown_with_timeout(within)
        {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Our own spans, and what went wrong in them: events of libraries could hold anything, and the exporter's own would feed it.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let most = if metadata.is_span() { Level::DEBUG } else { Level::WARN };
    metadata.target().starts_with("doc_server") && *metadata.level() <= most
}

/// Asked anew for each span: layers with a filter each note its answer for the thread, and where none is asked, since all always say yes, they go by
/// what was noted for another line. A library that asks whether a line would be written, and writes none, would lose a span.
fn exported<S>() -> impl layer::Filter<S> {
    dynamic_filter_fn(|metadata, _| is_exported(metadata)).with_max_level_hint(LevelFilter::DEBUG)
}

fn log<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    match format {
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_current_span(true).with_writer(std::io::stderr).boxed()
        }
        LogFormat::Pretty => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            fmt::layer().with_ansi(colours).with_writer(std::io::stderr).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tracing::{Id, Subscriber, span::Attributes};
    use tracing_subscriber::layer::Context;

    use super::*;

    /// Counts spans.
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_question_about_another_line_loses_no_span() {
        let (sent, logged) = (Count::default(), Count::default());
        let subscriber = tracing_subscriber::registry()
            .with(sent.clone().with_filter(exported()))
            .with(logged.clone().with_filter(Filter::parse("info").expect("a level")));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                // Would be logged, not sent; and the other way round.
                let _ = tracing::enabled!(target: "sqlx::query", Level::INFO);
                drop(tracing::info_span!("request"));
                let _ = tracing::span_enabled!(Level::DEBUG);
                drop(tracing::info_span!("request"));
            }
        });
        assert_eq!((sent.0.load(Ordering::Relaxed), logged.0.load(Ordering::Relaxed)), (6, 6));
    }
}
