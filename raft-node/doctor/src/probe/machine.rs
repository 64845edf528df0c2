//! Kernel, rights and disk.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statfs::{FsType, statfs};
use nix::sys::utsname::uname;

use crate::{Disk, Looked};

/// What the unit of the daemon gives it: see `conf/farmd.service`.
const NEEDED: [Capability; 7] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_NICE,
    Capability::CAP_IPC_LOCK,
];
/// File systems that forget, or that somebody else keeps (statfs(2)).
const FLEETING: [(FsType, &str); 4] = [
    (nix::sys::statfs::TMPFS_MAGIC, "tmpfs"),
    (nix::sys::statfs::NFS_SUPER_MAGIC, "NFS"),
    (FsType(0xff53_4d42_u32 as _), "CIFS"),
    (FsType(0xfe53_4d42_u32 as _), "SMB"),
];

pub(super) fn kernel() -> Looked<String> {
    let name = uname().map_err(|errno| errno.desc().to_owned())?;
    Ok(name.release().to_string_lossy().into_owned())
}

pub(super) fn missing_capabilities() -> Looked<Vec<String>> {
    let have = caps::read(None, CapSet::Effective).map_err(|error| error.to_string())?;
    Ok(NEEDED.iter().filter(|needed| !have.contains(needed)).map(ToString::to_string).collect())
}

/// `CAP_IPC_LOCK` knows no limit.
pub(super) fn lockable() -> Looked<Option<u64>> {
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).map_err(|e| e.to_string())?;
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|errno| errno.desc().to_owned())?;
    Ok((!may && limit != RLIM_INFINITY).then_some(limit))
}

/// Percent of a core that is left to real-time threads; all of it where the kernel does not bound them.
pub(super) fn realtime_share() -> Looked<u64> {
    let read = |name: &str| {
        let path = format!("/proc/sys/kernel/{name}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        text.trim().parse::<i64>().map_err(|_| format!("{path}: {:?} is no number", text.trim()))
    };
    let (runtime, period) = (read("sched_rt_runtime_us")?, read("sched_rt_period_us")?);
    if runtime < 0 {
        return Ok(100);
    }
    u64::try_from(runtime * 100 / period.max(1)).map_err(|error| error.to_string())
}

pub(super) fn disk(data_dir: &Path) -> Looked<Disk> {
    let stat = statfs(existing(data_dir)).map_err(|errno| errno.desc().to_owned())?;
    let kind = stat.filesystem_type();
    let fleeting = FLEETING.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name);
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    Ok(Disk { fleeting, free: stat.blocks_available().saturating_mul(block) })
}

/// The directory, or what it will be made in.
pub(super) fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_looked_at() {
        assert!(kernel().unwrap().contains('.'));
        assert!((0..=100).contains(&realtime_share().unwrap()));
        assert!(lockable().is_ok() && missing_capabilities().is_ok());
    }

    #[test]
    fn what_forgets_is_known_and_what_is_not_there_yet_is_found() {
        let tmpfs = disk(Path::new("/dev/shm/farm/data")).unwrap();
        assert_eq!(tmpfs.fleeting, Some("tmpfs"));
        assert_eq!(existing(Path::new("/proc/none/of/these")), Path::new("/proc"));
    }

    #[test]
    fn a_thread_without_rights_says_which() {
        let missing = std::thread::spawn(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_BPF).unwrap();
            missing_capabilities()
        });
        let missing = missing.join().unwrap().unwrap();
        assert!(missing.contains(&"CAP_BPF".to_owned()), "{missing:?}");
    }
}
