//! The configuration file: any text becomes a configuration or one clear error.
#![no_main]

#[path = "../../crates/server/src/config/mod.rs"]
#[allow(dead_code, reason = "the target parses and resolves; the rest is the command line's")]
mod config;

#[path = "../../crates/server/src/tenants/limits.rs"]
#[allow(dead_code, reason = "the target reads limits; who keeps to them is the server's")]
mod limits_of_tenants;

mod tenants {
    //! Where the configuration finds them.
    pub(crate) use super::limits_of_tenants as limits;
}

use std::path::Path;

use config::environment::Environment;
use config::file::ConfigFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match ConfigFile::parse(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(file) => {
            let _serving = file.serving();
            let _upstreams = file.upstreams(&Environment::default(), Path::new("/data"));
            let _limits = file.all_limits();
            let _rules = file.guard_rules();
            if let Ok(limits) = file.sandbox.limits(&Environment::default()) {
                assert!(limits.cpus > 0.0 && limits.memory_bytes_max > 0 && limits.disk_bytes_max > 0);
                assert!(limits.processes_max > 0 && limits.containers_max > 0 && limits.output_bytes_max > 0);
            }
        }
    }
});
