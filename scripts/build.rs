//! One argument for the linker, where it is understood.

use std::env;
use std::process::Command;

/// The oldest C library that reads relative relocations in their packed form.
const GLIBC: (u32, u32) = (2, 36);

/// Every pointer in the binary's constants is a relocation of 24 bytes, 640 KiB of them, which are
/// read once at the start and stay in the process' resident set. Packed they are a few.
fn main() {
    println!("cargo::rerun-if-changed=scripts/build.rs");
    let of_target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_glibc = of_target("OS") == "linux" && of_target("ENV") == "gnu";
    // Of another machine's library nothing is known.
    let is_here = env::var("HOST").is_ok() && env::var("HOST").ok() == env::var("TARGET").ok();
    if is_glibc && is_here && glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
