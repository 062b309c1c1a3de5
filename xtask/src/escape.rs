//! The attack suite, `belljar attack`: in namespaces and in gVisor, as the user at hand, and where that is root as an
//! ordinary user too. In gVisor without the cases that are slow there, which the runs in namespaces have.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::counts::{Counts, Skip};

/// `nobody`: what an ordinary user of a host may do, and nothing that is anyone's.
const ORDINARY: u32 = 65534;
/// Where that user's copy of the image and its tree are kept: everybody may enter it, and it outlives a run.
const ORDINARY_PLACE: &str = "/var/tmp/belljar-escape";
/// Exit status of a machine that cannot run containers.
const CANNOT: i32 = 3;
/// Where gVisor's program is in a directory of caches.
const RUNSC: &str = "tools/bin/runsc";
/// Cgroups are not an ordinary user's unless somebody delegates them.
const ORDINARY_CONFIG: &str = "[sandbox]\nlimits = \"best_effort\"\n";

/// How each user attacks.
const MODES: [&[&str]; 2] = [&["--isolation", "namespaces"], &["--isolation", "gvisor", "--skip-slow"]];

/// What `belljar attack --json` prints, as far as it is counted here.
#[derive(Debug, Deserialize)]
struct Report {
    cases: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    section: String,
    name: String,
    verdict: String,
    how: String,
    wrong: Vec<String>,
    dead: Vec<Dead>,
}

#[derive(Debug, Deserialize)]
struct Dead {
    canary: String,
    what: String,
}

impl Row {
    /// Why it has not held, in a line.
    fn told(&self) -> String {
        let Self { section, name, verdict, how, .. } = self;
        let dead = self.dead.iter().map(|dead| format!("canary {}: {}", dead.canary, dead.what));
        let why: Vec<String> = [how.clone()].into_iter().chain(self.wrong.iter().cloned()).chain(dead).collect();
        format!("{section} {name}: {verdict}: {}", why.join(" -> ")).replace('\n', " ")
    }
}

/// Runs the suite as whoever may, and counts.
pub fn run(belljar: &Path) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut reports = Vec::new();
    let is_root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
    let ordinary = match is_root.then(|| Ordinary::set_up(belljar)).transpose() {
        Ok(ordinary) => ordinary,
        Err(why) => {
            counts.skips.push(Skip::Missing(format!("attacks as an ordinary user: {why}")));
            None
        }
    };
    let here = [("the user at hand", None)];
    for (who, user) in here.into_iter().chain(ordinary.iter().map(|user| ("an ordinary user", Some(user)))) {
        for mode in MODES {
            let who = format!("{who}, {}", mode.join(" "));
            println!("==> escape, as {who}");
            let mut command = user.map_or_else(|| Command::new(belljar), Ordinary::command);
            command.args(["attack", "--json"]).args(mode);
            if let Some(user) = user {
                command.arg("--config").arg(user.config());
            }
            collect(&who, attack(&mut command)?, &mut reports, &mut counts);
        }
    }
    counts.add(count(&reports));
    Ok(counts)
}

/// A machine that cannot is a skip; one that could and did not is an error.
fn collect(who: &str, ended: (Option<i32>, Option<Report>), reports: &mut Vec<Report>, counts: &mut Counts) {
    match ended {
        (Some(0 | 1), Some(report)) => {
            // The exit status is a check of its own: it must say what the rows say.
            let failed = report.cases.iter().any(|row| failed(&row.verdict));
            counts.add(match failed == (ended.0 == Some(1)) {
                true => Counts::one(true),
                false => Counts::failure(format!(
                    "FAILED escape: the exit status as {who} does not say what the report says"
                )),
            });
            reports.push(report);
        }
        (Some(CANNOT), _) => counts.skips.push(Skip::Missing(format!("attacks as {who}: containers cannot be run"))),
        (code, _) => {
            counts.add(Counts::failure(format!("FAILED escape: as {who} it ended with {code:?} and without a report")));
        }
    }
}

/// Its table, on standard error, is shown as it comes.
fn attack(command: &mut Command) -> Result<(Option<i32>, Option<Report>), String> {
    let ended = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let ended = ended.map_err(|error| format!("cannot start {command:?}: {error}"))?;
    Ok((ended.status.code(), serde_json::from_slice(&ended.stdout).ok()))
}

fn failed(verdict: &str) -> bool {
    !matches!(verdict, "held" | "skipped")
}

/// A case that one of the runs could not run was skipped only if none of the others ran it.
fn count(reports: &[Report]) -> Counts {
    let mut counts = Counts::default();
    let mut skipped: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let rows = || reports.iter().flat_map(|report| &report.cases);
    for row in rows() {
        match row.verdict.as_str() {
            "held" => counts.passed += 1,
            "skipped" => drop(skipped.insert((&row.section, &row.name), &row.how)),
            _ => {
                counts.failed += 1;
                counts.failures.push(row.told());
            }
        }
    }
    for row in rows().filter(|row| row.verdict != "skipped") {
        skipped.remove(&(row.section.as_str(), row.name.as_str()));
    }
    let reason = |((section, name), how): ((&str, &str), &str)| {
        let why = format!("{section} {name}: {how}");
        // Another processor's case is nothing that a machine could be given.
        if how.ends_with(" only") { Skip::Kernel(why) } else { Skip::Missing(why) }
    };
    counts.skips = skipped.into_iter().map(reason).collect();
    counts
}

/// A binary, a configuration, an image and gVisor's program that belong to an ordinary user.
struct Ordinary {
    place: PathBuf,
}

impl Ordinary {
    fn set_up(belljar: &Path) -> Result<Self, String> {
        let user = Self { place: PathBuf::from(ORDINARY_PLACE) };
        owned_directory(&user.place)?;
        if fs::metadata(&user.place).map_err(told(&user.place))?.uid() != ORDINARY {
            return Err(format!("{ORDINARY_PLACE} is not the ordinary user's"));
        }
        fs::write(user.config(), ORDINARY_CONFIG).map_err(told(&user.config()))?;
        own(&user.config())?;
        own_copy(belljar, &user.program())?;
        let (from, to) = (cache_of_root()?, user.cache());
        share_image(&from, &to)?;
        // Elsewhere it is on everybody's path.
        let runsc = from.join(RUNSC);
        if runsc.exists() {
            for folder in [to.join("tools"), to.join("tools/bin")] {
                owned_directory(&folder)?;
            }
            own_copy(&runsc, &to.join(RUNSC))?;
        }
        Ok(user)
    }

    fn program(&self) -> PathBuf {
        self.place.join("belljar")
    }

    fn config(&self) -> PathBuf {
        self.place.join("belljar.toml")
    }

    fn cache(&self) -> PathBuf {
        self.place.join("cache")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command
            .current_dir(&self.place)
            .env("BELLJAR_CACHE_DIR", self.cache())
            .env("HOME", &self.place)
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_DATA_HOME")
            .uid(ORDINARY)
            .gid(ORDINARY);
        command
    }
}

/// As the server finds it (its `config/environment.rs`).
fn cache_of_root() -> Result<PathBuf, String> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("BELLJAR_CACHE_DIR")
        .or_else(|| of("XDG_CACHE_HOME").map(|base| base.join("belljar")))
        .or_else(|| of("HOME").map(|base| base.join(".cache/belljar")))
        .ok_or_else(|| "neither BELLJAR_CACHE_DIR nor HOME is set".to_owned())
}

/// Copies the image that the name `default` stands for, unless it is there; other images go.
fn share_image(from: &Path, to: &Path) -> Result<(), String> {
    let named = from.join("names/default");
    let name = fs::read_to_string(&named).map_err(told(&named))?;
    let there = to.join("names/default");
    if fs::read_to_string(&there).is_ok_and(|known| known == name) {
        return Ok(());
    }
    if to.exists() {
        fs::remove_dir_all(to).map_err(told(to))?;
    }
    owned_directory(to)?;
    let digest = name.trim().trim_start_matches("sha256:");
    for folder in ["images", "names"] {
        owned_directory(&to.join(folder))?;
        for entry in fs::read_dir(from.join(folder)).map_err(told(from))?.flatten() {
            let file = entry.file_name();
            let text = file.to_string_lossy();
            // The stamp is of a file that was checked, which the copy is not.
            if (text.contains(digest) || folder == "names" && text == "default") && !text.ends_with(".stamp") {
                let copy = to.join(folder).join(&file);
                own_copy(&entry.path(), &copy)?;
            }
        }
    }
    Ok(())
}

fn own(path: &Path) -> Result<(), String> {
    chown(path, Some(ORDINARY), Some(ORDINARY)).map_err(told(path))
}

/// A program that is running cannot be written over, but replaced.
fn own_copy(from: &Path, to: &Path) -> Result<(), String> {
    if to.exists() {
        fs::remove_file(to).map_err(told(to))?;
    }
    fs::copy(from, to).map_err(told(to))?;
    own(to)
}

fn owned_directory(path: &Path) -> Result<(), String> {
    if !path.exists() {
        fs::create_dir(path).map_err(told(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(told(path))?;
        own(path)?;
    }
    Ok(())
}

fn told(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: &[(&str, &str, &str)]) -> Report {
        let row = |&(name, verdict, how): &(&str, &str, &str)| Row {
            section: "A".to_owned(),
            name: name.to_owned(),
            verdict: verdict.to_owned(),
            how: how.to_owned(),
            wrong: vec!["step 1".to_owned()],
            dead: vec![Dead { canary: "load".to_owned(), what: "300,\nit was 1".to_owned() }],
        };
        Report { cases: rows.iter().map(row).collect() }
    }

    #[test]
    fn what_one_run_skips_another_may_run() {
        let root =
            report(&[("a", "held", ""), ("b", "skipped", "needs an ordinary user"), ("c", "skipped", "for m68k only")]);
        let ordinary = report(&[("a", "skipped", "no cgroups"), ("b", "held", ""), ("c", "skipped", "for m68k only")]);
        let counts = count(&[root, ordinary]);
        assert_eq!((counts.passed, counts.failed), (2, 0));
        assert_eq!(counts.skips, [Skip::Kernel("A c: for m68k only".into())]);
    }

    #[test]
    fn whatever_is_not_held_has_failed() {
        for verdict in ["escaped", "canary_dead", "broken", "new"] {
            let counts = count(&[report(&[("a", verdict, "again")])]);
            assert_eq!(counts.failed, 1, "{verdict}");
            let told = format!("A a: {verdict}: again -> step 1 -> canary load: 300, it was 1");
            assert_eq!(counts.failures, [told]);
        }
        let alone = count(&[report(&[("a", "skipped", "no cgroups")])]);
        assert_eq!(alone.skips, [Skip::Missing("A a: no cgroups".into())]);
    }

    #[test]
    fn an_exit_status_that_contradicts_the_report_has_failed() {
        let mut counts = Counts::default();
        let mut reports = Vec::new();
        collect("x", (Some(0), Some(report(&[("a", "escaped", "")]))), &mut reports, &mut counts);
        assert_eq!((counts.passed, counts.failed), (0, 1));
        collect("x", (Some(101), None), &mut reports, &mut counts);
        assert_eq!((counts.passed, counts.failed, counts.failures.len()), (0, 2, 2));
        collect("x", (Some(CANNOT), None), &mut reports, &mut counts);
        assert_eq!(counts.skips.len(), 1);
    }
}
