//! Under everything, knowing nothing above it: process lifecycle, accept loop, metrics and logs.

pub mod lifecycle;
pub mod listen;
pub mod metrics;
pub mod telemetry;
