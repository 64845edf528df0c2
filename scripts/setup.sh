#!/usr/bin/env bash
# Brings a bare Debian 12 machine with Rust to the point where Farm builds and its tests run.
# Idempotent: does nothing, in well under a second, when nothing is missing.
#
#   FARM_EBPF_OBJECT=FILE   use this prebuilt XDP program; the eBPF toolchain is then not needed
set -euo pipefail

BPF_LINKER_VERSION=0.13.0
# The first with XDP programs that take frames in fragments (xdp.frags).
KERNEL_MIN=5.18
# Linking Rust, building libFuzzer (C++), and what the lab, the tests and the benches call.
PACKAGES=(gcc g++ libc6-dev nftables nginx-light apache2-bin media-types iproute2 ethtool iputils-ping curl e2fsprogs util-linux bpftool
    iptables keepalived haproxy wrk podman runc busybox-static chromium chromium-driver)
# A Rust compiler whose `core` can be rebuilt for the BPF target, and the LLVM that bpf-linker links.
EBPF_PACKAGES=(rustc-web rust-web-src cargo-web llvm-22-dev libllvm22)

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "not root: namespaces, XDP and packages need it. Run it again as root (sudo -E make ...)."
}

need_rust() {
    export PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || die "cargo is missing. Install Rust 1.95 or newer from https://rustup.rs, then run this again."
}

need_kernel() {
    local release
    release=$(uname -r)
    printf '%s\n' "$KERNEL_MIN" "$release" | sort -V -C ||
        die "this kernel is $release, which cannot load the filter. Boot a kernel >= $KERNEL_MIN."
    [ -e /sys/kernel/btf/vmlinux ] ||
        die "this kernel has no BTF (/sys/kernel/btf/vmlinux). Boot a kernel >= $KERNEL_MIN built with CONFIG_DEBUG_INFO_BTF=y."
}

# Prints the packages of "$@" that are not installed.
missing_packages() {
    local installed
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | awk '$2 == "installed" { print $1 }' || true)
    comm -23 <(printf '%s\n' "$@" | sort) <(printf '%s\n' "$installed" | sort)
}

# Installs without starting the services that come along (nginx would take port 80 of this machine).
apt_install() {
    local policy=/usr/sbin/policy-rc.d made=no
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=yes
    fi
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" \
        </dev/null >&2 || status=$?
    [ "$made" = no ] || rm -f "$policy"
    return "$status"
}

install_packages() {
    local wanted=("${PACKAGES[@]}") missing
    [ -n "${FARM_EBPF_OBJECT:-}" ] || wanted+=("${EBPF_PACKAGES[@]}")
    command -v dpkg-query >/dev/null ||
        die "this is not Debian: install the equivalents of these packages by hand: ${wanted[*]}"
    mapfile -t missing < <(missing_packages "${wanted[@]}")
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing: ${missing[*]}"
    apt-get update -q -o DPkg::Lock::Timeout=300 </dev/null >&2 ||
        die "apt-get update failed: check /etc/apt/sources.list and the network, then run this again."
    apt_install "${missing[@]}" ||
        die "these packages did not install: ${missing[*]}. They are in Debian 12 with its security archive (bookworm-security main); rustc-web and llvm-22-dev are only needed without FARM_EBPF_OBJECT."
}

install_bpf_linker() {
    if [ -n "${FARM_EBPF_OBJECT:-}" ]; then
        [ -r "$FARM_EBPF_OBJECT" ] || die "FARM_EBPF_OBJECT=$FARM_EBPF_OBJECT cannot be read: name an existing file, or unset it to build the program."
        return 0
    fi
    command -v bpf-linker >/dev/null && return 0
    say "building bpf-linker $BPF_LINKER_VERSION (about a minute)"
    LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version "$BPF_LINKER_VERSION" --locked \
        --no-default-features --features llvm-22 </dev/null >&2 ||
        die "bpf-linker did not build: see the messages above, or give a prebuilt program in FARM_EBPF_OBJECT."
}

mount_bpffs() {
    [ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ] && return 0
    mount -t bpf bpf /sys/fs/bpf ||
        die "the BPF file system cannot be mounted on /sys/fs/bpf: run as real root with CAP_SYS_ADMIN, outside an unprivileged container."
}

need_root
need_rust
need_kernel
install_packages
install_bpf_linker
mount_bpffs
