//! `farmd`: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    farmd::arguments::main()
}
