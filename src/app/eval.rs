//! `doc-server eval` placeholder
use super::{Error, arguments::EvalFlags};
use crate::config::Settings;
/// x
/// # Errors
/// x
pub async fn run(_settings: Settings, _flags: &EvalFlags) -> Result<(), Error> {
    Ok(())
}
