//! `farmd-next`: the daemon one feature level on, for tests of upgrades.

use std::process::ExitCode;

fn main() -> ExitCode {
    farmd::arguments::main()
}
