//! Builds what runs inside the wall and leaves it for `include_bytes!`: the guest program, statically, so that it runs in
//! any root filesystem, and the shared library that an image's Python loads to join a container.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One package, as it has to be built.
struct Part {
    package: &'static str,
    /// What cargo leaves in the target's folder.
    product: &'static str,
    flags: &'static str,
}

const PARTS: [Part; 2] = [
    Part {
        package: "belljar-guest",
        product: "belljar-guest",
        flags: "-C target-feature=+crt-static -C relocation-model=static",
    },
    // Whatever Python has loaded cannot be unloaded, and every child of the zygote pays for its pages.
    Part { package: "belljar-join", product: "libbelljar_join.so", flags: "-C link-arg=-Wl,-z,nodelete" },
];

fn main() {
    let workspace = workspace();
    for input in ["guest", "crates/jail", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET");
    for part in PARTS {
        // A folder each: with other flags, everything below is built anew.
        let folder = out.join(format!("{}-target", part.package));
        build(&workspace, &folder, &target, &part);
        let built = folder.join(&target).join("guest").join(part.product);
        std::fs::copy(&built, out.join(part.product)).expect("it was just built");
    }
}

fn workspace() -> PathBuf {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two folders below the workspace").to_path_buf()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}

/// A cargo of its own: other flags, another profile, another target folder, whose lock the outer one does not hold.
fn build(workspace: &Path, target_folder: &Path, target: &str, part: &Part) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", part.package, "--profile", "guest", "--target", target])
        .arg("--target-dir")
        .arg(target_folder)
        // A target given by name keeps these flags away from build scripts and procedural macros.
        .env("RUSTFLAGS", part.flags);
    // What the outer cargo set for this script, or a wrapper for the outer build, is not meant for the inner one.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo runs, it runs this script");
    assert!(status.success(), "{} does not build: {status}", part.package);
}
