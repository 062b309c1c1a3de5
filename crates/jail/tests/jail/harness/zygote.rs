//! The test program as a zygote, in an image with the libraries it needs.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_jail::{
    Attachment, Identity, JailPlan, Jailed, LaunchError, Realm, SealPlan, ZygoteFile, ZygotePlan, launch_zygote,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::words::{Answer, Ask, Birth};
use super::{BASE, Inside, Line, empty_rootfs, guest, pair, program, realm, spec};

/// An image in which the test program can run.
pub fn image() -> tempfile::TempDir {
    let place = empty_rootfs();
    for folder in ["usr/lib", "usr/lib64"] {
        fs::create_dir_all(place.path().join(folder)).expect("mkdir");
    }
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(target, place.path().join(link)).expect("symlink");
    }
    let printed = Command::new("ldd").arg(guest()).output().expect("ldd").stdout;
    let text = String::from_utf8(printed).expect("ASCII");
    for library in text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let inside = place.path().join(library.strip_prefix("/").expect("absolute"));
        fs::create_dir_all(inside.parent().expect("has one")).expect("mkdir");
        if !inside.exists() {
            fs::copy(library, &inside).expect("copy");
        }
    }
    if let Identity::Mapped { base } = Identity::strongest(BASE) {
        own(place.path(), base);
    }
    place
}

fn own(place: &Path, base: u32) {
    lchown(place, Some(base), Some(base)).expect("chown");
    if place.is_dir() && !place.is_symlink() {
        for entry in fs::read_dir(place).expect("list") {
            own(&entry.expect("entry").path(), base);
        }
    }
}

pub fn plan(image: PathBuf, arguments: &[&str]) -> ZygotePlan {
    ZygotePlan {
        rootfs: image,
        argv: [&["/run/belljar/zygote"], arguments].concat().iter().map(ToString::to_string).collect(),
        env: vec![("HOME".to_owned(), "/root".to_owned())],
        home: "/root".into(),
        scratch_bytes_max: 1 << 20,
        stderr: None,
    }
}

pub fn start(realm: &Realm, plan: &ZygotePlan, seal: &SealPlan) -> Result<(Jailed, Line), LaunchError> {
    let file = |name: &str, bytes: Vec<u8>| ZygoteFile { name: name.to_owned(), bytes: bytes.into() };
    let files =
        [file("zygote", fs::read(guest()).expect("test program")), file("seal", seal.to_bytes().expect("bytes"))];
    let (control, theirs) = pair();
    let jailed = launch_zygote(realm, program().as_fd(), plan, Attachment::Unlimited, theirs, &files)?;
    Ok((jailed, Line(control)))
}

/// A realm with a zygote and a container, which share an image.
pub struct Warm {
    _image: tempfile::TempDir,
    pub inside: Inside,
    pub zygote: Jailed,
    pub line: Line,
}

impl Warm {
    pub fn start() -> Self {
        Self::sealed_by(JailPlan::seal_plan)
    }

    pub fn sealed_by(seal: impl FnOnce(&JailPlan) -> SealPlan) -> Self {
        let image = image();
        let realm = realm().expect("realm");
        let plan = JailPlan::for_container(&spec(image.path().to_owned())).expect("plan");
        let inside = Inside::start_in(&realm, &plan, Attachment::Unlimited).expect("launch");
        let zygote_plan = self::plan(image.path().to_owned(), &["zygote"]);
        let (zygote, line) = start(&realm, &zygote_plan, &seal(&plan)).expect("zygote");
        Self { _image: image, inside, zygote, line }
    }

    /// The first word of a process born there, and the line to it.
    pub fn fork(&self, birth: Birth, fds: [OwnedFd; 7]) -> (Option<Answer>, Line) {
        let (ours, theirs) = pair();
        let mut all: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        all.push(theirs.as_fd());
        let packet = serde_json::to_vec(&Ask::Fork { birth }).expect("ask");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&all)));
        sendmsg(&self.line.0, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL).expect("send");
        assert_eq!(self.line.hear(), Some(Answer::Value(0)), "forked");
        drop(theirs);
        let line = Line(ours);
        (line.hear(), line)
    }

    /// A process of the container, joined.
    pub fn join(&self) -> Line {
        let namespaces = self.inside.jailed.namespaces().expect("namespaces").into_fds();
        let (answer, line) = self.fork(Birth::Inside, namespaces);
        assert_eq!(answer, Some(Answer::Value(0)));
        line
    }
}
