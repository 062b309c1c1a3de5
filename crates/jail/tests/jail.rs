//! What a container is, seen from inside.

use belljar_jail::{Attachment, JailPlan};

mod harness;

use harness::words::Answer;
use harness::{Inside, empty_rootfs, spec};

#[test]
fn the_view_from_inside() {
    let rootfs = empty_rootfs();
    let plan = JailPlan::for_container(&spec(rootfs.path().to_owned())).expect("plan");
    let inside = Inside::start(&plan, Attachment::Unlimited).expect("launch");
    println!("{}", inside.text("/proc/self/mountinfo"));
    println!("{}", inside.text("/proc/self/status"));
    println!("{:?}", inside.list("/"));
    println!("{:?}", inside.list("/proc/self/fd"));
    println!("{:?}", inside.list("/dev"));
    assert_eq!(
        inside.list("/"),
        Answer::Names(
            ["dev", "files", "mnt", "proc", "root", "tmp", "work"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    assert!(inside.end().success());
}
