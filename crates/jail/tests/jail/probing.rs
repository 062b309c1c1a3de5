//! The probe against the machine the tests run on, which the other tests know to be able.

use belljar_jail::cgroup::CgroupTree;
use belljar_jail::probe::{LimitsNeed, Status, probe};

#[test]
fn the_probe_agrees_with_what_the_other_tests_do_here() {
    let findings = probe(LimitsNeed::BestEffort);
    for finding in &findings {
        println!("{finding:?}");
    }
    let refused: Vec<_> = findings.iter().filter(|finding| finding.status == Status::Refused).collect();
    assert_eq!(refused, Vec::<&belljar_jail::probe::Finding>::new());
    let names: Vec<_> = findings.iter().map(|finding| finding.name).collect();
    let limits = CgroupTree::detect().is_ok();
    let mut expected = vec![
        "kernel",
        "architecture",
        "privileges",
        "openat2",
        "realm",
        "namespaces",
        "devices",
        "overlay",
        "proc_mount",
        "root_file_system",
        "privileges_drop",
        "seccomp",
        "container",
        "join",
        "landlock",
        "cgroup_limits",
    ];
    expected.extend(limits.then_some("cgroup_cpu"));
    expected.extend(["erofs", "kvm"]);
    assert_eq!(names, expected);
    for finding in findings {
        assert_eq!(finding.status == Status::Ok, finding.advice.is_none(), "{}", finding.name);
    }
}

#[test]
fn missing_limits_are_refused_where_they_are_required() {
    let expected = if CgroupTree::detect().is_ok() { Status::Ok } else { Status::Refused };
    let found =
        probe(LimitsNeed::Required).into_iter().find(|finding| finding.name == "cgroup_limits").expect("cgroup_limits");
    assert_eq!(found.status, expected);
}
