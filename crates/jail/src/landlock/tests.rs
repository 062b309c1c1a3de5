//! The reviewed list of rights (`policy/landlock.json`) against what is applied.

use std::collections::BTreeSet;

use super::*;
use crate::identity::Identity;
use crate::plan::{ContainerSpec, JailPlan};
use crate::seccomp::table::Rights;

fn plan() -> LandlockPlan {
    let spec = ContainerSpec {
        rootfs: "/images/one".into(),
        identity: Identity::Mapped { base: 1_879_048_192 },
        hostname: "container".to_owned(),
        disk_bytes_max: 1,
        inodes_max: 1,
        shm_bytes_max: 1,
        directories: Vec::new(),
        symlinks: Vec::new(),
        working_directory: "/work".into(),
        landlock: LandlockNeed::Required,
    };
    JailPlan::for_container(&spec).expect("plan").landlock
}

fn names<T: std::fmt::Debug>(rights: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    rights.into_iter().map(|right| format!("{right:?}")).collect()
}

#[test]
fn the_reviewed_rights_are_the_applied_ones() {
    let reviewed = Rights::embedded();
    let plan = plan();
    assert_eq!(plan.grants.len(), 1, "one grant, on the container's root");
    let granted = names(plan.grants.iter().flat_map(|grant| grant.rights.iter().copied().map(access)));
    assert_eq!(reviewed.granted.iter().map(|entry| entry.right.clone()).collect::<BTreeSet<_>>(), granted);
    let mut refused = names(AccessFs::from_all(NEWEST).iter());
    refused.retain(|right| !granted.contains(right));
    refused.extend(names(AccessNet::from_all(NEWEST).iter()));
    assert_eq!(reviewed.refused.iter().map(|entry| entry.right.clone()).collect::<BTreeSet<_>>(), refused);
    let scopes = names(::landlock::Scope::from_all(NEWEST).iter());
    assert_eq!(reviewed.not_scoped.iter().map(|entry| entry.right.clone()).collect::<BTreeSet<_>>(), scopes);
    let entries = reviewed.granted.iter().chain(&reviewed.refused).chain(&reviewed.not_scoped);
    assert!(entries.into_iter().all(|entry| entry.reason.ends_with('.')));
}
