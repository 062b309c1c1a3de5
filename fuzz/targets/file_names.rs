//! File names that may cross the wall: what is usable is a plain name of one path component.
#![no_main]

use std::path::{Component, Path};

use belljar_sandbox::fuzzing::usable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &str| {
    if usable(name) {
        let mut components = Path::new(name).components();
        assert!(matches!(components.next(), Some(Component::Normal(found)) if found == name), "{name:?}");
        assert_eq!(components.next(), None, "{name:?}");
        assert!(!name.bytes().any(|byte| byte < 0x20 || byte == b'\\'), "{name:?}");
        assert!(name.len() <= 255);
    }
});
