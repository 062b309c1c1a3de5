//! The settings: a script inside the new root, offline, in namespaces that end with it.

use rustix::process::geteuid;

use super::{Build, put};
use crate::cache;
use crate::error::{Doing, ImageError};
use crate::event::Phase;
use crate::pack::BUILD_EPOCH_S;
use crate::program::{Grows, Program};
use crate::recipe;

/// Installs the wheels in the root, and makes it what containers expect.
pub(super) async fn install(build: &Build<'_>) -> Result<(), ImageError> {
    let (root, inside) = (build.root(), build.work.join("inside"));
    crate::unpack::remove_tree(&inside)?;
    cache::make_dir(&inside)?;
    let enter = build.work.join("enter.sh");
    put(&enter, recipe::ENTER)?;
    put(&inside.join("setup.sh"), recipe::SETUP)?;
    put(&inside.join("python.txt"), recipe::PYTHON_LOCK)?;
    link_wheels(build, &inside.join("wheels"))?;

    let mut meter = build.monitor.start(Phase::Install, None);
    let mut program = Program::clean("unshare").env("IMAGE_EPOCH_S", BUILD_EPOCH_S.to_string());
    if !geteuid().is_root() {
        program = program.args(["--user", "--map-root-user"]);
    }
    program
        .args(["--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--", "/bin/sh"])
        .arg(&enter)
        .arg(&root)
        .arg(&inside)
        .grows(Grows::Dirs(vec![root.join("usr/local"), root.join("usr/lib")]))
        .run(&build.log, &mut meter, build.monitor)
        .await?;
    let place = root.join(".build");
    std::fs::remove_dir(&place).doing("removing", &place)?;
    meter.finish();
    Ok(())
}

/// The script's directory is seen whole inside the root: the wheels must be in it, but not only there.
fn link_wheels(build: &Build<'_>, to: &std::path::Path) -> Result<(), ImageError> {
    cache::make_dir(to)?;
    let from = build.wheels();
    for entry in std::fs::read_dir(&from).doing("reading", &from)? {
        let entry = entry.doing("reading", &from)?;
        std::fs::hard_link(entry.path(), to.join(entry.file_name())).doing("linking", &entry.path())?;
    }
    Ok(())
}
