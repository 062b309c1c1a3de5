//! The part of the host's cgroup hierarchies that one server owns.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::container::{Cgroup, Home};
use super::place::{self, Controller, Own};
use super::{CgroupError, CgroupUnavailable, Limits, Version, read, total, write};

/// Directory of all servers of this name, in each hierarchy.
const FAMILY: &str = "belljar";

/// Where a v2 server moves itself, so that its own cgroup may have children with controllers.
const SERVER_LEAF: &str = "belljar-server";

/// How often, and in which steps, it is looked whether a killed container has left its cgroup. A few milliseconds are
/// what it takes; what takes longer is left to the next sweep.
const CLEAR_LOOKS_MAX: u32 = 20;
const CLEAR_LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(5);

/// The part of the host's cgroup hierarchies that this server owns. Removed when dropped, if empty by then.
#[derive(Debug)]
pub struct CgroupTree {
    homes: BTreeMap<Controller, Home>,
    /// A v2 directory without controllers on a v1 host: what is frozen there can still be killed.
    bare_v2: Option<PathBuf>,
}

impl CgroupTree {
    /// Finds what this host offers, makes this server's own subtree, and sweeps away those of dead servers.
    ///
    /// On v2, unless this process stands in the hierarchy's root, it moves itself into a child of its present cgroup:
    /// a cgroup whose children have controllers may hold no process (`cgroups(7)`, "no internal processes").
    ///
    /// # Errors
    /// [`CgroupUnavailable`] when memory or processes cannot be limited here.
    pub fn detect() -> Result<Self, CgroupUnavailable> {
        let file = |path: &str| {
            fs::read_to_string(path).map_err(|error| CgroupUnavailable { reason: format!("{path}: {error}") })
        };
        let found = place::find(&file("/proc/self/mountinfo")?, &file("/proc/self/cgroup")?);
        let process = process_name(std::process::id())
            .ok_or_else(|| CgroupUnavailable { reason: "this process does not find itself in /proc".to_owned() })?;
        static TREES: AtomicU32 = AtomicU32::new(0);
        let instance = format!("{process}.{}", TREES.fetch_add(1, Ordering::Relaxed));
        let mut reasons = Vec::new();
        let mut tree = Self { homes: BTreeMap::new(), bare_v2: None };
        if let Some(own) = &found.v2 {
            match unified(own, &instance, &mut reasons) {
                Some((directory, controllers)) => tree.adopt_v2(directory, &controllers),
                None => reasons.push("no usable place in the unified hierarchy".to_owned()),
            }
        }
        // Every cgroup more costs each start time, so the old freezer is used only where there is nothing better.
        let freezes = tree.bare_v2.is_some() || !tree.homes.is_empty();
        for (controller, own) in &found.v1 {
            if freezes && *controller == Controller::Freezer {
                continue;
            }
            match own_directory(&own.directory, &instance) {
                Ok(directory) => {
                    let home = Home { version: Version::V1, directory };
                    tree.homes.insert(*controller, home);
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let tree = tree.require(&reasons)?;
        total::limit(&tree.homes).map_err(|error| CgroupUnavailable { reason: error.to_string() })?;
        Ok(tree)
    }

    fn adopt_v2(&mut self, directory: PathBuf, controllers: &[Controller]) {
        if controllers.is_empty() {
            self.bare_v2 = Some(directory);
            return;
        }
        for &controller in controllers {
            self.homes.entry(controller).or_insert_with(|| Home { version: Version::V2, directory: directory.clone() });
        }
    }

    fn require(self, reasons: &[String]) -> Result<Self, CgroupUnavailable> {
        let missing: Vec<_> = [Controller::Memory, Controller::Pids]
            .into_iter()
            .filter(|controller| !self.homes.contains_key(controller))
            .map(Controller::name)
            .collect();
        if missing.is_empty() {
            return Ok(self);
        }
        let details =
            if reasons.is_empty() { "no hierarchy with them is mounted".to_owned() } else { reasons.join("; ") };
        Err(CgroupUnavailable { reason: format!("no control over {} ({details})", missing.join(" and ")) })
    }

    /// Whether processor time can be limited; where it cannot, [`Limits::cpus`] has no effect.
    pub fn limits_cpu(&self) -> bool {
        self.homes.contains_key(&Controller::Cpu)
    }

    /// The interface that limits memory.
    pub fn version(&self) -> Version {
        self.homes.get(&Controller::Memory).map_or(Version::V2, |home| home.version)
    }

    /// Makes one container's cgroup with its limits.
    ///
    /// # Errors
    /// [`CgroupError`] naming the file; what was made is removed.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        Cgroup::create(&self.homes, self.bare_v2.as_deref(), name, limits)
    }

    /// The cgroup that this server has made under a name as another program; `cpus` is what was last wished for it.
    ///
    /// # Errors
    /// [`CgroupError`] when there is none.
    pub fn inherited(&self, name: &str, cpus: f64) -> Result<Cgroup, CgroupError> {
        Cgroup::inherited(&self.homes, self.bare_v2.as_deref(), name, cpus)
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.homes.values().map(|home| home.directory.as_path()).chain(self.bare_v2.as_deref())
    }
}

impl Drop for CgroupTree {
    fn drop(&mut self) {
        for directory in self.directories() {
            // Refused by the kernel while a container is left; then the next server sweeps it.
            let _left_to_the_sweep = fs::remove_dir(directory);
        }
    }
}

/// The server's directory below `parent`, made if need be, after the dead servers' ones have been swept away.
fn own_directory(parent: &Path, instance: &str) -> Result<PathBuf, CgroupError> {
    let family = parent.join(FAMILY);
    make_directory(&family)?;
    sweep(&family);
    let directory = family.join(instance);
    make_directory(&directory)?;
    Ok(directory)
}

fn make_directory(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(CgroupError::at(path)),
    }
}

/// Removes the empty cgroups of servers that are gone. Best effort: the kernel keeps what has processes.
fn sweep(family: &Path) {
    for name in children(family) {
        let pid = name.split('.').next().and_then(|pid| pid.parse().ok());
        let alive = pid
            .and_then(process_name)
            .is_some_and(|process| name.strip_prefix(&process).is_some_and(|rest| rest.starts_with('.')));
        if alive {
            continue;
        }
        let dead = family.join(name);
        for container in children(&dead) {
            clear(&dead.join(container));
        }
        let _kept_if_populated = fs::remove_dir(dead);
    }
}

/// Removes a dead server's cgroup. What runs in it ends with its server, unless it stands still and cannot notice: that
/// is let run, or killed where the kernel can do it at once.
fn clear(container: &Path) {
    for (file, value) in [("cgroup.kill", "1"), ("freezer.state", "THAWED")] {
        let _where_there_is_one = fs::OpenOptions::new()
            .write(true)
            .open(container.join(file))
            .and_then(|mut opened| io::Write::write_all(&mut opened, value.as_bytes()));
    }
    for _ in 0..CLEAR_LOOKS_MAX {
        match fs::remove_dir(container) {
            // Version 1 tells no one when the last process has left.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(CLEAR_LOOK_AGAIN),
            _ => return,
        }
    }
}

fn children(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Names a process beyond its id: `<pid>.<start time>`. `None` when there is none with this id.
fn process_name(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; field 22 is the twentieth after it (proc_pid_stat(5)).
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid}.{start}"))
}

/// A place in the unified hierarchy, with the wanted controllers that work there.
fn unified(own: &Own, instance: &str, reasons: &mut Vec<String>) -> Option<(PathBuf, Vec<Controller>)> {
    candidates(own).into_iter().find_map(|candidate| {
        let made = candidate.prepare().and_then(|base| delegated(&base, instance));
        match made {
            Ok(found) => Some(found),
            Err(error) => {
                reasons.push(error.to_string());
                None
            }
        }
    })
}

/// Makes the server's directory below `base` and hands the controllers down to it.
fn delegated(base: &Path, instance: &str) -> Result<(PathBuf, Vec<Controller>), CgroupError> {
    let available = read(&base.join("cgroup.controllers"))?;
    let wanted: Vec<_> = Controller::ALL
        .into_iter()
        .filter(|controller| available.split_whitespace().any(|name| name == controller.name()))
        .collect();
    for &controller in &wanted {
        hand_down(base, controller)?;
    }
    let family = base.join(FAMILY);
    make_directory(&family)?;
    let directory = own_directory(base, instance)?;
    for &controller in &wanted {
        hand_down(&family, controller)?;
        hand_down(&directory, controller)?;
    }
    Ok((directory, wanted))
}

fn hand_down(directory: &Path, controller: Controller) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.subtree_control");
    if read(&file)?.split_whitespace().any(|name| name == controller.name()) {
        return Ok(());
    }
    write(&file, &format!("+{}", controller.name()))
}

/// Where in the unified hierarchy a server may settle, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Candidate {
    /// The hierarchy's root, or the parent of the leaf into which this process has moved before.
    Free(PathBuf),
    /// This process's own cgroup; it must be alone there, and moves into a leaf of it.
    Own(PathBuf),
}

fn candidates(own: &Own) -> Vec<Candidate> {
    let mut found = Vec::new();
    if own.directory.ends_with(SERVER_LEAF) {
        found.extend(own.directory.parent().map(|parent| Candidate::Free(parent.to_owned())));
    } else if !is_root(&own.directory) {
        found.push(Candidate::Own(own.directory.clone()));
    }
    if is_root(&own.mount) {
        found.push(Candidate::Free(own.mount.clone()));
    }
    found
}

/// Only the true root of the hierarchy lacks this file; it alone may have processes beside children with controllers.
fn is_root(directory: &Path) -> bool {
    !directory.join("cgroup.type").exists()
}

impl Candidate {
    fn prepare(self) -> Result<PathBuf, CgroupError> {
        match self {
            Self::Free(directory) => Ok(directory),
            Self::Own(directory) => {
                let procs = directory.join("cgroup.procs");
                let me = std::process::id().to_string();
                if read(&procs)?.lines().any(|pid| pid != me) {
                    return Err(CgroupError {
                        path: procs,
                        source: io::Error::other(
                            "other processes are in it; start the server in a cgroup of its own \
                             (a systemd unit or scope with Delegate=yes)",
                        ),
                    });
                }
                let leaf = directory.join(SERVER_LEAF);
                make_directory(&leaf)?;
                write(&leaf.join("cgroup.procs"), &me)?;
                Ok(directory)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files a kernel would show in it.
    fn fake(parent: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = parent.join(name);
        fs::create_dir_all(&directory).expect("directory");
        for (file, text) in files {
            fs::write(directory.join(file), text).expect("file");
        }
        directory
    }

    const CONTROL: (&str, &str) = ("cgroup.subtree_control", "");
    const AVAILABLE: (&str, &str) = ("cgroup.controllers", "cpuset cpu io memory pids\n");

    #[test]
    fn a_server_alone_moves_into_a_leaf_and_hands_controllers_down() {
        let place = tempfile::tempdir().expect("place");
        let me = std::process::id().to_string();
        let service =
            fake(place.path(), "service", &[AVAILABLE, CONTROL, ("cgroup.type", "domain\n"), ("cgroup.procs", &me)]);
        let leaf = fake(&service, SERVER_LEAF, &[("cgroup.procs", "")]);
        let family = fake(&service, FAMILY, &[CONTROL]);
        let name = "1.2.0".to_owned();
        let ours = fake(&family, &name, &[CONTROL]);
        let own = Own { mount: place.path().to_owned(), directory: service.clone() };
        assert_eq!(candidates(&own), [Candidate::Own(service.clone()), Candidate::Free(place.path().to_owned())]);
        let mut reasons = Vec::new();
        assert_eq!(
            unified(&own, &name, &mut reasons),
            Some((ours.clone(), vec![Controller::Memory, Controller::Pids, Controller::Cpu]))
        );
        assert_eq!(reasons, Vec::<String>::new());
        assert_eq!(fs::read_to_string(leaf.join("cgroup.procs")).expect("leaf"), me);
        // A plain file takes each write at its start; the last one wins, and all have the same length or less.
        for directory in [&service, &family, &ours] {
            let control = fs::read_to_string(directory.join(CONTROL.0)).expect("control");
            assert!(control.starts_with("+cpu"), "{control}");
        }
    }

    #[test]
    fn company_in_the_own_cgroup_is_refused_with_advice() {
        let place = tempfile::tempdir().expect("place");
        let files = [("cgroup.procs", "1\n2\n"), ("cgroup.type", "domain\n")];
        let session = fake(place.path(), "session", &files);
        fs::write(place.path().join("cgroup.type"), "domain\n").expect("type");
        let own = Own { mount: place.path().to_owned(), directory: session.clone() };
        let mut reasons = Vec::new();
        assert_eq!(unified(&own, "1.1", &mut reasons), None);
        assert_eq!(
            reasons,
            [format!(
                "cgroup {}/cgroup.procs: other processes are in it; start the server in a cgroup of its own \
                 (a systemd unit or scope with Delegate=yes)",
                session.display()
            )]
        );
        assert_eq!(children(&session), Vec::<String>::new());
    }

    #[test]
    fn a_server_that_has_moved_stays_where_it_is() {
        let own = Own { mount: "/nonexistent".into(), directory: Path::new("/nonexistent/service").join(SERVER_LEAF) };
        assert_eq!(candidates(&own).first(), Some(&Candidate::Free("/nonexistent/service".into())));
    }

    #[test]
    fn dead_servers_are_swept_and_live_ones_are_not() {
        let place = tempfile::tempdir().expect("place");
        let process = process_name(std::process::id()).expect("process");
        let live = format!("{process}.3");
        let longer = format!("{process}1.0");
        let reused = format!("{}.1.0", std::process::id());
        for name in [&live, &longer, &reused, "4294967295.7.0", "strange"] {
            fake(place.path(), &format!("{name}/container"), &[]);
        }
        sweep(place.path());
        assert_eq!(children(place.path()), std::slice::from_ref(&live));
        assert_eq!(children(&place.path().join(live)), ["container"]);
    }

    #[test]
    fn without_memory_and_pids_there_is_no_tree() {
        let tree = CgroupTree { homes: BTreeMap::new(), bare_v2: None };
        assert_eq!(
            tree.require(&[]).expect_err("nothing is there").reason,
            "no control over memory and pids (no hierarchy with them is mounted)"
        );
    }
}
