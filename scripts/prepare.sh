# What the scripts need of this machine: finds it, installs what is missing, or says exactly what to run.
# Sourced by scripts/demo and scripts/test, from the root of the repository.

say() { if [ -t 1 ]; then printf '\033[1m==> %s\033[0m\n' "$*"; else printf '==> %s\n' "$*"; fi; }
die() { printf '\nbelljar: %s\n' "$*" >&2; exit 1; }

# Downloads and builds that outlive one run. The server keeps its images in the same place.
export BELLJAR_CACHE_DIR="${BELLJAR_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/belljar}"

# Prints the Debian packages that are missing for: image (build the root filesystem), rust, python, node, git, postgres.
missing_packages() {
  local want
  for want in "$@"; do
    case "$want" in
      image)
        [ -n "$(command -v mmdebstrap)" ] || echo mmdebstrap
        [ -n "$(command -v mkfs.erofs)" ] || echo erofs-utils
        [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
        if [ "$(id -u)" != 0 ] && [ -z "$(command -v newuidmap)" ]; then echo uidmap; fi
        ;;
      rust)
        [ -n "$(command -v cc)" ] || echo gcc libc6-dev
        [ -n "$(command -v c++)" ] || echo g++
        [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
        if [ -z "$(command -v cargo)" ] && [ -z "$(command -v curl)" ]; then echo curl; fi
        ;;
      python)
        [ -n "$(command -v python3)" ] || echo python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        ;;
      node)
        [ -n "$(command -v node)" ] || echo nodejs
        [ -n "$(command -v npm)" ] || echo npm
        ;;
      git) [ -n "$(command -v git)" ] || echo git ;;
      # The server: Debian keeps its programs beside the PATH.
      postgres) ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || [ -n "$(command -v postgres)" ] || echo postgresql ;;
    esac
  done
}

# Runs as root what needs it; fails without asking when nobody is there to type a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif [ -n "$(command -v sudo)" ] && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo "$@"
  else
    return 1
  fi
}

need_packages() {
  local packages
  packages="$(missing_packages "$@" | tr '\n' ' ')"
  [ -n "${packages// /}" ] || return 0
  [ -n "$(command -v apt-get)" ] \
    || die "these are missing: $packages(names of Debian packages). Install them with this system's package manager and run this again."
  say "Installing $packages"
  # shellcheck disable=SC2086 # a list of words
  if ! { as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends $packages; }; then
    die "could not install them. Run this, then try again:

    sudo apt-get update && sudo apt-get install -y --no-install-recommends $packages"
  fi
}

need_linux() {
  [ "$(uname -s)" = Linux ] || die "containers are Linux namespaces, so this needs Linux; this is $(uname -s)."
  case "$(uname -m)" in
    x86_64 | aarch64) ;;
    *) die "the system call filter knows x86_64 and aarch64; this is $(uname -m)." ;;
  esac
}

# rustup reads rust-toolchain.toml and fetches the pinned compiler at the first build.
need_rust() {
  need_packages rust
  if [ -z "$(command -v cargo)" ] && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
  if [ -z "$(command -v cargo)" ]; then install_rust; fi
  export PATH
}

install_rust() {
  local place folder
  place="https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu"
  folder="$(mktemp -d)"
  say "Installing Rust with rustup, into $HOME/.cargo and $HOME/.rustup"
  curl --proto '=https' --tlsv1.2 --silent --show-error --fail --output "$folder/rustup-init" "$place/rustup-init" \
    && curl --proto '=https' --tlsv1.2 --silent --show-error --fail --output "$folder/sum" "$place/rustup-init.sha256" \
    && [ "$(cut -d' ' -f1 <"$folder/sum")" = "$(sha256sum "$folder/rustup-init" | cut -d' ' -f1)" ] \
    && chmod +x "$folder/rustup-init" \
    && "$folder/rustup-init" -y -q --profile minimal --no-modify-path \
    || die "rustup did not install. See https://rustup.rs, then run this again."
  rm -rf "$folder"
  PATH="$HOME/.cargo/bin:$PATH"
}

# Installs gVisor's runsc among the tools, from Debian trixie, whatever this system is: apt fetches and checks it in a
# directory of its own, so that nothing of the system changes. Returns 1, with the reason said, where it cannot be had.
need_runsc() {
  local tools place architecture mirror file
  tools="$BELLJAR_CACHE_DIR/tools/bin"
  if [ -n "$(command -v runsc)" ] || "$tools/runsc" --version >/dev/null 2>&1; then return 0; fi
  case "$(uname -m)" in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture= ;; esac
  if [ -z "$(command -v apt-get)" ] || [ -z "$(command -v dpkg-deb)" ] || [ -z "$architecture" ]; then
    say "runsc is not installed, and without apt it is not fetched: see https://gvisor.dev/docs/user_guide/install"
    return 1
  fi
  say "Installing runsc into $tools"
  place="$(mktemp -d)"
  mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 '/debian/$' || true)"
  mkdir -p "$place/lists/partial" "$place/cache/archives/partial" "$place/state" "$place/out" "$tools"
  : >"$place/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian/} trixie main" \
    >"$place/sources.list"
  cat >"$place/apt.conf" <<END
Dir::State "$place/state";
Dir::State::lists "$place/lists";
Dir::State::status "$place/status";
Dir::Cache "$place/cache";
Dir::Etc::sourcelist "$place/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "$architecture";
APT::Sandbox::User "";
Acquire::Languages "none";
END
  if (cd "$place/out" && APT_CONFIG="$place/apt.conf" apt-get update -qq \
      && APT_CONFIG="$place/apt.conf" apt-get download -qq runsc) \
    && file="$(echo "$place"/out/runsc_*.deb)" && dpkg-deb -x "$file" "$place/out" \
    && install -m 755 "$place/out/usr/bin/runsc" "$tools/runsc.new" && "$tools/runsc.new" --version >/dev/null; then
    mv "$tools/runsc.new" "$tools/runsc"
    rm -rf "$place"
  else
    rm -rf "$place" "$tools/runsc.new"
    say "runsc could not be installed"
    return 1
  fi
}

# Makes a Python virtual environment for a file of pinned, hashed requirements, once; prints its interpreter.
python_with() {
  PYTHONPATH=tests python3 -c 'import sys; from harness import toolchain; print(toolchain.python_with(sys.argv[1]))' "$1"
}
