//! Room of machines, containers and shells, from kernel files that the tests write.

use super::*;
use std::fs;
use tempfile::TempDir;

const MB: usize = 1_000_000;

/// A root folder of a machine with 8 GiB of available memory.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(TempDir::new().expect("a folder"));
        root.with("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
        self
    }

    /// A group of version 2 at `folder` that uses `used` bytes, `cached` of them for pages of files.
    fn v2(self, folder: &str, max: &str, used: usize, cached: usize) -> Self {
        self.with(&format!("{folder}/memory.max"), &format!("{max}\n"))
            .with(&format!("{folder}/memory.high"), "max\n")
            .with(&format!("{folder}/memory.current"), &format!("{used}\n"))
            .with(
                &format!("{folder}/memory.stat"),
                &format!(
                    "anon {used}\ninactive_file {cached}\nactive_file 0\nslab_reclaimable 0\n"
                ),
            )
    }

    fn v1(self, folder: &str, limit: usize, used: usize, cached: usize) -> Self {
        self.with(&format!("{folder}/memory.limit_in_bytes"), &format!("{limit}\n"))
            .with(&format!("{folder}/memory.usage_in_bytes"), &format!("{used}\n"))
            .with(
                &format!("{folder}/memory.stat"),
                &format!("inactive_file 1\ntotal_inactive_file 0\ntotal_active_file {cached}\n"),
            )
    }

    fn room(&self) -> Room {
        room(self.0.path())
    }

    #[track_caller]
    fn is_limited_by_group(&self, bytes: usize, folder: &str) {
        let limit = Limit::Group(self.0.path().join(folder));
        assert_eq!(self.room(), Room { bytes, limit });
    }
}

const V2_MOUNT: &str =
    "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1_MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
/// The value of a limit in version 1 that means "no limit".
const NO_LIMIT: usize = 9_223_372_036_854_771_712;

#[test]
fn a_machine_without_limits_has_what_it_says() {
    let root = Root::new();
    assert_eq!(root.room(), Room { bytes: 8 << 30, limit: Limit::Machine });
    let nothing = room(TempDir::new().expect("a folder").path());
    assert_eq!(nothing.limit, Limit::Unknown);
}

#[test]
fn case_23_a_group_of_version_2() {
    let root = Root::new()
        .with("proc/self/cgroup", "0::/user.slice/job\n")
        .with("proc/self/mountinfo", V2_MOUNT)
        .v2("sys/fs/cgroup/user.slice/job", "450000000", 100 * MB, 30 * MB);
    root.is_limited_by_group(380 * MB, "sys/fs/cgroup/user.slice/job");
    let root = root.with("sys/fs/cgroup/user.slice/job/memory.high", "200000000\n");
    root.is_limited_by_group(130 * MB, "sys/fs/cgroup/user.slice/job");
    let root = root.v2("sys/fs/cgroup/user.slice/job", "max", 100 * MB, 0);
    assert_eq!(root.room().limit, Limit::Machine, "no limit");
}

#[test]
fn case_23_a_group_of_version_1() {
    let root = Root::new()
        .with("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n")
        .with("proc/self/mountinfo", V1_MOUNTS)
        .v1("sys/fs/cgroup/memory", NO_LIMIT, 0, 0)
        .v1("sys/fs/cgroup/memory/job", 450 * MB, 440 * MB, 400 * MB);
    root.is_limited_by_group(410 * MB, "sys/fs/cgroup/memory/job");
    let root = root.v1("sys/fs/cgroup/memory/job", 450 * MB, 460 * MB, 0);
    root.is_limited_by_group(0, "sys/fs/cgroup/memory/job");
}

#[test]
fn the_smallest_room_along_the_path_counts() {
    let root = Root::new()
        .with("proc/self/cgroup", "0::/a/b/c\n")
        .with("proc/self/mountinfo", V2_MOUNT)
        .v2("sys/fs/cgroup/a", "900000000", 850 * MB, 0)
        .v2("sys/fs/cgroup/a/b", "max", 100 * MB, 0)
        .v2("sys/fs/cgroup/a/b/c", "500000000", 100 * MB, 0);
    root.is_limited_by_group(50 * MB, "sys/fs/cgroup/a");
}

#[test]
fn a_container_sees_its_group_as_the_root() {
    // In a namespace of control groups, the process's group is "/".
    let root = Root::new()
        .with("proc/self/cgroup", "0::/\n")
        .with("proc/self/mountinfo", V2_MOUNT)
        .v2("sys/fs/cgroup", "450000000", 100 * MB, 0);
    root.is_limited_by_group(350 * MB, "sys/fs/cgroup");
    // Without a namespace, the root of the mount is an ancestor of the process's group.
    let mount = "35 31 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let root = Root::new()
        .with("proc/self/cgroup", "4:memory:/docker/1f/part\n")
        .with("proc/self/mountinfo", mount)
        .v1("sys/fs/cgroup/memory", 300 * MB, 0, 0)
        .v1("sys/fs/cgroup/memory/part", 200 * MB, 0, 0);
    root.is_limited_by_group(200 * MB, "sys/fs/cgroup/memory/part");
    // The group of a process that was moved into the namespace lies outside the mount.
    for group in ["/../../other", "/other"] {
        let root = Root::new()
            .with("proc/self/cgroup", &format!("4:memory:{group}\n"))
            .with("proc/self/mountinfo", mount)
            .v1("sys/fs/cgroup/memory", 300 * MB, 0, 0);
        root.is_limited_by_group(300 * MB, "sys/fs/cgroup/memory");
    }
}

#[test]
fn mount_points_may_have_spaces() {
    let root = Root::new()
        .with("proc/self/cgroup", "0::/job\n")
        .with("proc/self/mountinfo", "30 24 0:26 / /my\\040groups rw - cgroup2 none rw\n")
        .v2("my groups/job", "450000000", 0, 0);
    root.is_limited_by_group(450 * MB, "my groups/job");
}

#[test]
fn files_that_make_no_sense_set_no_limit() {
    for (groups, mounts) in [
        ("", ""),
        ("0::\n", "30 24\n"),
        ("nothing", " - cgroup2"),
        ("4:memory:/job\n", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("0::/job\n", "30 24 0:26 / /sys/fs/cgroup\\ rw - cgroup2 cgroup2 rw\n"),
    ] {
        let root = Root::new()
            .with("proc/self/cgroup", groups)
            .with("proc/self/mountinfo", mounts)
            .with("proc/self/limits", "Max address space\nMax data size  much  more  bytes\n")
            .with("sys/fs/cgroup/job/memory.max", "-3\n");
        assert_eq!(root.room().limit, Limit::Machine, "{groups:?} {mounts:?}");
    }
}

#[test]
fn case_23_limits_of_the_process() {
    let limits = |addresses: &str, data: &str| {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max data size             {data}            unlimited            bytes     \n\
             Max address space         {addresses}            900000000            bytes     \n"
        )
    };
    let status =
        "Name:\tgalley\nVmPeak:\t  500000 kB\nVmSize:\t  100000 kB\nVmData:\t   50000 kB\n";
    let root = |addresses, data| {
        Root::new()
            .with("proc/self/limits", &limits(addresses, data))
            .with("proc/self/status", status)
    };
    assert_eq!(root("unlimited", "unlimited").room().limit, Limit::Machine);
    let room = root("450000000", "unlimited").room();
    assert_eq!(room, Room { bytes: 450_000_000 - 102_400_000, limit: Limit::Process("-v") });
    let room = root("450000000", "200000000").room();
    assert_eq!(room, Room { bytes: 200_000_000 - 51_200_000, limit: Limit::Process("-d") });
}

#[test]
fn this_machine_has_room() {
    let room = room(Path::new("/"));
    assert!(room.bytes > 0, "{room:?}");
    assert!(room.to_string().contains("MB are"), "{room}");
}
