//! Who a container's root is on the host.

use serde::{Deserialize, Serialize};

/// Ids in a container's user namespace.
pub(crate) const IDS: u32 = 65_536;

/// The user and group ids of a container, seen from outside (`user_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Container ids `0..=65535` are host ids `base..=base+65535`. Needs root on the host.
    Mapped {
        /// First host id.
        base: u32,
    },
    /// Only container id 0 exists; it is the caller's own user and group.
    Caller {
        /// The caller's effective user id.
        uid: u32,
        /// The caller's effective group id.
        gid: u32,
    },
}

impl Identity {
    /// The strongest identity this process may give: [`Identity::Mapped`] as root of a user namespace that has the
    /// ids, else [`Identity::Caller`]. Root of a container may well not have them.
    pub fn strongest(base: u32) -> Self {
        let uid = rustix::process::geteuid();
        let has = |file: &str| std::fs::read_to_string(file).is_ok_and(|map| contains(&map, base));
        if uid.is_root() && has("/proc/self/uid_map") && has("/proc/self/gid_map") {
            Self::Mapped { base }
        } else {
            Self::Caller { uid: uid.as_raw(), gid: rustix::process::getegid().as_raw() }
        }
    }

    /// Whether a container's namespaces are closed to the host as soon as its process 1 cannot be dumped: an ordinary user has
    /// no right to them then (`ptrace(2)`), and has to hold them open from before.
    pub(crate) fn hides_its_processes(self) -> bool {
        matches!(self, Self::Caller { .. })
    }
}

/// Whether user 0 is the machine's root, not that of a user namespace.
pub(crate) fn root_is_the_machines() -> bool {
    // Unreadable, it has to be taken for the worse.
    std::fs::read_to_string("/proc/self/uid_map")
        .map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Whether a map (`user_namespaces(7)`: first id inside, first id outside, count) has all ids from `base` on.
fn contains(map: &str, base: u32) -> bool {
    let (first, end) = (u64::from(base), u64::from(base) + u64::from(IDS));
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        inside <= first && end <= inside + count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_maps() {
        let whole = "         0          0 4294967295\n";
        let nested = "         0       1000          1\n         1     100000      65536\n";
        assert!(contains(whole, 65_536));
        assert!(contains(whole, u32::MAX - IDS));
        assert!(!contains(whole, u32::MAX - IDS + 1));
        assert!(contains(nested, 1));
        assert!(!contains(nested, 2));
        assert!(!contains(nested, 65_536));
        assert!(!contains("", 65_536));
        assert!(!contains("a b c\n", 65_536));
    }
}
