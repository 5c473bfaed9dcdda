//! What a process does before its shards run: reading its configuration, resolving names, asking the machine for its size.
//!
//! These calls block; no task of a shard may use them. They read the machine and change nothing.
//! Source: proc_meminfo(5), cgroups(7), getaddrinfo(3).

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

/// The text of the file `path`.
pub fn read_text(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// The addresses of `host`, a name or a literal address (brackets around an IPv6 one), in the resolver's order.
///
/// # Errors
/// `NotFound` or what the resolver says; never an empty list.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let mut addresses: Vec<SocketAddr> = (bare, port).to_socket_addrs()?.collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for {host:?}")));
    }
    Ok(addresses)
}

/// Cores that this process may use (sched_getaffinity(2) and the cgroup's quota).
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// The number of the `index`-th core that this process may use (sched_getaffinity(2)); `None` if there are fewer.
#[allow(unsafe_code)]
pub fn core(index: usize) -> Option<usize> {
    // SAFETY: a C struct of integers, for which all zeros is a value.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes at most the given size into the set, which is that large; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) } != 0 {
        return None;
    }
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: the bit lies within the set.
    (0..bits).filter(|core| unsafe { libc::CPU_ISSET(*core, &allowed) }).nth(index)
}

/// What limits the memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// The memory of the machine (`MemTotal` of proc_meminfo(5)).
    pub machine_bytes: u64,
    /// The least limit of the process's cgroup, version 1 or 2 (cgroups(7)); absent where there is none.
    pub cgroup_bytes: Option<u64>,
}

/// The memory of the machine and of the process's cgroup. Where /proc is unreadable the machine counts as 0, so that the
/// caller's minimum holds.
pub fn memory() -> MachineMemory {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup_limit_paths(&membership).into_iter().filter_map(|path| {
        // "max" of version 2 is no number, and so no limit.
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    });
    MachineMemory { machine_bytes: memory_total(&meminfo).unwrap_or(0), cgroup_bytes: limits.min() }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The files that may hold the limit: of the cgroup itself and of every one above it, since the least of them holds.
fn cgroup_limit_paths(membership: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = group.trim_end_matches('/');
        loop {
            paths.push(format!("{root}{group}/{file}"));
            match group.rfind('/') {
                Some(parent) => group = &group[..parent],
                None => break,
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(memory_total("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert!(memory().machine_bytes > 0);
    }

    #[test]
    fn every_core_has_a_number() {
        let cores: Vec<usize> = (0..).map_while(core).collect();
        assert!(!cores.is_empty() && cores.is_sorted_by(|one, other| one < other));
        assert!(cores.len() >= super::cores(), "a quota only lowers the number");
    }

    #[test]
    fn every_cgroup_up_to_the_root_may_limit() {
        assert_eq!(
            cgroup_limit_paths("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(
            cgroup_limit_paths("3:cpu:/x\n2:hugetlb,memory:/\n"),
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
    }
}
