//! The calls of bpf(2) that aya has no form for: a program that was written by hand, attached and fed with frames, and
//! detaching a link at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// The program takes frames that lie in several buffers.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Frames that are prepared and sent on together: the most that the kernel allows (`TEST_XDP_MAX_BATCH`).
const LIVE_BATCH: u32 = 256;

/// One instruction, packed as in `struct bpf_insn` of a little-endian kernel.
#[must_use]
pub const fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, (src << 4) | dst, low, high, a, b, c, d])
}

/// The head of the `BPF_PROG_LOAD` arm of `union bpf_attr`.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The head of the `BPF_PROG_TEST_RUN` arm of `union bpf_attr`.
#[repr(C)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// The same arm to its end.
#[repr(C)]
struct LiveRunAttr {
    head: TestRunAttr,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// The head of the `BPF_LINK_CREATE` arm of `union bpf_attr`.
#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The head of the `BPF_OBJ_GET` arm of `union bpf_attr`.
#[repr(C)]
struct ObjGetAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The `BPF_LINK_DETACH` arm of `union bpf_attr`.
#[repr(C)]
struct LinkDetachAttr {
    link_fd: u32,
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().addr() as u64
}

/// # Safety
/// `attr` must be the arm of `union bpf_attr` that `command` reads, with valid pointers.
unsafe fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise; the size is that of the object.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Loads `program` as an XDP program.
///
/// # Errors
/// The kernel refuses it.
pub fn load_xdp(program: &[u64]) -> io::Result<OwnedFd> {
    load(program, 0)
}

/// The same for frames of any length, also those in several buffers.
///
/// # Errors
/// As [`load_xdp`]; it needs Linux 5.18.
pub fn load_xdp_frags(program: &[u64]) -> io::Result<OwnedFd> {
    load(program, BPF_F_XDP_HAS_FRAGS)
}

fn load(program: &[u64], prog_flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: address(program),
        license: address(c"Apache-2.0"),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags,
    };
    // SAFETY: the arm fits the command; program and licence outlive the call, which only reads them.
    let fd = unsafe { call(BPF_PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel just gave this descriptor to us alone; descriptors fit into an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Runs `program` once on `frame`, which then holds what the program made of it. Returns its verdict.
pub(crate) fn test_run(program: &OwnedFd, frame: &mut [u8]) -> io::Result<u32> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let data = frame.as_mut_ptr().expose_provenance() as u64;
    let mut attr = TestRunAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        retval: 0,
        data_size_in: length,
        data_size_out: length,
        data_in: data,
        data_out: data,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the arm fits the command; the kernel copies the frame in, and at most `length` bytes out.
    unsafe { call(BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.retval)
}

/// Attaches `program` to an interface of the calling thread's namespace, in native mode, until the result is dropped.
///
/// # Errors
/// The driver cannot, or another program is there.
pub fn attach_native(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the arm fits the command.
    let fd = unsafe { call(BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel just gave this descriptor to us alone; descriptors fit into an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Runs `program` on `count` frames that begin as `frame` and really go where it sends them. Pages are used again as
/// the program left them.
///
/// # Errors
/// The kernel cannot: it needs Linux 5.18.
pub fn run_live(program: &OwnedFd, frame: &[u8], count: u32) -> io::Result<()> {
    let head = TestRunAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        retval: 0,
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_size_out: 0,
        data_in: address(frame),
        data_out: 0,
        repeat: count,
        duration: 0,
    };
    let mut attr = LiveRunAttr {
        head,
        ctx_size_in: 0,
        ctx_size_out: 0,
        ctx_in: 0,
        ctx_out: 0,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        cpu: 0,
        batch_size: LIVE_BATCH,
        reserved: 0,
    };
    // SAFETY: the arm fits the command; the kernel copies the frame in and nothing out.
    unsafe { call(BPF_PROG_TEST_RUN, &mut attr) }.map(drop)
}

/// Detaches the link pinned at `path`; nothing is attached any more when it returns. Removing the pin alone does that
/// some time later, on a work queue of the kernel.
pub(crate) fn detach_link(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = ObjGetAttr { pathname: address(path.as_bytes_with_nul()), bpf_fd: 0, file_flags: 0 };
    // SAFETY: the arm fits the command; the path outlives the call, which only reads it.
    let fd = unsafe { call(BPF_OBJ_GET, &mut pin) }?;
    // SAFETY: the kernel just gave this descriptor to us alone; descriptors fit into an int.
    let link = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut attr = LinkDetachAttr { link_fd: link.as_raw_fd().cast_unsigned() };
    // SAFETY: the arm fits the command.
    unsafe { call(BPF_LINK_DETACH, &mut attr) }.map(drop)
}
