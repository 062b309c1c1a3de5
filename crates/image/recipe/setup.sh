#!/bin/sh
# Turns a Debian root with wheels beside it into the root that containers start from. Runs inside that root, as its root
# user, offline. /.build holds wheels/ and python.txt. Everything written here must come out the same each time.
set -eu
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 HOME=/root

python=python3.13
# The host's are copied in by mmdebstrap.
rm -f /etc/hostname /etc/resolv.conf /etc/hosts

echo "setup: wheels"
rm -f /usr/lib/python3.13/EXTERNALLY-MANAGED
pip=$(echo /.build/wheels/pip-*.whl)
"$python" "$pip/pip" install --quiet --no-index --find-links /.build/wheels --no-deps \
    --require-hashes --only-binary=:all: --no-compile --no-cache-dir --disable-pip-version-check \
    --root-user-action=ignore --no-warn-script-location --requirement /.build/python.txt
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# The libraries' own test suites are a tenth of the image; `direct_url.json` would name the build directory.
find "$site" -name direct_url.json -delete
find "$site" -depth -type d -name tests -exec rm -rf {} +

echo "setup: links and directories"
ln -sf fdfind /usr/bin/fd
ln -sf python3 /usr/bin/python
mkdir -p /files/input /files/output /mnt /work /skills
ln -sfn /files/input /mnt/user-data
chmod 0755 /files /files/input /files/output /work /skills
chmod 0700 /root
chmod 1777 /tmp /var/tmp
: >/etc/resolv.conf
: >/etc/machine-id
echo belljar >/etc/hostname
printf '127.0.0.1\tlocalhost belljar\n::1\tlocalhost belljar\n' >/etc/hosts
printf 'LANG=C.UTF-8\n' >/etc/default/locale
# One file instead of thirteen that every program opens and maps when it starts: a sixth of a shell's start.
localedef --add-to-archive /usr/lib/locale/C.utf8

echo "setup: matplotlib defaults"
"$python" - <<'PYTHON'
import pathlib
import matplotlib

# Edited where the defaults stand, so that it holds whatever HOME is, and `rcdefaults()` keeps it. Each family after the
# first is a fallback for the glyphs that those before it lack; each has a regular and a bold, or matplotlib warns.
families = [
    "sans-serif", "Noto Sans Arabic", "Noto Sans CJK SC", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai", "Noto Sans Symbols",
]
wanted = {"font.family": ", ".join(families), "backend": "agg"}
path = pathlib.Path(matplotlib.get_data_path()) / "matplotlibrc"
lines = path.read_text().splitlines()
for key, value in wanted.items():
    at = [i for i, line in enumerate(lines) if line.lstrip("#").split(":")[0].strip() == key]
    if len(at) != 1:
        raise SystemExit(f"matplotlibrc has {len(at)} lines for {key}")
    lines[at[0]] = f"{key}: {value}"
path.write_text("\n".join(lines) + "\n")
PYTHON

echo "setup: leftovers"
rm -rf /etc/apt /var/cache/apt /var/lib/apt /var/cache/ldconfig /var/cache/debconf /var/cache/fontconfig \
    /usr/share/man /root/.cache /root/.config
find /var/log -type f -delete
# Java's copy of the certificates notes when it was made; without a network nobody asks for it.
rm -f /etc/ssl/certs/java/cacerts
find /etc -name '*-' -type f -delete
mkdir -p /usr/share/man/man1 /var/cache/fontconfig

echo "setup: byte code and caches"
# Both remember times: set every time first, to the one that the packed image will show.
all_times() {
    find / -xdev \( -path /.build -o -path /dev -o -path /proc \) -prune -o -exec touch -h -d "@$IMAGE_EPOCH_S" {} +
}
all_times
find /usr -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
# Some files are templates or for other versions and do not compile: as on any system, not an error.
"$python" -m compileall -q -f --invalidation-mode timestamp -j 0 /usr/lib/python3.13 /usr/lib/python3/dist-packages \
    "$site" || true
SOURCE_DATE_EPOCH=$IMAGE_EPOCH_S fc-cache --system-only
"$python" - <<'PYTHON'
import json
import pathlib
import matplotlib.font_manager  # its import writes the font list

(path,) = pathlib.Path("/root/.cache/matplotlib").glob("fontlist-*.json")
fonts = json.loads(path.read_text())
for key in ("afmlist", "ttflist"):
    fonts[key].sort(key=lambda entry: json.dumps(entry, sort_keys=True))
path.write_text(json.dumps(fonts, indent=2))
PYTHON
all_times
echo "setup: done"
