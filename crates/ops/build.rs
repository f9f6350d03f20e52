//! Compiles the C++ file of this crate, and lets `cargo test` and `cargo run` find libtorch when they start a
//! program.
//!
//! Cargo adds the link-search folders of build scripts to the library path of the programs that it starts, but only
//! folders below its own build folder. libtorch lies elsewhere, so this script makes a symbolic link to it there.

use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/autograd.cpp");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else {
        return Err(std::io::Error::other(
            "LIBTORCH is not set: it names the folder of libtorch, which `make setup` downloads",
        ));
    };
    let libtorch = Path::new(&libtorch);
    println!(
        "cargo:rerun-if-changed={}",
        libtorch.join("build-version").display()
    );
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        cc::Build::new()
            .cpp(true)
            .std("c++20")
            .warnings(false) // they would be about libtorch's headers
            .include(libtorch.join("include"))
            .file("src/autograd.cpp")
            .compile("ops_autograd");
    }
    #[cfg(unix)]
    if let Some(out) = std::env::var_os("OUT_DIR") {
        let link = Path::new(&out).join("libtorch");
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(std::path::absolute(libtorch.join("lib"))?, &link)?,
        }
        println!("cargo:rustc-link-search=native={}", link.display());
    }
    Ok(())
}
