//! Compiles the C library in `vendor/stdio_bus`, and with the feature
//! `buildtime-bindgen` generates the bindings of its headers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const VENDOR: &str = "vendor/stdio_bus";
const HEADERS: [&str; 3] = ["stdio_bus.h", "stdio_bus_embed.h", "stdio_bus_ext.h"];

/// What our own CI compiles the C code with; users' builds get none of it.
const STRICT: [&str; 8] = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wundef",
    "-Werror",
];

fn main() {
    if env::var_os("CARGO_CFG_UNIX").is_none() {
        println!(
            "cargo::error=stdiobus needs a Unix target: it is made of pipes, signals and process groups"
        );
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    rerun_lines();
    compile(&sources());
    export_headers(&out);
    #[cfg(feature = "buildtime-bindgen")]
    generate_bindings(&out);
}

/// Everything this script reads. Directories are watched as a whole, so a new
/// header is noticed too.
fn rerun_lines() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=include");
    println!("cargo::rerun-if-changed={VENDOR}/src");
    println!("cargo::rerun-if-changed={VENDOR}/sources.mk");
    for name in ["CC", "CFLAGS", "AR", "STDIOBUS_WERROR"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

/// The C files in `src/`, as `SB_SOURCES` in `sources.mk` lists them: one list
/// for make and for cargo.
fn sources() -> Vec<PathBuf> {
    let list = Path::new(VENDOR).join("sources.mk");
    let text = fs::read_to_string(&list)
        .unwrap_or_else(|e| panic!("{}: {e}", list.display()))
        .replace("\\\n", " ");
    let files: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once('='))
        .filter(|(name, _)| name.trim_end_matches([':', '+', '?', ' ']).trim() == "SB_SOURCES")
        .flat_map(|(_, files)| files.split_whitespace())
        .map(|file| Path::new(VENDOR).join("src").join(file))
        .collect();
    assert!(!files.is_empty(), "{}: no SB_SOURCES", list.display());
    files
}

fn compile(files: &[PathBuf]) {
    let mut build = cc::Build::new();
    build
        .files(files)
        .include("include")
        .include(Path::new(VENDOR).join("src"))
        .std("c11")
        .define("_GNU_SOURCE", None)
        .flag("-fvisibility=hidden")
        .warnings(false)
        .emit_rerun_if_env_changed(false);
    if env::var("STDIOBUS_WERROR").is_ok_and(|value| value == "1") {
        for flag in STRICT {
            build.flag(flag);
        }
    }
    build.compile("stdio_bus");
}

/// Lets a crate that depends on this one compile C code against the headers:
/// it finds them through `DEP_STDIO_BUS_INCLUDE`.
fn export_headers(out: &Path) {
    let include = out.join("include");
    fs::create_dir_all(&include).expect("OUT_DIR is writable");
    for header in HEADERS {
        let from = Path::new("include").join(header);
        fs::copy(&from, include.join(header)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
    println!("cargo::metadata=root={}", out.display());
    println!("cargo::metadata=include={}", include.display());
}

#[cfg(feature = "buildtime-bindgen")]
fn generate_bindings(out: &Path) {
    let mut builder = bindgen::Builder::default()
        .header("include/stdio_bus_ext.h")
        .clang_args(["-Iinclude", "-std=c11"])
        .allowlist_item("stdio_bus_.*")
        .allowlist_item("STDIO_BUS_.*")
        .use_core()
        .prepend_enum_name(false)
        .derive_default(true)
        // One file serves every target; what has to hold for the layout is
        // asserted by hand in src/sys/layout.rs.
        .layout_tests(false)
        .rust_target(bindgen::RustTarget::stable(85, 0).expect("known to bindgen"))
        .rust_edition(bindgen::RustEdition::Edition2024)
        .formatter(bindgen::Formatter::Prettyplease);
    // A bare libclang comes without the compiler's own headers (stddef.h).
    if let Some(dir) = compiler_include() {
        builder = builder.clang_args(["-isystem", &dir]);
    }
    builder
        .generate()
        .expect("bindings of include/stdio_bus_ext.h")
        .write_to_file(out.join("bindings.rs"))
        .expect("OUT_DIR is writable");
}

#[cfg(feature = "buildtime-bindgen")]
fn compiler_include() -> Option<String> {
    let output = cc::Build::new()
        .try_get_compiler()
        .ok()?
        .to_command()
        .arg("-print-file-name=include")
        .output()
        .ok()?;
    let dir = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&dir).is_dir().then_some(dir)
}
