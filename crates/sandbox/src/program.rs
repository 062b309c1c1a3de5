//! What runs inside the wall: the guest program, as a file that nobody can change, and the library that joins.

use std::fs::File;
use std::io::{self, Seek, Write};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Built by this crate's build script.
static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/belljar-guest"));

/// Built by this crate's build script.
static JOIN_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libbelljar_join.so"));

/// The guest program in a sealed memfd: no container can overwrite it through `/proc/<pid>/exe`, and so no other
/// container can be reached that way (the lesson of CVE-2019-5736).
pub fn sealed() -> io::Result<File> {
    let mut file = File::from(memfd_create("belljar-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(GUEST)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

/// The REPL's driver, for a REPL that is started cold; its parts are one file when it runs, in this order.
static DRIVER: &str = concat!(
    include_str!("../../../guest/python/channel.py"),
    include_str!("../../../guest/python/streams.py"),
    include_str!("../../../guest/python/report.py"),
    include_str!("../../../guest/python/schema.py"),
    include_str!("../../../guest/python/tools.py"),
    include_str!("../../../guest/python/repl.py"),
);

/// What a zygote finds beside itself, by name; the plan of the jail is missing, it is the image's.
pub fn zygote_files() -> [(&'static str, &'static [u8]); 6] {
    [
        ("zygote.py", include_bytes!("../../../guest/python/zygote.py")),
        ("warm.py", include_bytes!("../../../guest/python/warm.py")),
        ("reseed.py", include_bytes!("../../../guest/python/reseed.py")),
        ("share.py", include_bytes!("../../../guest/python/share.py")),
        ("repl.py", DRIVER.as_bytes()),
        ("libbelljar_join.so", JOIN_LIBRARY),
    ]
}

/// The driver's source in a sealed memfd of its own: whoever gets it has a file offset of its own too.
pub fn driver() -> io::Result<File> {
    let mut file = File::from(memfd_create("belljar-driver", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(DRIVER.as_bytes())?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// An image's C library may be older than the one of the machine that built this; Debian 12 and later have 2.36.
    const GLIBC_MINOR_MAX: u32 = 34;

    #[test]
    fn the_library_needs_no_newer_c_library_than_images_have() {
        // The versions of symbols stand as plain text in the library's table of strings.
        let text = String::from_utf8_lossy(JOIN_LIBRARY);
        let versions = text.split("GLIBC_2.").skip(1).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().expect("a number")
        });
        let newest = versions.max().expect("it is linked with the C library");
        assert!(newest <= GLIBC_MINOR_MAX, "it needs GLIBC_2.{newest}");
        assert!(text.contains("\0belljar_join\0"), "it has its one function");
    }

    #[test]
    fn the_program_is_an_elf_file_that_cannot_be_written() {
        let file = sealed().expect("memfd");
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0).expect("has a head");
        assert_eq!(&magic, b"\x7fELF");
        let error = file.write_at(b"x", 0).expect_err("sealed");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
        assert_eq!(file.set_len(0).expect_err("sealed").kind(), io::ErrorKind::PermissionDenied);
    }
}
