//! Which log lines are written: `log_level`, which can change while the process runs.
//!
//! A call site that is off costs one load, as ever: the answer is remembered for each, and asked for again after a change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{self, Context},
};

use super::Error;

/// The filter in use. Cheap to clone; all clones change together.
#[derive(Clone, Debug)]
pub struct Filter(Arc<ArcSwap<Targets>>);

impl Filter {
    /// A level, or `target=level` pairs.
    ///
    /// # Errors
    /// When `text` is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(targets(text)?))))
    }

    /// Filters by `text` from now on.
    ///
    /// # Errors
    /// When it does not parse; nothing changes then.
    pub fn set(&self, text: &str) -> Result<(), Error> {
        self.0.store(Arc::new(targets(text)?));
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

fn targets(text: &str) -> Result<Targets, Error> {
    // The parser takes any word for the name of a target and would then log nothing else.
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| part.contains('=') || LEVELS.contains(&part.trim().to_ascii_lowercase().as_str());
    if !text.split(',').all(known) {
        return Err(Error::Level(text.to_owned()));
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    parts.join(",").parse().map_err(|error| Error::Filter(text.to_owned(), error))
}

/// For all layers: where logs are everything.
impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&**self.0.load(), metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        Layer::<S>::enabled(&**self.0.load(), metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&**self.0.load())
    }
}

/// For the log alone: where spans go elsewhere too.
impl<S> layer::Filter<S> for Filter {
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        layer::Filter::<S>::callsite_enabled(&**self.0.load(), metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        layer::Filter::<S>::enabled(&**self.0.load(), metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        layer::Filter::<S>::max_level_hint(&**self.0.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_rather_than_silence() {
        for text in ["warning", "loud", "", "info,loud", "doc_server=loud"] {
            assert!(Filter::parse(text).is_err(), "{text:?}");
        }
        for text in ["info", "WARN", "info,doc_server::search=debug", "off, hyper=trace"] {
            assert!(Filter::parse(text).is_ok(), "{text:?}");
        }
    }
}
