//! A small directory as a kernel has it, with real compilers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use kernel::machine::layout::{CARGO, LINKER, Layout, WITNESS};
use kernel::variables;

use super::{Scratch, names};

/// A kernel's own directory: a cell, a support crate, and the other member of the workspace, which depends on it.
pub struct Own {
    pub scratch: Scratch,
    /// Its name in the scratch folder.
    pub name: &'static str,
    /// What its environment has besides.
    pub more: Vec<(&'static str, &'static str)>,
    /// The support crate's name, and its folder in the scratch folder.
    support: (&'static str, &'static str),
}

impl Own {
    /// One whose support crate is `support`, with a function `number`.
    pub fn new(name: &str) -> Own {
        let own = Own::on(Scratch::new(name), ("support", "support"));
        own.write_crate("support", "support", "", "");
        own.write("support/src/lib.rs", "pub fn number() -> u32 { 1 }");
        own
    }

    /// One whose support crate of this name is, or will be, in this folder of `scratch`.
    pub fn on(scratch: Scratch, support: (&'static str, &'static str)) -> Own {
        let own = Own {
            scratch,
            name: "own",
            more: Vec::new(),
            support,
        };
        let dependencies = own.dependencies();
        own.write(
            "own/Cargo.toml",
            "[workspace]\nmembers = [\"cell\", \"lock\"]\nresolver = \"3\"\n",
        );
        for (folder, name) in [("cell", "ctx"), ("lock", "lock")] {
            let kind = "[lib]\ncrate-type = [\"cdylib\"]\n";
            own.write_crate(&format!("own/{folder}"), name, kind, &dependencies);
        }
        fs::create_dir_all(own.at("own/memory")).unwrap();
        // Another crate's tests have no program of this one but the one that set-up made.
        let program = option_env!("CARGO_BIN_EXE_kernel").map(PathBuf::from);
        let program = program.unwrap_or_else(|| Layout::find().unwrap().launcher());
        for name in [CARGO, WITNESS, LINKER] {
            symlink(&program, own.at(name)).unwrap();
        }
        own
    }

    pub fn dependencies(&self) -> String {
        let (name, folder) = self.support;
        format!("{name} = {{ path = {:?} }}\n", self.at(folder))
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.scratch.0.join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn write_crate(&self, folder: &str, name: &str, kind: &str, dependencies: &str) {
        self.write(
            &format!("{folder}/Cargo.toml"),
            &format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{kind}[dependencies]\n{dependencies}"),
        );
        self.write(&format!("{folder}/src/lib.rs"), "");
    }

    pub fn ask(&self, words: &[&str]) -> Output {
        let mut cargo = Command::new(self.at("cargo"));
        variables::without_theirs(&mut cargo);
        cargo
            .args(words)
            .current_dir(self.at(self.name).join("cell"))
            .env("EVCXR_TMPDIR", self.at(self.name).join("cell"))
            .env("CARGO_TARGET_DIR", "target")
            .env("RUSTFLAGS", "-Cprefer-dynamic")
            .env_remove("LAB_MEMORY")
            .envs(self.more.iter().copied())
            .output()
            .unwrap()
    }

    /// Compiles a cell as evcxr does. Whether the real cargo was called shows in its output on stderr.
    pub fn compile(&self, code: &str) -> (Output, bool) {
        self.write(&format!("{}/cell/src/lib.rs", self.name), code);
        let output = self.ask(&["build", "--message-format=json", "--offline"]);
        let real = String::from_utf8_lossy(&output.stderr).contains("Compiling");
        (output, real)
    }

    /// The path of the cell's library, in either form of cargo's build directories.
    pub fn library_path(&self) -> PathBuf {
        let mut folders = vec![self.at("own/cell/target/debug")];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
            {
                let above = path.parent().and_then(|folder| folder.file_name()).unwrap();
                // Not the second name that cargo gives it for people.
                if path.ends_with("libctx.so") && above != "debug" {
                    return path;
                }
                folders.extend(path.is_dir().then_some(path));
            }
        }
        unreachable!("a cell was compiled before");
    }

    pub fn library(&self) -> Vec<u8> {
        fs::read(self.library_path()).unwrap()
    }

    pub fn kept(&self, kind: &str) -> usize {
        let names = names(&self.at("own/memory"));
        names.iter().filter(|name| name.ends_with(kind)).count()
    }
}
