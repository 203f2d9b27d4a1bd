//! `magpie-bindings DIR [LIBRARY]`: writes the Python, Kotlin and Swift sources of the SDK into `DIR`.

#![allow(clippy::print_stderr, reason = "a command speaks to a person")]

use std::{env, path::PathBuf, process::ExitCode};

use magpie_client_ffi::bindgen;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(dir), library, None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: magpie-bindings DIR [LIBRARY]");
        return ExitCode::from(2);
    };
    let written = library.map_or_else(bindgen::library, Ok).and_then(|library| bindgen::write(&library, &dir));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("magpie-bindings: {error}");
            ExitCode::FAILURE
        }
    }
}
