//! What keeps the binary small: options of the linker for release builds, and the
//! shipped dashboards without their white space.

use std::path::PathBuf;

const DASHBOARDS: &str = "assets/dashboards";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={DASHBOARDS}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    for entry in std::fs::read_dir(DASHBOARDS).expect("the shipped dashboards") {
        let entry = entry.expect("the shipped dashboards");
        let json = std::fs::read_to_string(entry.path()).expect("a shipped dashboard");
        std::fs::write(out.join(entry.file_name()), compact(&json))
            .expect("cargo's folder can be written");
    }
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Only there is LLD the default linker, and glibc 2.36 the oldest that pulse is built on.
    let has_lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if has_lld && is("PROFILE", "release") {
        // Equal functions once; relative relocations in 7 kB instead of 530 kB.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all,-z,pack-relative-relocs");
    }
}

/// JSON without white space between its tokens.
fn compact(json: &str) -> String {
    let mut compact = String::new();
    let (mut is_text, mut is_escaped) = (false, false);
    for c in json.chars() {
        if is_text || !c.is_ascii_whitespace() {
            compact.push(c);
        }
        is_text ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
    }
    compact
}
