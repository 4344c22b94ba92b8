//! Under everything, knowing nothing above it: allocator, process lifecycle, accept loop, metrics and logs.

pub mod allocator;
pub mod cpu;
pub mod lifecycle;
pub mod listen;
pub mod metrics;
pub mod telemetry;
