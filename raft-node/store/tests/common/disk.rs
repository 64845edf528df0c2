//! File systems of the tests' own: images on loop devices and tmpfs. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A mounted file system; unmounted and detached when dropped.
pub struct Mount {
    pub path: PathBuf,
    device: Option<String>,
}

impl Mount {
    /// A tmpfs of a fixed size.
    pub fn tmpfs(path: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(path)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(path)?])?;
        Ok(Mount { path: path.to_owned(), device: None })
    }

    /// An image that holds an ext4; its journal is replayed as after a power cut.
    pub fn image(image: &Path, path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        make_loop_nodes()?;
        let device = run("losetup", &["--find", "--show", text(image)?])?.trim().to_owned();
        let mount = Mount { path: path.to_owned(), device: Some(device.clone()) };
        run("mount", &["-t", "ext4", &device, text(path)?])?;
        Ok(mount)
    }

    /// Writes that the image has completed and those under way, as the kernel counts them.
    pub fn writes(&self) -> Result<(u64, u64)> {
        let device = self.device.as_deref().context("not an image")?.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/block/{device}/stat"))?;
        let fields: Vec<u64> = stat.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok((fields[4], fields[8]))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a store that failed to open may have left a thread behind that still has files open.
        report(run("umount", &["--lazy", &self.path.to_string_lossy()]));
        if let Some(device) = &self.device {
            report(run("losetup", &["--detach", device]));
        }
    }
}

/// Makes an image with an empty ext4.
pub fn make_ext4(image: &Path, bytes: u64) -> Result<()> {
    fs::File::create(image)?.set_len(bytes)?;
    run("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4", text(image)?])?;
    Ok(())
}

fn make_loop_nodes() -> Result<()> {
    if !Path::new("/dev/loop-control").exists() {
        run("mknod", &["-m", "600", "/dev/loop-control", "c", "10", "237"])?;
    }
    for minor in (0..16).filter(|minor| !Path::new(&format!("/dev/loop{minor}")).exists()) {
        run("mknod", &["-m", "600", &format!("/dev/loop{minor}"), "b", "7", &minor.to_string()])?;
    }
    Ok(())
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {args:?} failed (these tests need root and loop devices): {said}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn report(result: Result<String>) {
    if let Err(error) = result {
        eprintln!("clean-up: {error:#}");
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("scratch paths are text")
}
