//! The root filesystem that containers start from: build, import, digest, mount.
//!
//! An image is one erofs file, named by the SHA-256 of its bytes and never changed. Everything in it belongs to
//! [`OWNER_BASE`], so that a container whose user namespace maps its root to that user owns its whole tree. Images lie
//! in a cache directory outside the source tree; its layout is documented in `cache.rs`. Start at [`ImageStore`].

mod build;
mod cache;
mod digest;
mod error;
mod event;
mod import;
mod mirror;
mod mount;
mod name;
mod pack;
mod program;
mod recipe;
mod record;
mod stamp;
mod store;
mod unpack;

pub use build::{BuildOptions, Made, Reuse};
pub use digest::{Digest, NotADigest};
pub use error::{ArchiveProblem, FailureClass, ImageError, Requirement};
pub use event::{ImageEvent, Monitor, Phase};
pub use import::ImportOptions;
pub use mount::Mounted;
pub use name::ImageName;
pub use record::{ImageRecord, Origin};
pub use stamp::Checked;
pub use store::{ImageListing, ImageRef, ImageStore};
pub use tokio_util::sync::CancellationToken;
pub use unpack::UnpackLimits;

/// The user and group id that own everything in an image as the host sees it. It lies in a range that no allocator
/// known to us hands out: above what `useradd` and systemd-nspawn take (to `0x6FFF_FFFF`), below systemd's foreign
/// ids (from `0x7FFE_0000`) and below 2^31.
pub const OWNER_BASE: u32 = 0x7000_0000;
