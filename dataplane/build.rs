//! Compiles the XDP program to `$OUT_DIR/farm-xdp`, or takes the object that `FARM_EBPF_OBJECT` names.
//!
//! The program needs a compiler that can build `core` for the BPF target, which a stable toolchain cannot:
//! taken is the first of a rustup nightly with `rust-src`, and Debian's compiler with its sources.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Name of the binary of the program's crate, and of the file in `OUT_DIR`.
const OBJECT: &str = "farm-xdp";
const TARGET: &str = "bpfel-unknown-none";
/// A finished object instead of compiling one.
const OVERRIDE: &str = "FARM_EBPF_OBJECT";

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    for input in
        ["build.rs", "ebpf/src", "ebpf/Cargo.toml", "ebpf/Cargo.lock", "common/src", "common/Cargo.toml"]
    {
        println!("cargo::rerun-if-changed={input}");
    }
    for variable in [OVERRIDE, "PATH", "CARGO_HOME", "RUSTUP_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match object().and_then(|object| install(&object)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

/// The finished object file.
fn object() -> Outcome<PathBuf> {
    if let Some(object) = env::var_os(OVERRIDE) {
        println!("cargo::rerun-if-changed={}", object.display());
        return Ok(object.into());
    }
    let linker = linker()?;
    let toolchain = nightly().or_else(debian).ok_or(
        "no compiler can build the XDP program: run scripts/setup.sh, or `rustup toolchain install nightly \
         --component rust-src`, or name a finished object in FARM_EBPF_OBJECT",
    )?;
    compile(&toolchain, &linker)
}

fn install(object: &Path) -> Outcome<()> {
    let to = out_dir().join(OBJECT);
    fs::copy(object, &to).map_err(|error| {
        format!("cannot copy the XDP object {}: {error}; see {OVERRIDE}", object.display())
    })?;
    Ok(())
}

fn out_dir() -> PathBuf {
    env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts").into()
}

fn home(variable: &str, default: &str) -> Option<PathBuf> {
    let set = env::var_os(variable).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(default)))
}

/// The directory of `bpf-linker`, which rustc calls for this target.
fn linker() -> Outcome<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo = home("CARGO_HOME", ".cargo").map(|home| home.join("bin"));
    env::split_paths(&path).chain(cargo).find(|directory| directory.join("bpf-linker").is_file()).ok_or_else(
        || "bpf-linker is missing: run scripts/setup.sh, or `cargo install bpf-linker`".to_owned(),
    )
}

/// A compiler with the sources of `core`.
struct Toolchain {
    bin: PathBuf,
}

/// A rustup nightly that has `rust-src`: the component may be listed without being there, so look.
fn nightly() -> Option<Toolchain> {
    let toolchains = home("RUSTUP_HOME", ".rustup")?.join("toolchains");
    let mut found: Vec<_> = fs::read_dir(toolchains).ok()?.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nightly")))
        .find(|path| path.join("bin/cargo").is_file() && has_sources(path))
        .map(|path| Toolchain { bin: path.join("bin") })
}

/// Debian's `rustc-web`, `cargo-web` and `rust-web-src`.
fn debian() -> Option<Toolchain> {
    let usr = Path::new("/usr");
    let complete = usr.join("bin/rustc").is_file() && usr.join("bin/cargo").is_file() && has_sources(usr);
    complete.then(|| Toolchain { bin: usr.join("bin") })
}

fn has_sources(prefix: &Path) -> bool {
    prefix.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// `farm-ebpf` beside the profiles (`OUT_DIR` is `PROFILE/build/CRATE/out`): the build of `core` is then shared
/// by all profiles, and outlives changes of this crate's dependencies.
fn target_dir() -> PathBuf {
    let out = out_dir();
    out.ancestors().nth(4).unwrap_or(&out).join("farm-ebpf")
}

/// Runs cargo inside cargo, with a target directory of its own: the outer one is locked.
fn compile(toolchain: &Toolchain, linker: &Path) -> Outcome<PathBuf> {
    let target_dir = target_dir();
    let mut command = Command::new(toolchain.bin.join("cargo"));
    command
        .args(["build", "--release", "--locked", "--target", TARGET, "-Zbuild-std=core"])
        .current_dir("ebpf")
        .env("RUSTC", toolchain.bin.join("rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", search_path(&toolchain.bin, linker)?)
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags()?);
    // What the outer cargo or clippy sets for its own compiler.
    for variable in
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO"]
    {
        command.env_remove(variable);
    }
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        let log = log.lines().collect::<Vec<_>>().join("\ncargo::error=");
        return Err(format!("the XDP program does not compile:\ncargo::error={log}"));
    }
    Ok(target_dir.join(TARGET).join("release").join(OBJECT))
}

fn search_path(toolchain: &Path, linker: &Path) -> Outcome<std::ffi::OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let directories = [toolchain.to_owned(), linker.to_owned()].into_iter().chain(env::split_paths(&rest));
    env::join_paths(directories).map_err(|error| format!("PATH is unusable: {error}"))
}

/// BTF and line information in the object; the helpers' bindings differ by the machine it runs on.
fn flags() -> Outcome<String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's architecture");
    let arch = match arch.as_str() {
        "x86_64" | "aarch64" => arch,
        other => return Err(format!("no XDP program for {other}: Farm runs on x86_64 and aarch64")),
    };
    let target = format!("bpf_target_arch=\"{arch}\"");
    Ok(["--cfg", &target, "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\u{1f}"))
}
