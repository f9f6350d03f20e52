//! A small stand-in for libtorch, which only the linker sees when it links a cell.
//!
//! Every cell is linked anew. Of the 180 ms that this took, 76 were spent on reading the 75,000 names of
//! `libtorch_cpu.so`, of which the C++ below `tch` needs 2,800. So a library that holds just these names lies in the
//! folder where the linker looks first. A cell that is linked with it asks for libtorch by name, and gets the real one when it
//! is loaded; a name that the stand-in lacks stays open until then as well, as it may in a shared library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::{libtorch, toolchain, tools};

/// What it stands in for.
const LIBRARY: &str = "libtorch_cpu.so";
/// What is compiled from C++ against libtorch: the build folders begin so.
const SHIMS: [&str; 2] = ["torch-sys-", "diffusion-"];

/// Lays a stand-in beside the support crate's C++ in a warm directory that was just compiled.
pub fn make(layout: &Layout, seed: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(()); // other systems' linkers work differently
    }
    let target = seed.join("cell/target").join(toolchain::host()?);
    let shims = shims(&target.join("debug/build"))?;
    let mut nm = Command::new("nm");
    let needed = tools::output(nm.arg("--undefined-only").args(&shims))?;
    let needed: BTreeSet<&str> = needed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("U "))
        .collect();
    let real = libtorch::in_use(layout)?.join("lib").join(LIBRARY);
    let mut readelf = Command::new("readelf");
    let offered = tools::output(readelf.args(["--dyn-syms", "--wide"]).arg(&real))?;
    let source = assembly(&offered, &needed);
    let folders: BTreeSet<&Path> = shims.iter().filter_map(|shim| shim.parent()).collect();
    for folder in folders {
        let file = folder.join("stand-in.s");
        tools::write_whole(&file, &source)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-nostdlib"])
            .arg(format!("-Wl,-soname,{LIBRARY}"))
            .arg("-o")
            .arg(folder.join(LIBRARY))
            .arg(&file);
        tools::output(&mut cc)?;
    }
    Ok(())
}

/// The archives of compiled C++.
fn shims(build: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(build).with_context(|| format!("cannot read {}", build.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let out = entry.path().join("out");
        if !SHIMS.iter().any(|start| name.starts_with(start)) || !out.is_dir() {
            continue;
        }
        let files = fs::read_dir(&out).with_context(|| format!("cannot read {}", out.display()))?;
        let archives = files.flatten().map(|file| file.path());
        found.extend(archives.filter(|path| path.extension().is_some_and(|end| end == "a")));
    }
    if found.is_empty() {
        bail!("no archives of C++ in {}", build.display());
    }
    Ok(found)
}

/// The needed ones of a library's names, as `readelf` lists them, as a source of their own.
fn assembly(offered: &str, needed: &BTreeSet<&str>) -> String {
    let mut source = String::from(".text\n");
    for line in offered.lines() {
        // Num: Value Size Type Bind Vis Ndx Name
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, kind, _, _, section, name, ..] = fields[..] else {
            continue;
        };
        let kind = match kind {
            "FUNC" => "function",
            "OBJECT" => "object",
            _ => continue, // a thread's own variables are reached in another way
        };
        if section != "UND" && needed.contains(name) {
            source.push_str(&format!(".globl {name}\n.type {name}, @{kind}\n{name}:\n"));
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_names_that_are_needed_and_offered() {
        let offered = "
Symbol table '.dynsym' contains 75589 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND needed_but_not_offered
     2: 0000000001f0a2b0   112 FUNC    WEAK   DEFAULT   12 _ZN2at3addE
     3: 0000000001f0a2b0   112 OBJECT  GLOBAL DEFAULT   19 _ZTIN3c105ErrorE
     4: 0000000001f0a2b0   112 FUNC    GLOBAL DEFAULT   12 nobody_needs_it
     5: 0000000000000010     8 TLS     GLOBAL DEFAULT   20 of_each_thread
";
        let needed = [
            "needed_but_not_offered",
            "_ZN2at3addE",
            "_ZTIN3c105ErrorE",
            "of_each_thread",
        ];
        let expected = "\
.text
.globl _ZN2at3addE
.type _ZN2at3addE, @function
_ZN2at3addE:
.globl _ZTIN3c105ErrorE
.type _ZTIN3c105ErrorE, @object
_ZTIN3c105ErrorE:
";
        assert_eq!(assembly(offered, &needed.into()), expected);
    }
}
