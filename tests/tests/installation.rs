//! What `make install` installs: where it lands, and that systemd and the kernel know what the files say. The arguments
//! in the unit and the example configuration are tried by farmd's own parsers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use farm_lab::shell;

/// Keys by section, as systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5) and
/// systemd.resource-control(5) spell them: what systemd does not know it ignores.
const KEYS: [(&str, &[&str]); 3] = [
    (
        "[Unit]",
        &[
            "Description",
            "Wants",
            "After",
            "RequiresMountsFor",
            "AssertPathIsMountPoint",
            "Conflicts",
            "StartLimitIntervalSec",
        ],
    ),
    (
        "[Service]",
        &[
            "Type",
            "ExecStart",
            "ExecReload",
            "ExecStop",
            "RemainAfterExit",
            "Restart",
            "RestartSec",
            "KillMode",
            "TimeoutStopSec",
            "StateDirectory",
            "StateDirectoryMode",
            "RuntimeDirectory",
            "UMask",
            "LimitMEMLOCK",
            "LimitRTPRIO",
            "LimitNOFILE",
            "OOMScoreAdjust",
            "CapabilityBoundingSet",
            "DynamicUser",
            "NoNewPrivileges",
            "ProtectHome",
            "PrivateDevices",
            "RestrictAddressFamilies",
            "LoadCredential",
        ],
    ),
    ("[Install]", &["WantedBy"]),
];

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("this crate is a folder of the project").to_path_buf()
}

fn conf(name: &str) -> Result<String> {
    let path = root().join("conf").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Lines that say something.
fn said(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn systemd_knows_every_key_of_the_units() -> Result<()> {
    ["farmd.service", "farm-applications.service", "farm-witness.service"]
        .into_iter()
        .try_for_each(check_unit)
}

fn check_unit(name: &str) -> Result<()> {
    let unit = conf(name)?;
    let (mut section, mut seen) = (None, BTreeSet::new());
    for line in said(&unit) {
        if line.starts_with('[') {
            section = KEYS.iter().find(|(name, _)| *name == line);
            ensure!(section.is_some(), "no such section: {line}");
            continue;
        }
        let (key, value) = line.split_once('=').with_context(|| line.to_owned())?;
        let (name, known) = section.with_context(|| format!("{line} stands before any section"))?;
        ensure!(known.contains(&key), "{key} is no key of {name}");
        // Nothing is what that one is set to.
        let says = !value.is_empty() || key == "CapabilityBoundingSet";
        ensure!(says && seen.insert(key), "{line}: empty, or set twice");
    }
    ensure!(seen.contains("ExecStart") && seen.contains("WantedBy"), "{seen:?}");
    Ok(())
}

#[test]
fn the_kernel_knows_every_setting() -> Result<()> {
    let settings = conf("99-farm-sysctl.conf")?;
    let mut count = 0;
    for line in said(&settings) {
        let (key, value) = line.split_once('=').with_context(|| line.to_owned())?;
        let file = Path::new("/proc/sys").join(key.trim().replace('.', "/"));
        ensure!(file.is_file(), "{} does not exist", file.display());
        value.trim().parse::<u32>().with_context(|| line.to_owned())?;
        count += 1;
    }
    ensure!(count > 0, "some settings");
    Ok(())
}

/// `make install` with programs that stand for those of a release.
fn install(scratch: &Path, built: &Path, prefix: &str) -> Result<PathBuf> {
    let destination = scratch.join("root");
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(root()).arg("install");
    make.arg(format!("DESTDIR={}", destination.display())).arg(format!("PREFIX={prefix}"));
    shell::run(make.arg(format!("BUILT={}", built.display())))?;
    Ok(destination)
}

#[test]
fn make_install_puts_everything_where_the_system_looks() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let built = scratch.path().join("built");
    fs::create_dir(&built)?;
    for program in ["farmd", "farmctl"] {
        shell::run(Command::new("install").args(["-m", "0755", "/dev/null"]).arg(built.join(program)))?;
    }
    for prefix in ["/usr", "/usr/local"] {
        let at = install(scratch.path(), &built, prefix)?;
        let at = |path: &str| at.join(prefix.trim_start_matches('/')).join(path);
        let files = [
            "bin/farmd",
            "bin/farmctl",
            "lib/sysctl.d/99-farm-sysctl.conf",
            "share/farm/farmd.toml",
            "share/farm/witness.toml",
        ];
        for path in files.map(at) {
            ensure!(path.is_file(), "{} is missing", path.display());
        }
        for (unit, starts) in [
            ("farmd", "ExecStart=@/farmd "),
            ("farm-witness", "ExecStart=@/farmd --role witness "),
            ("farm-applications", "ExecStop=@/farmctl "),
        ] {
            let text = fs::read_to_string(at(&format!("lib/systemd/system/{unit}.service")))?;
            let starts = starts.replace('@', &format!("{prefix}/bin"));
            ensure!(text.contains(&format!("\n{starts}")), "{unit} starts what was installed");
            ensure!(
                unit != "farm-applications" || text.contains("\nExecStart=/usr/bin/true\n"),
                "and what the system has"
            );
        }
    }
    let nothing =
        install(scratch.path(), &scratch.path().join("empty"), "/usr").expect_err("nothing was built");
    ensure!(format!("{nothing:#}").contains("make build"), "{nothing:#}");
    Ok(())
}
