//! Set-ups that cannot succeed: which step says so, and that nothing is left.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use belljar_jail::{Attachment, ContainerSpec, Identity, JailPlan, LaunchError, Realm, SetupError, Step, launch};
use serde_json::{Value, json};

use crate::harness::words::{Answer, Ask};
use crate::harness::{self, BASE, Inside, Way, empty_rootfs, spec, start_empty};
use crate::skip;

/// Children that this thread has started, dead or alive.
fn children() -> usize {
    let text = fs::read_to_string("/proc/thread-self/children").expect("children");
    text.split_whitespace().count()
}

/// A plan with one field of its serialised form replaced: what a broken or hostile host could hand over.
fn altered(spec: &ContainerSpec, field: &str, value: Value) -> JailPlan {
    let plan = JailPlan::for_container(spec).expect("plan");
    let mut fields = serde_json::to_value(plan).expect("plan as value");
    fields[field] = value;
    serde_json::from_value(fields).expect("altered plan")
}

fn failure(plan: &JailPlan, case: &str) -> SetupError {
    let [borne, launched] = Way::BOTH.map(|way| {
        match Inside::start_by(way, &harness::realm().expect("realm"), plan, Attachment::Unlimited) {
            Err(LaunchError::Setup(error)) => error,
            other => panic!("{case}, {way:?}: expected a failed step, got {other:?}"),
        }
    });
    assert_eq!(borne, launched, "{case}");
    borne
}

#[test]
fn a_step_that_fails_is_named_and_leaves_nothing() {
    let rootfs = empty_rootfs();
    let spec = spec(rootfs.path().to_owned());
    let long = "x".repeat(256);
    let many: Vec<u64> = vec![0x0006_0000_7fff_0000; 5000];
    let cases = [
        ("rootfs", json!(rootfs.path().join("missing")), Step::WritableLayer, libc::ENOENT),
        ("devices", json!(["no-such-device"]), Step::HoldDevices, libc::ENOENT),
        ("devices", json!(["shm"]), Step::HoldDevices, libc::ENODEV),
        ("proc_masks", json!(["version/below"]), Step::MaskProc, libc::ENOTDIR),
        ("directories", json!([{ "path": format!("/{long}"), "mode": 0o755 }]), Step::Directories, libc::ENAMETOOLONG),
        ("directories", json!([{ "path": "/work/../above", "mode": 0o755 }]), Step::Directories, libc::EINVAL),
        ("symlinks", json!([{ "path": "/work", "target": "/elsewhere" }]), Step::Symlinks, libc::EEXIST),
        ("symlinks", json!([{ "path": "/", "target": "/elsewhere" }]), Step::Symlinks, libc::EINVAL),
        ("hostname", json!("x".repeat(65)), Step::Hostname, libc::EINVAL),
        ("working_directory", json!("/nowhere"), Step::WorkingDirectory, libc::ENOENT),
        (
            "landlock",
            json!({ "need": "required", "grants": [{ "path": "/nowhere", "rights": ["read_file"] }] }),
            Step::Landlock,
            libc::ENOENT,
        ),
        ("seccomp_first", json!([]), Step::FirstSeccomp, libc::EINVAL),
        ("seccomp_last", json!([]), Step::LastSeccomp, libc::EINVAL),
        ("seccomp_last", json!([0xffff_0000_0000_0000_u64]), Step::LastSeccomp, libc::EINVAL),
        ("seccomp_last", json!(many), Step::LastSeccomp, libc::EINVAL),
    ];
    for (field, value, step, errno) in cases {
        let plan = altered(&spec, field, value.clone());
        let error = failure(&plan, field);
        assert_eq!(error, SetupError { step, errno }, "{field}: {value}");
        assert_eq!(children(), 0, "{field}: {value}");
    }
    assert_eq!(fs::read_dir(rootfs.path()).expect("rootfs").count(), 0);
}

#[test]
fn a_link_in_the_image_is_not_followed() {
    let outside = tempfile::tempdir().expect("outside");
    for name in ["proc", "dev"] {
        let rootfs = empty_rootfs();
        std::os::unix::fs::symlink(outside.path(), rootfs.path().join(name)).expect("link");
        let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
        assert_eq!(failure(&plan, name).errno, libc::ELOOP, "{name}");
    }
    assert_eq!(fs::read_dir(outside.path()).expect("outside").count(), 0);
}

/// The container's own directories come before whatever the image has in their places.
#[test]
fn a_link_in_the_image_is_covered() {
    let outside = tempfile::tempdir().expect("outside");
    let rootfs = empty_rootfs();
    fs::create_dir(rootfs.path().join("mnt")).expect("directory");
    for name in ["files", "tmp", "mnt/user-data"] {
        std::os::unix::fs::symlink(outside.path(), rootfs.path().join(name)).expect("link");
    }
    let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
    for way in Way::BOTH {
        let inside = Inside::start_by(way, &harness::realm().expect("realm"), &plan, Attachment::Unlimited);
        let inside = inside.expect("container");
        let link = |path: &str| inside.ask(&Ask::Link { path: path.to_owned() });
        assert_eq!(link("/mnt/user-data"), Answer::Text("/files/input".to_owned()));
        assert_eq!(link("/tmp"), Answer::Failed(libc::EINVAL), "no link");
        assert_eq!(inside.list("/files"), Answer::Names(vec!["input".to_owned(), "output".to_owned()]));
        assert!(inside.end().success());
    }
    assert_eq!(fs::read_dir(outside.path()).expect("outside").count(), 0);
}

#[test]
fn the_count_of_children_sees_a_container() {
    let (_rootfs, inside) = start_empty();
    assert_eq!(children(), 1);
    assert!(inside.end().success());
    assert_eq!(children(), 0);
}

fn realm(identity: Identity) -> Result<Realm, LaunchError> {
    Realm::create(crate::harness::program().as_fd(), identity)
}

#[test]
fn an_id_map_that_the_kernel_refuses_is_an_error_of_its_own() {
    // One may map oneself, or as root a range; never somebody else as an ordinary user, nor an id that does not exist.
    match realm(Identity::Caller { uid: u32::MAX, gid: 0 }) {
        Err(LaunchError::IdMap { file, .. }) => assert_eq!(file, "uid_map"),
        other => panic!("expected a refused map, got {other:?}"),
    }
    assert_eq!(children(), 0);
}

#[test]
fn the_machines_root_is_nobodys_root_inside() {
    let Identity::Mapped { .. } = Identity::strongest(BASE) else {
        skip!("only the machine's root can try");
    };
    let error = realm(Identity::Caller { uid: 0, gid: 0 }).expect_err("refused");
    assert!(matches!(error, LaunchError::HostRoot), "{error:?}");
    assert_eq!(children(), 0);
}

#[test]
fn a_plan_of_another_realm_is_refused() {
    let rootfs = empty_rootfs();
    let mut spec = spec(rootfs.path().to_owned());
    spec.identity = Identity::Caller { uid: 1, gid: 1 };
    let plan = JailPlan::for_container(&spec).expect("plan");
    let error = Inside::start(&plan, Attachment::Unlimited).expect_err("refused");
    assert!(matches!(error, LaunchError::OtherRealm), "{error:?}");
    assert_eq!(children(), 0);
}

fn start(program: &OwnedFd) -> LaunchError {
    let rootfs = empty_rootfs();
    let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
    let realm = Realm::create(crate::harness::program().as_fd(), Identity::strongest(BASE)).expect("realm");
    launch(&realm, program.as_fd(), &plan, Attachment::Unlimited, theirs.into()).expect_err("no container")
}

#[test]
fn a_program_that_is_none_and_one_that_says_nothing() {
    let text = OwnedFd::from(fs::File::open("/dev/null").expect("open"));
    match start(&text) {
        LaunchError::Spawn(error) => assert_eq!(error.raw_os_error(), Some(libc::EACCES)),
        other => panic!("expected a failed start, got {other:?}"),
    }
    let silent = OwnedFd::from(fs::File::open("/bin/true").expect("open"));
    match start(&silent) {
        LaunchError::Vanished => {}
        other => panic!("expected silence, got {other:?}"),
    }
    assert_eq!(children(), 0);
}
