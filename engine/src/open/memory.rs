//! The memory that this process may still take: from the machine, under its control groups, under its own limits.
//!
//! All values come from files of the Linux kernel below a root folder, so that a test can pass a folder of its own. A
//! missing file sets no limit.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Memory that the process may still take, and its tightest limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) bytes: usize,
    pub(crate) limit: Limit,
}

/// A limit on the memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Memory of the machine that is free or that the kernel can reclaim.
    Machine,
    /// A control group, by its folder.
    Group(PathBuf),
    /// A limit of the process, by the flag of `ulimit` that sets it.
    Process(&'static str),
    /// No file states a limit.
    Unknown,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Machine => f.write_str("free on this machine"),
            Limit::Group(folder) => {
                write!(f, "left in the memory control group {}", folder.display())
            }
            Limit::Process(flag) => write!(f, "left under `ulimit {flag}`"),
            Limit::Unknown => f.write_str("assumed to be free"),
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB are {}", self.bytes / 1_000_000, self.limit)
    }
}

/// Assumed room if the system states no limit.
const UNKNOWN_BYTES: usize = 4 << 30;

/// The smallest room of all limits, read from `/proc` and `/sys` below `root`.
pub(crate) fn room(root: &Path) -> Room {
    let machine = field(&root.join("proc/meminfo"), "MemAvailable:")
        .map(|bytes| Room { bytes, limit: Limit::Machine });
    let all = machine.into_iter().chain(group_rooms(root)).chain(process_rooms(root));
    all.min_by_key(|room| room.bytes)
        .unwrap_or(Room { bytes: UNKNOWN_BYTES, limit: Limit::Unknown })
}

/// A field of a kernel file in bytes; the line has `name` and a number of kB.
fn field(path: &Path, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The number in a file; None if the file states no limit ("max").
fn number(path: &Path) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

// ---- limits of the process

/// For each limit: its name in `/proc/self/limits`, the flag of `ulimit` that sets it, and the field of
/// `/proc/self/status` that it bounds.
const PROCESS_LIMITS: [(&str, &str, &str); 2] =
    [("Max address space", "-v", "VmSize:"), ("Max data size", "-d", "VmData:")];

fn process_rooms(root: &Path) -> Vec<Room> {
    let limits = std::fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
    let status = root.join("proc/self/status");
    let room = |(name, flag, used): (&str, &'static str, &str)| {
        // The first number is the limit in force (soft), the second is the hard limit.
        let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let limit: usize = rest.split_whitespace().next()?.parse().ok()?;
        let bytes = limit.saturating_sub(field(&status, used)?);
        Some(Room { bytes, limit: Limit::Process(flag) })
    };
    PROCESS_LIMITS.into_iter().filter_map(room).collect()
}

// ---- control groups

/// Files of one version of control groups.
struct Version {
    /// Files with limits of a group; the smallest limit counts.
    limits: &'static [&'static str],
    usage: &'static str,
    /// Fields of `memory.stat` with memory that the kernel reclaims before it kills a process, such as pages of files.
    reclaimable: &'static [&'static str],
}

const V1: Version = Version {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: &["total_inactive_file", "total_active_file"],
};

/// Above `memory.high` the kernel does not kill a process, but it slows the process down until it hardly progresses.
const V2: Version = Version {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
};

/// The rooms of the process's group and of all its visible ancestors.
fn group_rooms(root: &Path) -> Vec<Room> {
    let read = |path| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut rooms = Vec::new();
    for (version, mount) in mounts.lines().filter_map(Mount::of_memory) {
        let Some(group) = group_of(&groups, version) else { continue };
        let version = if version == 1 { &V1 } else { &V2 };
        let top = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let folder = top.join(mount.relative(Path::new(group)));
        let up = folder.ancestors().take_while(|folder| folder.starts_with(&top));
        rooms.extend(up.filter_map(|folder| room_of_group(folder, version)));
    }
    rooms
}

fn room_of_group(folder: &Path, version: &Version) -> Option<Room> {
    let limits = version.limits.iter().filter_map(|file| number(&folder.join(file)));
    let limit = limits.min()?;
    let used = number(&folder.join(version.usage))?;
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let count = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        version.reclaimable.contains(&name).then(|| value.trim().parse::<usize>().ok())?
    };
    let reclaimable: usize = stat.lines().filter_map(count).sum();
    let bytes = limit.saturating_sub(used.saturating_sub(reclaimable));
    Some(Room { bytes, limit: Limit::Group(folder.to_path_buf()) })
}

/// The group of this process in the memory hierarchy of a version, from the text of `/proc/self/cgroup`.
fn group_of(text: &str, version: usize) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match version {
            1 => controllers.split(',').any(|name| name == "memory"),
            _ => hierarchy == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    })
}

/// The mount point of a hierarchy of control groups.
struct Mount {
    /// The group that is visible at `point`.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Version and mount of a line of `/proc/self/mountinfo`, if the groups of this mount limit memory.
    fn of_memory(line: &str) -> Option<(usize, Self)> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1).unwrap_or_default());
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let mut before = before.split(' ').skip(3).map(unescape);
        Some((version, Self { root: before.next()?.into(), point: before.next()?.into() }))
    }

    /// The folder of `group`, relative to the mount point. The path is empty if the group lies outside the mount, which
    /// happens when a process is moved into the namespace of a container.
    fn relative(&self, group: &Path) -> PathBuf {
        let relative = group.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let stays = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if stays { relative.to_path_buf() } else { PathBuf::new() }
    }
}

/// Decodes a path of `/proc/self/mountinfo`, which has octal escapes such as `\040` for a space.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => plain.extend([char::from(code)].into_iter().chain(part[3..].chars())),
            None => plain.extend(['\\'].into_iter().chain(part.chars())),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
