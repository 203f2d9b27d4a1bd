//! `magpie-bench`: loads a server, says what it cost, with exact accounts, and compares.
//!
//! In reading order: `cli` is what can be asked; `workload` says what is to be done, `system` to whom (Magpie through
//! its SDK, `peers` through drivers of our own), `run` does it, `ledger` keeps the accounts, `process` and `samples`
//! look at the server, `figures` is what comes out. `compare` takes turns between two systems, `agent` lets several
//! generators work as one run, `record` keeps results as JSON lines, `report` draws them, and `size` computes what a
//! number of people needs.
//!
//! What does not belong here: anything of the server's (`node`, `cluster`). The program is `main.rs`.

mod agent;
mod cli;
mod compare;
mod figures;
mod ledger;
mod peers;
mod process;
mod progress;
mod record;
mod report;
mod run;
mod samples;
mod size;
mod system;
mod workload;

pub use cli::main;
