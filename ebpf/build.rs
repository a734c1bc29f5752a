//! Compiles the BPF programs with clang into OUT_DIR/node.bpf.o. Their types are in bpf/kernel.h; only libbpf's headers come from
//! outside.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Tried in this order when CLANG isn't set: the plain name, then the newest that programs were tried with.
const CANDIDATES: [&str; 7] =
    ["clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    if let Err(why) = compile() {
        // Cargo shows what build scripts print to stderr when they fail.
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn compile() -> Result<(), String> {
    let clang = clang()?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR isn't set: run this through cargo")?);
    let object = out.join("node.bpf.o");
    let done = Command::new(&clang)
        .args([
            "-target",
            "bpf",
            "-mcpu=v3",
            "-g",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-parameter",
        ])
        .arg(format!("-D__TARGET_ARCH_{}", architecture()))
        .args(multiarch_include())
        .arg("-c")
        .arg(Path::new("bpf").join("node.bpf.c"))
        .arg("-o")
        .arg(&object)
        .output()
        .map_err(|error| format!("{clang} can't be run: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let advice = if said.contains("file not found") {
        "\nlibbpf's headers are missing: install libbpf-dev (Debian, Ubuntu) or libbpf-devel (Fedora)"
    } else {
        ""
    };
    Err(format!("{clang} can't compile bpf/node.bpf.c:\n{said}{advice}"))
}

fn clang() -> Result<String, String> {
    if let Ok(clang) = std::env::var("CLANG") {
        return Ok(clang);
    }
    let found = CANDIDATES
        .iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()));
    found.map(|name| (*name).to_owned()).ok_or_else(|| {
        "no clang was found, which compiles the BPF programs: install clang-16 (any from 14 on does), or set CLANG to its path".to_owned()
    })
}

/// What libbpf's headers call the machine that the programs are for.
fn architecture() -> String {
    match std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default().as_str() {
        "x86_64" => "x86".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    }
}

/// Debian keeps asm/types.h in a folder of the machine's own, which clang doesn't look into for the target bpf.
fn multiarch_include() -> Vec<String> {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&folder).is_dir() { vec![format!("-I{folder}")] } else { Vec::new() }
}
