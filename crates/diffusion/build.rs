//! Lets `cargo test` and `cargo run` find libtorch when they start a program.
//!
//! Cargo adds the link-search folders of build scripts to the library path of what it starts, but
//! only those below its own build folder; libtorch lies elsewhere. So a link to it is laid there.

use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(unix)]
    if let (Some(libtorch), Some(out)) = (std::env::var_os("LIBTORCH"), std::env::var_os("OUT_DIR"))
    {
        let link = Path::new(&out).join("libtorch");
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(
                std::path::absolute(Path::new(&libtorch).join("lib"))?,
                &link,
            )?,
        }
        println!("cargo:rustc-link-search=native={}", link.display());
    }
    Ok(())
}
