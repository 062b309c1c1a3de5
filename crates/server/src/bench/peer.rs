//! The programs that Belljar is measured against: how each is found, and the exact command that does the same task on the
//! same root filesystem. Each gets a filled font cache, so that none pays for reading fonts.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use belljar_sandbox::Rootfs;
use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::stopwatch::Stopwatch;
use super::task::Task;

/// A program on this host that does what a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// bubblewrap: all namespaces, the image read-only, a tmpfs over `/tmp`.
    Bwrap,
    /// runc: an OCI bundle with all namespaces and ids mapped as ours are.
    Runc,
    /// gVisor: the same bundle without a user namespace, which it does not need.
    Runsc,
    /// `chroot(8)` into the image, nothing else.
    Chroot,
    /// The program itself on the host, without any wall.
    Bare,
    /// A Jupyter kernel, driven by its own client.
    Jupyter,
    /// A warm Python of the host that is told a line and answers one.
    Interpreter,
}

/// What is said of a peer.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Its name in series and promises.
    pub name: &'static str,
    /// Its version, or how to install it.
    pub found: Result<String, String>,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 7] =
        [Peer::Bwrap, Peer::Runc, Peer::Runsc, Peer::Chroot, Peer::Bare, Peer::Jupyter, Peer::Interpreter];

    /// The name in series and promises.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bwrap => "bwrap",
            Self::Runc => "runc",
            Self::Runsc => "runsc",
            Self::Chroot => "chroot",
            Self::Bare => "bare",
            Self::Jupyter => "jupyter",
            Self::Interpreter => "interpreter",
        }
    }

    fn probe(self, places: &Places) -> Command {
        let (program, arguments): (&Path, &[&str]) = match self {
            Self::Bwrap => (Path::new("bwrap"), &["--version"]),
            Self::Runc => (Path::new("runc"), &["--version"]),
            Self::Runsc => (&places.runsc, &["--version"]),
            Self::Chroot => (Path::new("chroot"), &["--version"]),
            Self::Bare => (Path::new("bash"), &["--version"]),
            Self::Interpreter => (Path::new("python3"), &["--version"]),
            Self::Jupyter => (
                &places.jupyter,
                &[
                    "-c",
                    "import ipykernel, jupyter_client as c; print('ipykernel', ipykernel.__version__, 'jupyter_client', c.__version__)",
                ],
            ),
        };
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", PATH);
        command
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Bwrap => "install bubblewrap",
            Self::Runc => "install runc",
            Self::Runsc => "install runsc (gVisor)",
            Self::Chroot => "install coreutils",
            Self::Bare => "install bash",
            Self::Interpreter => "install python3",
            Self::Jupyter => "run scripts/bench, which installs it, or name a Python that has it with --jupyter",
        }
    }

    /// Whether it is here: its version.
    pub fn find(self, places: &Places) -> Found {
        let answer = self.probe(places).stdin(Stdio::null()).output();
        let found = match answer {
            Ok(answer) if answer.status.success() => {
                let said = String::from_utf8_lossy(&answer.stdout);
                Ok(said.lines().next().unwrap_or_default().to_owned())
            }
            Ok(answer) => Err(format!("{}: does not work ({}); {}", self.name(), answer.status, self.advice())),
            Err(_absent) => Err(format!("{}: not found; {}", self.name(), self.advice())),
        };
        Found { name: self.name(), found }
    }

    /// The command that does `task` from nothing. `run` is different each time.
    pub fn command(self, task: Task, places: &Places, run: u64) -> Command {
        let words = match self {
            Self::Bwrap => places.bwrap(task),
            Self::Runc => places.oci(&["runc"], "runc", task, run),
            Self::Runsc => {
                let runsc = places.runsc.display().to_string();
                places.oci(&[&runsc, "--network=none", "--ignore-cgroups"], "runsc", task, run)
            }
            Self::Chroot => places.chroot(task),
            Self::Bare | Self::Jupyter | Self::Interpreter => task.argv(),
        };
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(ENVIRONMENT.iter().copied());
        command
    }
}

/// Where programs of the host are found.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the containers' own environment says of Python, and a place for the font cache.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", PATH),
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("MPLBACKEND", "agg"),
    ("MPLCONFIGDIR", "/tmp"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("JE_ARROW_MALLOC_CONF", "background_thread:false"),
];

/// Where a runsc lies that no package of this host brought, below the cache directory.
const RUNSC: &str = "tools/bin/runsc";

/// Where peers find what they need.
#[derive(Debug)]
pub struct Places {
    rootfs: PathBuf,
    owner_base: Option<u32>,
    /// The Python that has `jupyter_client` and `ipykernel`.
    pub jupyter: PathBuf,
    /// gVisor's program: a name to be searched for, or a path.
    runsc: PathBuf,
    /// Holds the font cache, bundles, and the state of runc.
    work: tempfile::TempDir,
}

impl Places {
    /// Lays out the peers' working directory.
    pub fn lay_out(rootfs: &Rootfs, cache_dir: &Path, jupyter: PathBuf) -> Result<Self, Failure> {
        let work = tempfile::Builder::new().prefix("belljar-bench-").tempdir()?;
        let everyone = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        everyone(work.path(), 0o755)?;
        let fonts = work.path().join("fonts");
        fs::create_dir(&fonts)?;
        everyone(&fonts, 0o777)?;
        let cached = rootfs.path.join("root/.cache/matplotlib");
        for entry in fs::read_dir(cached).into_iter().flatten() {
            let entry = entry?;
            let copy = fonts.join(entry.file_name());
            fs::copy(entry.path(), &copy)?;
            everyone(&copy, 0o666)?;
        }
        let cached = cache_dir.join(RUNSC);
        let runsc = if cached.is_file() { cached } else { PathBuf::from("runsc") };
        Ok(Self { rootfs: rootfs.path.clone(), owner_base: rootfs.owner_base, jupyter, runsc, work })
    }

    fn fonts(&self) -> String {
        self.work.path().join("fonts").display().to_string()
    }

    fn bwrap(&self, task: Task) -> Vec<String> {
        let (rootfs, fonts) = (self.rootfs.display().to_string(), self.fonts());
        let flags = ["bwrap", "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session"];
        let mounts = ["--ro-bind", &rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--bind", &fonts, "/tmp"];
        words(&[&flags, &mounts]).chain(task.argv()).collect()
    }

    fn chroot(&self, task: Task) -> Vec<String> {
        let (rootfs, fonts) = (self.rootfs.display().to_string(), self.fonts());
        let script = "mount --bind \"$1\" \"$2/tmp\" && root=$2 && shift 2 && exec chroot \"$root\" \"$@\"";
        let shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", &fonts, &rootfs];
        words(&[&shell]).chain(task.argv()).collect()
    }

    fn oci(&self, program: &[&str], name: &str, task: Task, run: u64) -> Vec<String> {
        let state = self.work.path().join(format!("{name}-state")).display().to_string();
        let bundle = self.bundle(name, task).display().to_string();
        let id = format!("belljar-bench-{}-{run}", std::process::id());
        words(&[program, &["--root", &state, "run", "--bundle", &bundle, &id]]).collect()
    }

    fn bundle(&self, name: &str, task: Task) -> PathBuf {
        self.work.path().join(format!("{name}-{}", task.name()))
    }

    /// Writes the bundles that runc and runsc start from.
    pub fn write_bundles(&self) -> Result<(), Failure> {
        for (name, owner_base) in [("runc", self.owner_base), ("runsc", None)] {
            for task in Task::ALL {
                let bundle = self.bundle(name, task);
                fs::create_dir_all(&bundle)?;
                fs::write(bundle.join("config.json"), self.oci_config(task, owner_base).to_string())?;
            }
        }
        Ok(())
    }

    /// The runtime specification's `config.json`: all namespaces, no capabilities, the image read-only.
    fn oci_config(&self, task: Task, owner_base: Option<u32>) -> serde_json::Value {
        let environment: Vec<String> = ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
        let mut linux = json!({});
        if let Some(base) = owner_base {
            namespaces.push("user");
            let map = json!([{ "containerID": 0, "hostID": base, "size": 65536 }]);
            linux["uidMappings"] = map.clone();
            linux["gidMappings"] = map;
        }
        linux["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": task.argv(), "env": environment,
                "noNewPrivileges": true, "capabilities": {},
            },
            "root": { "path": self.rootfs, "readonly": true },
            "hostname": "container",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
                { "destination": "/tmp", "type": "bind", "source": self.fonts(), "options": ["bind", "rw"] },
            ],
            "linux": linux,
        })
    }
}

fn words(groups: &[&[&str]]) -> impl Iterator<Item = String> {
    groups.concat().into_iter().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Runs a command up to the output that `task` must give; its exit is awaited but not counted.
pub fn time(mut command: Command, task: Task) -> Result<f64, Failure> {
    let begun = Stopwatch::start();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or("no pipe")?;
    let mut said = vec![0; task.expected().len()];
    let read = stdout.read_exact(&mut said);
    let took = begun.micros();
    let ended = child.wait_with_output()?;
    if read.is_err() || said != task.expected() || !ended.status.success() {
        let complaint = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        return Err(format!("{command:?} ended with {}: {complaint}", ended.status).into());
    }
    Ok(took)
}
