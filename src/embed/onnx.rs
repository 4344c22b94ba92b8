//! ONNX Runtime: its library, a session over one graph, and one text's run.
//!
//! The library is loaded by path and once per process; whatever is wrong with it is an error that names the path and
//! the setting, never a panic. A run takes one text alone: with dynamic int8 the scale of the activations, and so a
//! text's vector, would depend on what stands beside it in a batch.

use std::{
    borrow::Cow,
    error::Error as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    environment::Environment,
    logging::LogLevel,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::TensorRef,
};

use super::{
    Error,
    pool::caught,
    vector::{self, Vector},
};

/// The process's one environment. ONNX Runtime allows no second, and no unloading.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The inputs of a BERT-like graph. A graph may leave out the last.
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// A graph ready to run, one text at a time.
pub(super) struct Runner {
    session: Session,
    dimensions: usize,
    with_types: bool,
}

impl Runner {
    /// Loads `graph`, computing with `threads` threads.
    ///
    /// # Errors
    /// When the library or the graph cannot be loaded, or the graph is none of ours.
    pub fn open(library: &Path, graph: &Path, threads: usize, dimensions: usize) -> Result<Self, Error> {
        let environment = environment(library)?;
        let failed = |reason: String| Error::Load(format!("{}: {reason}", graph.display()));
        let session = session(&environment, graph, threads).map_err(|error| failed(error.to_string()))?;
        for input in session.inputs() {
            if !INPUTS.contains(&input.name()) {
                return Err(failed(format!("it wants an input {:?}; known are {INPUTS:?}", input.name())));
            }
        }
        let with_types = session.inputs().iter().any(|input| input.name() == INPUTS[2]);
        Ok(Self { session, dimensions, with_types })
    }

    /// The vector of one text: the mean over its tokens, at unit length.
    ///
    /// # Errors
    /// When the graph fails, or what it returns is no vector.
    pub fn run(&mut self, ids: &[i64]) -> Result<Vector, Error> {
        let (ones, zeros) = (vec![1_i64; ids.len()], vec![0_i64; ids.len()]);
        let values = [ids, &ones, &zeros];
        let wanted = if self.with_types { 3 } else { 2 };
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(wanted);
        for (name, values) in INPUTS.into_iter().zip(values).take(wanted) {
            inputs.push((name.into(), TensorRef::from_array_view(([1, ids.len()], values)).map_err(failed)?.into()));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (shape, states) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        let expected = [1, ids.len(), self.dimensions].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        if **shape != expected {
            return Err(Error::Model(format!("it returned the shape {shape:?} instead of {expected:?}")));
        }
        let mut sum = vec![0.0_f32; self.dimensions];
        for state in states.chunks_exact(self.dimensions) {
            for (sum, value) in sum.iter_mut().zip(state) {
                *sum += value;
            }
        }
        // Division by the number of tokens would be undone by the scaling to unit length.
        vector::unit(sum, self.dimensions).map_err(|reason| Error::Model(format!("it returned {reason}")))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: ort::Error) -> Error {
    Error::Model(error.to_string())
}

fn session(environment: &Environment, graph: &Path, threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // Threads that spin while they wait for the next text would burn the processor of an idle server.
        .with_intra_op_spinning(false)?
        // Every length of text would keep a plan of its own.
        .with_memory_pattern(false)?
        .commit_from_file(graph)
}

/// The process's environment, with the library of the first successful call.
fn environment(library: &Path) -> Result<Environment, Error> {
    let mut kept = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*kept {
        return Ok(environment.clone());
    }
    let environment = caught(|| load(library)).map_err(|error| {
        let reason = match error {
            Error::Load(reason) => reason,
            other => other.to_string(),
        };
        let advice = "run `scripts/setup run`, which puts it there, or name the libonnxruntime of";
        let oldest = ort::MINOR_VERSION;
        Error::setting(
            "onnxruntime",
            format!("{}: {reason}; {advice} ONNX Runtime 1.{oldest} or later", library.display()),
        )
    })?;
    Ok(kept.insert(environment).clone())
}

fn load(library: &Path) -> Result<Environment, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Load(error.to_string());
    // Made absolute here, because `ort` would look for a relative path beside the executable.
    let path: PathBuf = library.canonicalize().map_err(|error| wrong(&error))?;
    let builder = ort::init_from(path).map_err(|error| match error {
        // Its own text says only that it failed; the linker's reason is below it.
        ort::LoadDynamicError::Dlopen { error, .. } => {
            wrong(&error.source().map_or_else(|| error.to_string(), ToString::to_string))
        }
        other => wrong(&other),
    })?;
    let logger: ort::logging::LoggerFunction = Arc::new(|level, _category, _id, place, message| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(place, "onnxruntime: {message}"),
        LogLevel::Warning => tracing::debug!(place, "onnxruntime: {message}"),
        _ => tracing::trace!(place, "onnxruntime: {message}"),
    });
    // Microsoft's builds send usage data unless told not to.
    builder.with_telemetry(false).with_logger(logger).build().map_err(|error| wrong(&error))
}
