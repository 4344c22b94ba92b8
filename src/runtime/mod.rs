//! Under everything, knowing nothing above it: allocator, profiles, process lifecycle, accept loop, metrics, logs and traces, and how
//! much is worked on at once.

pub mod allocator;
pub mod cpu;
pub mod lifecycle;
pub mod listen;
pub mod metrics;
pub mod shed;
pub mod telemetry;
