//! The image with Python, as `belljar image build` leaves it in the cache.

use std::path::PathBuf;

use belljar_image::{ImageStore, Monitor, Mounted};
use belljar_sandbox::{Rootfs, Sandbox, SandboxConfig};

/// A sandbox of the cached image, and the image, to be held for as long. The reason says how to get one.
pub async fn open(config: SandboxConfig) -> Result<(Sandbox, Mounted), String> {
    let (image, rootfs) = rootfs().await?;
    let sandbox = Sandbox::open(config, rootfs).await.map_err(|error| error.to_string())?;
    super::warm::ready(&sandbox).await?;
    Ok((sandbox, image))
}

/// The cached image, to be held for as long as something is made from it.
pub async fn rootfs() -> Result<(Mounted, Rootfs), String> {
    let image = mounted().await.map_err(|why| format!("no image with Python ({why}); run `belljar image build`"))?;
    let (path, digest) = (image.path().to_path_buf(), image.digest().to_string());
    let rootfs = Rootfs { path, owner_base: image.owner_base(), digest };
    Ok((image, rootfs))
}

async fn mounted() -> Result<Mounted, String> {
    let store = ImageStore::open(cache_dir()?).map_err(|error| error.to_string())?;
    let image = store.resolve("default").map_err(|error| error.to_string())?;
    store.mount(&image, &Monitor::silent()).await.map_err(|error| error.to_string())
}

/// Where the server's own default is.
fn cache_dir() -> Result<PathBuf, String> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(base.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("belljar"))
}
