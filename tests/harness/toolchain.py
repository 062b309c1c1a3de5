"""The official SDKs, installed once into a cache outside the tree, pinned by version and hash."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path


def cache_dir():
    """Where what is downloaded for tests and demonstrations is kept."""
    base = os.environ.get("BELLJAR_CACHE_DIR")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "belljar"


def python_with(requirements):
    """A virtual environment's Python with exactly these requirements (a file of pins and hashes)."""
    requirements = Path(requirements)
    name = f"{requirements.stem}-{sys.version_info[0]}.{sys.version_info[1]}-{digest(requirements)}"
    return once("venv", name, lambda path: make_venv(path, requirements)) / "bin/python"


def node_modules(project):
    """A `node_modules` for the project's lock file."""
    project = Path(project)
    return once("node", digest(project / "package-lock.json"), lambda path: install_node(path, project)) / "node_modules"


def once(kind, name, make):
    """The directory `kind/name`, made at most once even when two runs start together."""
    parent = cache_dir() / "tests" / kind
    parent.mkdir(parents=True, exist_ok=True)
    ready = parent / name
    with open(parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = ready / ".complete"
        if not done.exists():
            shutil.rmtree(ready, ignore_errors=True)
            make(ready)
            done.touch()
    return ready


def make_venv(path, requirements):
    venv.create(path, with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]
    run([path / "bin/python", *install, requirements])


def install_node(path, project):
    path.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(project / name, path)
    run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=path)


def run(command, cwd=None):
    ended = subprocess.run([str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {ended.returncode}")


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
