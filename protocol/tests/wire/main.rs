//! The wire, held still and held up to the light: golden bytes, round trips, hostile bytes, error codes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets the unexpected should stop")]

mod docs;
mod errors;
mod golden;
mod hostile;
mod limits;
mod messages;
mod round_trip;
mod samples;
mod strategies;
