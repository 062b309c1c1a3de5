"""The tests of what runs inside the wall in Python. `run.py [--only WORD] [--image-file FILE]`.

First with the Python that runs this file. Then, for root and where an image is in the cache, all of it once more inside
that image with its own Python, and with it the zygotes, which need its libraries.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
sys.path[:0] = [str(HERE), str(Path(os.environ.get("BELLJAR_TEST_HARNESS", REPOSITORY / "tests")))]

import calls  # noqa: E402
import cells  # noqa: E402
import edges  # noqa: E402
import zygotes  # noqa: E402
from harness import report  # noqa: E402

# Runs in a mount namespace of its own, so nothing of this is left. The image is mounted as it is, with the few places
# writable that a container has writable.
INSIDE = """
set -e
mount --make-rprivate /
mount -t erofs -o ro,loop "$IMAGE" "$ROOT"
for place in tmp run work files/output; do mount -t tmpfs tmpfs "$ROOT/$place"; done
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mkdir -p "$ROOT/run/tests/guest" "$ROOT/run/tests/harness"
cp -r "$PYTHON_FILES" "$ROOT/run/tests/guest/python"
cp "$HARNESS"/*.py "$ROOT/run/tests/harness/"
cd "$ROOT"
exec env -i PATH=/usr/bin:/bin:/usr/sbin LANG=C.UTF-8 HOME=/tmp BELLJAR_TEST_HARNESS=/run/tests \\
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 JE_ARROW_MALLOC_CONF=background_thread:false \\
    chroot "$ROOT" python3 -u /run/tests/guest/python/tests/run.py --inside --only "$ONLY"
"""


def run_here(total, only, inside):
    for table, case in cells.load(only):
        total.check(f"{table}: {case['name']}", lambda case=case: cells.run_case(case))
    for name, check in edges.CHECKS + calls.CHECKS:
        if only in name:
            total.check(name, check)
    checks = zygotes.CHECKS + (zygotes.IMAGE_CHECKS if inside else [])
    for name, check in checks:
        if only in name:
            total.check(name, check)


def cached_image():
    """The default image's file, as `belljar image build` leaves it."""
    cache = os.environ.get("BELLJAR_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "belljar")
    name = Path(cache) / "names" / "default"
    if not name.is_file():
        return None
    digest = name.read_text().strip().removeprefix("sha256:")
    file = Path(cache) / "images" / f"{digest}.erofs"
    return file if file.is_file() else None


def run_inside(total, image, only):
    if os.geteuid() != 0:
        return total.skip("inside the image", "it takes root to mount it")
    if image is None:
        return total.skip("inside the image", "there is none: `belljar image build` makes it")
    with tempfile.TemporaryDirectory() as root:
        environment = {**os.environ, "IMAGE": str(image), "ROOT": root, "ONLY": only,
                       "PYTHON_FILES": str(HERE.parent), "HARNESS": str(REPOSITORY / "tests" / "harness")}
        command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", INSIDE]
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    print(ended.stdout, end="", flush=True)
    totals = report.read_totals(ended.stdout)
    if totals is None:
        return total.fail("inside the image", f"it ended with {ended.returncode} and counted nothing")
    return total.add("inside the image", *totals)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only checks whose name contains this")
    parser.add_argument("--image-file", type=Path, default=None, help="an erofs file instead of the cached image")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    total = report.Report(f"python {platform.python_version()}")
    run_here(total, arguments.only, arguments.inside)
    if not arguments.inside:
        run_inside(total, arguments.image_file or cached_image(), arguments.only)
    report.exit_with(total)


if __name__ == "__main__":
    main()
