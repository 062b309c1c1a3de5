//! Where on this host each controller lives, and where this process stands in it; read, never written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Version;

/// A controller a container wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
    /// v1 only; v2 accounts for processor time without a controller.
    Cpuacct,
    /// v1 only; every v2 cgroup can be frozen.
    Freezer,
}

impl Controller {
    pub(crate) const ALL: [Self; 5] = [Self::Memory, Self::Pids, Self::Cpu, Self::Cpuacct, Self::Freezer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Freezer => "freezer",
        }
    }
}

/// This process's own cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// This process's cgroup, below `mount`.
    pub(crate) directory: PathBuf,
}

/// All hierarchies that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hierarchies {
    pub(crate) v1: BTreeMap<Controller, Own>,
    pub(crate) v2: Option<Own>,
}

/// Finds them in the texts of `/proc/self/mountinfo` and `/proc/self/cgroup` (`proc(5)`, `cgroups(7)`).
pub(crate) fn find(mountinfo: &str, own_cgroups: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        match mount.version {
            Version::V2 => {
                let path = own_cgroups.lines().find_map(|line| line.strip_prefix("0::"));
                if found.v2.is_none() {
                    found.v2 = path.and_then(|path| mount.own(path));
                }
            }
            Version::V1 => {
                for controller in Controller::ALL {
                    let ours = mount.options.split(',').any(|option| option == controller.name());
                    let path = own_v1_path(own_cgroups, controller).filter(|_| ours);
                    if let Some(own) = path.and_then(|path| mount.own(path)) {
                        found.v1.entry(controller).or_insert(own);
                    }
                }
            }
        }
    }
    found
}

fn own_v1_path(own_cgroups: &str, controller: Controller) -> Option<&str> {
    own_cgroups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller.name()).then_some(path)
    })
}

struct Mount<'a> {
    version: Version,
    /// The cgroup that the mount shows as its top.
    root: String,
    point: String,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        Some(Self { version, root: unescape(root), point: unescape(point), options: right.nth(1)? })
    }

    /// `None` when this process's cgroup is not below what the mount shows.
    fn own(&self, path: &str) -> Option<Own> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        if below.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        let mount = PathBuf::from(&self.point);
        Some(Own { directory: mount.join(below), mount })
    }
}

/// Undoes mountinfo's octal escapes of blank, tab, newline and backslash.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(mount: &str, directory: &str) -> Own {
        Own { mount: mount.into(), directory: directory.into() }
    }

    #[test]
    fn unified() {
        let found = find(
            "22 1 0:20 / /proc rw - proc proc rw\n\
             30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/belljar.service\n",
        );
        assert_eq!(
            found,
            Hierarchies {
                v1: BTreeMap::new(),
                v2: Some(own("/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/belljar.service")),
            }
        );
    }

    #[test]
    fn hybrid_with_controllers_mounted_together() {
        let found = find(
            "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n",
            "3:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/y\n",
        );
        let cpu = own("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(
            found,
            Hierarchies {
                v1: BTreeMap::from([
                    (Controller::Memory, own("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b")),
                    (Controller::Cpu, cpu.clone()),
                    (Controller::Cpuacct, cpu),
                ]),
                v2: Some(own("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/y")),
            }
        );
    }

    #[test]
    fn a_mount_of_a_part_shows_that_part_only() {
        let line = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(find(line, "0::/docker/abc/child\n").v2, Some(own("/sys/fs/cgroup", "/sys/fs/cgroup/child")));
        assert_eq!(find(line, "0::/elsewhere\n").v2, None);
        let namespaced = "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(find(namespaced, "0::/../outside\n").v2, None);
    }

    #[test]
    fn odd_mount_points() {
        let line = "30 23 0:26 / /a\\040b\\134c rw - cgroup2 cgroup rw\n";
        assert_eq!(find(line, "0::/\n").v2, Some(own("/a b\\c", "/a b\\c")));
        assert_eq!(find("nonsense\n- -\n", "0::/\n"), Hierarchies::default());
    }
}
