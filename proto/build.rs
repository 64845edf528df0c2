//! Generates the gRPC code with a pure-Rust compiler, so that no `protoc` is needed.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["model", "command", "lease", "peer", "api"].map(|f| format!("farm/v1/{f}.proto"));
    println!("cargo::rerun-if-changed=farm");
    let set = protox::compile(files, ["."])?;
    let described = std::path::Path::new(&std::env::var("OUT_DIR")?).join("farm.bin");
    std::fs::write(described, set.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
