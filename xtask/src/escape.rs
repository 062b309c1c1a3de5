//! The attack suite, `belljar attack`: in namespaces as the user at hand, and where that is root as an ordinary user too;
//! then in gVisor as the user at hand, without the cases that are slow there, which the first runs had.

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
/// Cgroups are not an ordinary user's unless somebody delegates them.
const ORDINARY_CONFIG: &str = "[sandbox]\nlimits = \"best_effort\"\n";

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
}

/// Runs the suite as whoever may, and counts.
pub fn run(belljar: &Path) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut reports = Vec::new();
    let mut here = Command::new(belljar);
    here.args(["attack", "--json", "--isolation", "namespaces"]);
    collect("the user at hand", attack(&mut here)?, &mut reports, &mut counts);
    if fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0) {
        match ordinary(belljar) {
            Ok(mut command) => {
                println!("==> escape, as user {ORDINARY}");
                collect("an ordinary user", attack(&mut command)?, &mut reports, &mut counts);
            }
            Err(why) => counts.skips.push(Skip::Missing(format!("attacks as an ordinary user: {why}"))),
        }
    }
    println!("==> escape, in gVisor, without what is slow there");
    let mut in_gvisor = Command::new(belljar);
    in_gvisor.args(["attack", "--json", "--isolation", "gvisor", "--skip-slow"]);
    collect("the user at hand, in gVisor", attack(&mut in_gvisor)?, &mut reports, &mut counts);
    let told = count(&reports);
    counts.passed += told.passed;
    counts.failed += told.failed;
    counts.skips.extend(told.skips);
    Ok(counts)
}

/// A machine that cannot is a skip; one that could and did not is an error.
fn collect(who: &str, ended: (Option<i32>, Option<Report>), reports: &mut Vec<Report>, counts: &mut Counts) {
    match ended {
        (Some(0 | 1), Some(report)) => {
            // The exit status is a check of its own: it must say what the rows say.
            let failed = report.cases.iter().any(|row| failed(&row.verdict));
            let agrees = failed == (ended.0 == Some(1));
            if !agrees {
                println!("FAILED escape: the exit status as {who} does not say what the report says");
            }
            counts.passed += usize::from(agrees);
            counts.failed += usize::from(!agrees);
            reports.push(report);
        }
        (Some(CANNOT), _) => counts.skips.push(Skip::Missing(format!("attacks as {who}: containers cannot be run"))),
        (code, _) => {
            println!("FAILED escape: as {who} it ended with {code:?} and without a report");
            counts.failed += 1;
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
                counts.failures.push(format!("{} {}: {}: {}", row.section, row.name, row.verdict, row.how));
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

/// The suite with a binary, a configuration and an image that belong to an ordinary user.
fn ordinary(belljar: &Path) -> Result<Command, String> {
    let place = PathBuf::from(ORDINARY_PLACE);
    let cache = place.join("cache");
    owned_directory(&place)?;
    if fs::metadata(&place).map_err(told(&place))?.uid() != ORDINARY {
        return Err(format!("{ORDINARY_PLACE} is not the ordinary user's"));
    }
    let config = place.join("belljar.toml");
    let program = place.join("belljar");
    fs::write(&config, ORDINARY_CONFIG).map_err(told(&config))?;
    if program.exists() {
        fs::remove_file(&program).map_err(told(&program))?;
    }
    fs::copy(belljar, &program).map_err(told(&program))?;
    for path in [&config, &program] {
        chown(path, Some(ORDINARY), Some(ORDINARY)).map_err(told(path))?;
    }
    share_image(&cache_of_root()?, &cache)?;
    let mut command = Command::new(&program);
    command.args(["attack", "--json", "--isolation", "namespaces", "--config"]).arg(&config).current_dir(&place);
    command
        .env("BELLJAR_CACHE_DIR", &cache)
        .env("HOME", &place)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_DATA_HOME");
    command.uid(ORDINARY).gid(ORDINARY);
    Ok(command)
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
                fs::copy(entry.path(), &copy).map_err(told(&copy))?;
                chown(&copy, Some(ORDINARY), Some(ORDINARY)).map_err(told(&copy))?;
            }
        }
    }
    Ok(())
}

fn owned_directory(path: &Path) -> Result<(), String> {
    if !path.exists() {
        fs::create_dir(path).map_err(told(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(told(path))?;
        chown(path, Some(ORDINARY), Some(ORDINARY)).map_err(told(path))?;
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
            assert_eq!(count(&[report(&[("a", verdict, "")])]).failed, 1, "{verdict}");
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
        assert_eq!((counts.passed, counts.failed), (0, 2));
        collect("x", (Some(CANNOT), None), &mut reports, &mut counts);
        assert_eq!(counts.skips.len(), 1);
    }
}
