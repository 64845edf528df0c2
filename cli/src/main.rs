//! `farmctl`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    farmctl::main()
}
