//! Cases about starting: `belljar exec`, run by a process of its own that is hindered, must say which step failed and
//! run nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::attack::case::{Case, Start};
use crate::attack::hinder::Hindrance;
use crate::attack::host;
use crate::attack::judge::{self, shortened};
use crate::attack::mode::Mode;
use crate::config::Config;
use crate::driver::calls::text;

/// A start that takes longer than this hangs.
const START_MAX: Duration = Duration::from_secs(60);
/// The code that must not run.
const CODE: &str = "echo the code ran";
/// Characters of what was said that the table has room for.
const SUMMARY_CHARS: usize = 160;

/// What came of a start, and what of it should not have been.
pub struct Started {
    /// In few words.
    pub summary: String,
    /// What is not as it must be.
    pub wrong: Vec<String>,
}

/// Runs a start with the sandbox settings of this suite.
///
/// # Errors
/// A program that cannot be started, in words.
pub async fn run(start: &Start, mode: Mode, settings: &[(&str, String)], config: &Config) -> Result<Started, String> {
    let expect = start.expected(mode);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = directory.path().join("belljar.toml");
    std::fs::write(&file, configuration(start, settings)).map_err(|error| error.to_string())?;
    let mut command = command(start, &file, directory.path())?;
    command.env("BELLJAR_CACHE_DIR", &config.cache_dir);
    let child = command.spawn().map_err(|error| error.to_string())?;
    let pid = child.id().unwrap_or_default();
    let ended = tokio::time::timeout(START_MAX, child.wait_with_output()).await;
    let ended = ended.map_err(|_| "it hangs".to_owned())?.map_err(|error| error.to_string())?;
    let (stdout, stderr) = (text(&ended.stdout), text(&ended.stderr));
    let mut wrong = Vec::new();
    if ended.status.code() != Some(expect.exit) {
        wrong.push(format!("it ended with {}, not with exit status {}", ended.status, expect.exit));
    }
    if stdout != expect.stdout {
        wrong.push(format!("stdout is {:?}, not {:?}", shortened(&stdout, SUMMARY_CHARS), expect.stdout));
    }
    let told = judge::unlike(&stderr, &expect.stderr, &str::to_owned);
    wrong.extend(told.map(|how| format!("stderr {how}")));
    let left = host::control_groups_of(pid);
    if !left.is_empty() {
        wrong.push(format!("control groups are left: {left}"));
    }
    let said = stderr.lines().chain(stdout.lines()).next().unwrap_or_default();
    let summary = shortened(said.trim_start_matches("belljar: "), SUMMARY_CHARS);
    Ok(Started { summary, wrong })
}

/// Why this case cannot be run here.
pub fn lacking(case: &Case) -> Option<String> {
    case.start.as_ref()?.before.as_ref()?;
    let missing = ["unshare", "mount", "umount"].into_iter().find(|program| {
        !["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|place| Path::new(place).join(program).exists())
    });
    missing.map(|program| format!("{program} is not installed (Debian package util-linux or mount)"))
}

/// The file of a start: the suite's settings, changed as the case has it.
fn configuration(start: &Start, settings: &[(&str, String)]) -> String {
    // Nobody listens at port 0, so no running server is asked.
    let mut lines = format!("{}\nlisten = \"127.0.0.1:0\"\n[sandbox]\n", start.config_head);
    for (key, value) in settings.iter().filter(|(key, _)| !start.config.contains_key(*key)) {
        lines += &format!("{key} = {value}\n");
    }
    for (key, value) in &start.config {
        lines += &format!("{key} = {value}\n");
    }
    lines
}

fn command(start: &Start, config: &Path, data_dir: &Path) -> Result<Command, String> {
    let hindrance = Hindrance { refuse: start.refuse.clone(), open_files_max: start.open_files_max };
    let hindrance = serde_json::to_string(&hindrance).map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = match &start.before {
        Some(before) => {
            let mut command = Command::new("unshare");
            let script = format!("{before} && exec \"$@\"");
            command.args(["--mount", "--propagation", "private", "sh", "-c", script.as_str(), "sh"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["attack", "--hinder", hindrance.as_str(), "--", "exec", "--language", "bash"]);
    command.arg("--config").arg(config).arg("--data-dir").arg(data_dir.join("data")).arg(CODE);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}
