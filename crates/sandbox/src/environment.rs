//! What commands see: their environment, and the places it names.

/// Where commands start, and relative paths of the editor begin.
pub const WORKING_DIRECTORY: &str = "/work";
/// `$HOME`.
pub const HOME: &str = "/root";
/// `$INPUT_DIR`.
pub const INPUT_DIRECTORY: &str = "/files/input";
/// `$OUTPUT_DIR` is a directory in here, new for each command.
pub const OUTPUT_ROOT: &str = "/files/output";

/// The same for every command. The image's own settings (Python, matplotlib, OpenBLAS) are here too: they must hold
/// whatever the image says.
const FIXED: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", HOME),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/bash"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("INPUT_DIR", INPUT_DIRECTORY),
    // Archives name owners that do not exist in here; as root, tar would try and fail to give files to them.
    ("TAR_OPTIONS", "--no-same-owner"),
    ("MPLBACKEND", "agg"),
    // One core: more threads only wait for each other.
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("JE_ARROW_MALLOC_CONF", "background_thread:false"),
    ("PYTHONIOENCODING", "utf-8"),
];

/// Where tools are commands (guest/src/tools).
const TOOLS_DIRECTORY: &str = "/run/tools/bin";

/// The whole environment of one command that can call tools. They come last: none takes the place of a program.
pub fn of_calling_command(output: &str) -> Vec<(String, String)> {
    let mut env = of_command(output);
    for (name, value) in &mut env {
        if name == "PATH" {
            *value = format!("{value}:{TOOLS_DIRECTORY}");
        }
    }
    env
}

/// The whole environment of one command.
pub fn of_command(output: &str) -> Vec<(String, String)> {
    let mut env = of_repl();
    env.push(("OUTPUT_DIR".to_owned(), format!("{OUTPUT_ROOT}/{output}")));
    env
}

/// The whole environment of a REPL; its driver adds each cell's `$OUTPUT_DIR`.
pub fn of_repl() -> Vec<(String, String)> {
    FIXED.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
