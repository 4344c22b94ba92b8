//! The binary: plays one role and exits with a code that says how it went.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two TLS users with two providers would make rustls panic on first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(doc_server::app::run());
    // Threads that compute, or wait for a file, must not hold a process that has left.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
