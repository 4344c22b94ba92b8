//! What was answered before: kept for the next caller who asks the same.
//!
//! [`shared`] is the tier that replicas have in common. Nothing here is the truth: whatever is lost, late or broken is a
//! miss.

mod breaker;
mod codec;
pub mod shared;
