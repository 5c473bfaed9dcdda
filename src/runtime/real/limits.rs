//! What the machine must offer before a shard can start: kernel, io_uring, locked memory, descriptors.
//!
//! Every refusal names the line that sets it right. Nothing is changed here but the soft limit on open files, which is
//! raised to the hard one.
//!
//! Sources: getrlimit(2), uname(2), io_uring_setup(2); sysctl kernel.io_uring_disabled since Linux 6.6.
#![allow(unsafe_code)]

use std::io;

/// The oldest kernel with IORING_SETUP_DEFER_TASKRUN, on which the ring's design rests.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// KiB of locked memory that glommio 0.9.0 asks for before it starts an executor.
const LOCKED_MEMORY_KIB_MIN: u64 = 512;
/// KiB of locked memory that one shard pins: three rings of glommio with 64 KiB of registered buffers each.
const LOCKED_MEMORY_KIB_PER_SHARD: u64 = 3 * 64;

/// Why a shard cannot start. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel is too old.
    #[error("Linux {}.{} or newer is needed; this is {found}", KERNEL_MIN.0, KERNEL_MIN.1)]
    Kernel {
        /// The release that uname(2) reports.
        found: String,
    },
    /// RLIMIT_MEMLOCK is too small.
    #[error(
        "{needed_kib} KiB of locked memory are needed, the limit is {limit_kib} KiB: run `ulimit -l {needed_kib}` in the \
         shell that starts this, or set `LimitMEMLOCK={needed_kib}K` in the systemd unit, or add \
         `* - memlock {needed_kib}` to /etc/security/limits.conf"
    )]
    LockedMemory {
        /// KiB that the shards pin.
        needed_kib: u64,
        /// KiB that the process may pin.
        limit_kib: u64,
    },
    /// The administrator has switched io_uring off.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled={setting}): \
         run `sysctl -w kernel.io_uring_disabled=0`"
    )]
    RingDisabled {
        /// The value of the sysctl: 1 or 2.
        setting: String,
    },
    /// io_uring_setup(2) is refused although the kernel has it: a seccomp filter, as containers have.
    #[error(
        "io_uring_setup is blocked ({source}): allow io_uring_setup, io_uring_enter and io_uring_register in the \
         container's seccomp profile, or start it with `--security-opt seccomp=unconfined`"
    )]
    RingBlocked {
        /// What the system call said.
        source: io::Error,
    },
    /// The ring cannot be made for another reason.
    #[error("cannot set up io_uring: {source}")]
    Ring {
        /// What the system call said.
        source: io::Error,
    },
    /// The executor cannot be made.
    #[error("cannot start the executor: {reason}")]
    Executor {
        /// glommio's words.
        reason: String,
    },
    /// No thread for a shard.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Checks kernel, io_uring and locked memory for `shards` shards.
pub(super) fn check(shards: usize) -> Result<(), StartError> {
    check_kernel(&kernel_release())?;
    if let Ok(setting) = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        check_ring_setting(setting.trim(), is_root())?;
    }
    check_locked_memory(limit(libc::RLIMIT_MEMLOCK).map(|limit| limit.rlim_cur / 1024), shards)
}

/// Tells what an error of io_uring_setup(2) means.
pub(super) fn ring_error(source: io::Error) -> StartError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => StartError::RingBlocked { source },
        Some(libc::ENOMEM) => {
            let limit_kib = limit(libc::RLIMIT_MEMLOCK).map_or(0, |limit| limit.rlim_cur / 1024);
            StartError::LockedMemory { needed_kib: limit_kib.saturating_mul(2).max(8192), limit_kib }
        }
        _ => StartError::Ring { source },
    }
}

/// Raises the soft limit on open files to the hard one and returns it.
pub(super) fn raise_file_limit() -> Option<u64> {
    let mut files = limit(libc::RLIMIT_NOFILE)?;
    if files.rlim_cur < files.rlim_max {
        files.rlim_cur = files.rlim_max;
        // SAFETY: setrlimit reads the struct it is given.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) } != 0 {
            return limit(libc::RLIMIT_NOFILE).map(|files| files.rlim_cur);
        }
    }
    Some(files.rlim_cur)
}

fn check_kernel(release: &str) -> Result<(), StartError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let found = numbers.next().zip(numbers.next());
    if found.is_some_and(|found| found >= KERNEL_MIN) {
        return Ok(());
    }
    Err(StartError::Kernel { found: release.to_owned() })
}

fn check_ring_setting(setting: &str, privileged: bool) -> Result<(), StartError> {
    match setting {
        "0" => Ok(()),
        "1" if privileged => Ok(()),
        _ => Err(StartError::RingDisabled { setting: setting.to_owned() }),
    }
}

/// `limit_kib` is `None` where the limit cannot be read: then the start itself will tell.
fn check_locked_memory(limit_kib: Option<u64>, shards: usize) -> Result<(), StartError> {
    let shards = u64::try_from(shards).unwrap_or(u64::MAX);
    let needed_kib = shards.saturating_mul(LOCKED_MEMORY_KIB_PER_SHARD).max(LOCKED_MEMORY_KIB_MIN);
    match limit_kib {
        Some(limit_kib) if limit_kib < needed_kib => Err(StartError::LockedMemory { needed_kib, limit_kib }),
        _ => Ok(()),
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the struct it is given.
    let result = unsafe { libc::getrlimit(resource, &mut found) };
    (result == 0).then_some(found)
}

fn is_root() -> bool {
    // SAFETY: geteuid touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused() {
        for release in ["6.1.0-18-amd64", "6.18.44-fc-v657", "7.0", "10.2.1"] {
            check_kernel(release).expect(release);
        }
        for release in ["6.0.19", "5.15.0-generic", "6", "", "unknown"] {
            let error = check_kernel(release).expect_err(release);
            assert!(error.to_string().starts_with("Linux 6.1 or newer is needed"), "{error}");
        }
    }

    #[test]
    fn a_small_memory_limit_names_the_line_to_set() {
        check_locked_memory(Some(8192), 40).expect("40 shards fit a stock limit");
        check_locked_memory(Some(512), 1).expect("glommio's own least");
        let error = check_locked_memory(Some(64), 1).expect_err("64 KiB").to_string();
        assert!(error.contains("`ulimit -l 512`") && error.contains("LimitMEMLOCK=512K"), "{error}");
        let error = check_locked_memory(Some(8192), 64).expect_err("64 shards").to_string();
        assert!(error.contains("`ulimit -l 12288`"), "{error}");
    }

    #[test]
    fn a_forbidden_ring_names_its_switch() {
        check_ring_setting("0", false).expect("on");
        check_ring_setting("1", true).expect("root may");
        let error = check_ring_setting("1", false).expect_err("only root may").to_string();
        assert!(error.contains("sysctl -w kernel.io_uring_disabled=0"), "{error}");
        check_ring_setting("2", true).expect_err("nobody may");
        let error = ring_error(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(error.contains("seccomp"), "{error}");
    }

    #[test]
    fn the_file_limit_becomes_the_hard_one() {
        let raised = raise_file_limit().expect("readable");
        assert_eq!(Some(raised), limit(libc::RLIMIT_NOFILE).map(|files| files.rlim_max));
    }
}
