//! The whole server against a real Postgres: one binary, one harness, a fresh database for each test.
//!
//! `make test` starts a throw-away Postgres and runs these among all tests. Bodies are compared with `snapshots/`: look at
//! a difference, and when it is meant, run with `INSTA_UPDATE=always`, read what changed, and commit it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod at_once;
mod bad_input;
mod cache_faults;
mod cache_performance;
mod chunks;
mod cleanup;
mod cli;
mod counts;
mod degraded;
mod embedded;
mod files;
mod harness;
mod import;
mod interrupted;
mod keys;
mod layering;
mod lifecycle;
mod migrations;
mod model;
mod observability;
mod openapi;
mod outage;
mod overload;
mod overload_figures;
mod page;
mod pages;
mod paging;
mod pgbouncer;
mod plans;
mod pool;
mod profiles;
mod rate_limits;
mod redis;
mod replicas;
mod rolling;
mod search;
mod secrets;
mod shape;
mod sources;
mod statements;
mod traces;
mod vector_index;
mod wire;
