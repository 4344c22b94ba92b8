//! Logs: one subscriber, JSON for machines or readable lines for people, always on standard error.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A word that is no level.
    #[error("log_level: {0:?} is not a level; use error, warn, info, debug, trace, off, or target=level pairs")]
    Level(String),
    /// The filter does not parse.
    #[error("log_level {0:?} is not a log filter ({1}); use error, warn, info, debug, trace or target=level pairs")]
    Filter(String, tracing_subscriber::filter::ParseError),
    /// Another subscriber is installed already.
    #[error("logging is already set up: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Installs the process's subscriber. `filter` is a level or `target=level` pairs.
///
/// # Errors
/// When `filter` does not parse, or a subscriber is installed already.
pub fn install(format: LogFormat, filter: &str) -> Result<(), Error> {
    // The filter takes any word for the name of a target and would then log nothing else.
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| part.contains('=') || LEVELS.contains(&part.trim().to_ascii_lowercase().as_str());
    if !filter.split(',').all(known) {
        return Err(Error::Level(filter.to_owned()));
    }
    let filter = EnvFilter::builder().parse(filter).map_err(|error| Error::Filter(filter.to_owned(), error))?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_current_span(true).with_writer(std::io::stderr))
            .try_init()?,
        LogFormat::Pretty => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_rather_than_silence() {
        for filter in ["warning", "loud", "", "info,loud"] {
            assert!(matches!(install(LogFormat::Pretty, filter), Err(Error::Level(_))), "{filter:?}");
        }
    }
}
