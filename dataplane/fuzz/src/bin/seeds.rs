//! Writes the oracle's frames as inputs of the fuzzer: `seeds DIRECTORY`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::{env, fs, io};

use farm_fuzz::seeds::oracle;

/// Each frame once: the fuzzer finds the tables by itself.
fn write(directory: &str) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let mut frames = BTreeSet::new();
    for case in oracle()? {
        if frames.insert(case.frame.clone()) {
            fs::write(format!("{directory}/{:04}", frames.len()), case.write())?;
        }
    }
    Ok(frames.len())
}

fn main() -> ExitCode {
    let Some(directory) = env::args().nth(1) else {
        eprintln!("usage: seeds DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(count) => {
            println!("{count} seeds in {directory}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seeds cannot be written to {directory}: {error}");
            ExitCode::FAILURE
        }
    }
}
