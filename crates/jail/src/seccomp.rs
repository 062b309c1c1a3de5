//! The seccomp filters.
use crate::plan::BpfProgram;
use rustix::io::Errno;
pub(crate) fn compiled() -> Result<&'static [BpfProgram], String> {
    Ok(&[])
}
pub(crate) fn install(programs: &[BpfProgram]) -> Result<(), Errno> {
    let _ = programs;
    Ok(())
}
