//! A whole cluster in one thread: real nodes and real devices, QUIC and actors included, over a network, a clock and
//! disks that are simulated, with faults drawn from a seed.
//!
//! One process runs one seed (`src/bin/magpie-test-simulation`), so that nothing is left of the run before.
//! [`run`] is the way in. [`nature`] holds what goes wrong and counts what really did; [`network`] and [`disk`] let it
//! happen; [`nodes`] are the hosts; [`faults`] draws the plan and carries it out, [`operator`] what is done to the cluster
//! besides; [`people`] talk; [`repeater`] asks
//! again what was answered; [`check`] holds everything to the promises.

pub mod check;
pub mod disk;
pub mod faults;
pub mod nature;
pub mod network;
pub mod nodes;
pub mod operator;
pub mod people;
pub mod repeater;
pub mod run;

pub use run::{Report, Setup, run};
