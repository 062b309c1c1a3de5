//! Builds the guest program, statically, so that it runs in any root filesystem, and leaves it for `include_bytes!`.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let workspace = workspace();
    for input in ["guest", "crates/jail", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET");
    build(&workspace, &out.join("guest-target"), &target);
    let built = out.join("guest-target").join(&target).join("guest/belljar-guest");
    std::fs::copy(&built, out.join("belljar-guest")).expect("the guest program was just built");
}

fn workspace() -> PathBuf {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two folders below the workspace").to_path_buf()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}

/// A cargo of its own: other flags, another profile, another target folder, whose lock the outer one does not hold.
fn build(workspace: &Path, target_folder: &Path, target: &str) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", "belljar-guest", "--profile", "guest", "--target", target])
        .arg("--target-dir")
        .arg(target_folder)
        // A target given by name keeps these flags away from build scripts and procedural macros.
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    // What the outer cargo set for this script, or a wrapper for the outer build, is not meant for the inner one.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo runs, it runs this script");
    assert!(status.success(), "the guest program does not build: {status}");
}
