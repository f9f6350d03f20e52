//! `lab bench`: the measurements, ours beside the peers where those are installed.
//!
//! The measuring itself is another program, `crates/bench`. Here it gets what it needs: MNIST, the Python
//! that has Jupyter, the environment that kernels have, and the peers (Keras, PyTorch) in an environment of their own.
//! That one lies in the cache, 5 GB large, so it is made only on request. Another commit is prepared in [`crate::bench::against`].

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kernel::machine::layout::Layout;
use kernel::machine::{compilers, locks, tools};
use kernel::variables;

use crate::setup::{net, python};
use against::Against;

pub mod against;

/// What the peers are; the second file is installed without what its packages ask for.
const REQUIREMENTS: [&str; 2] = ["requirements.txt", "requirements-nodeps.txt"];
/// In an environment whose making came to its end.
const STAMP: &str = "complete";
/// What `lab bench` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    /// Install the peers first where they are missing (Keras on TensorFlow, PyTorch; 5 GB in the cache)
    #[arg(long)]
    pub peers: bool,
    /// See that everything works: few rounds, few steps, numbers that mean little
    #[arg(long)]
    pub quick: bool,
    /// Measure only these
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub only: Vec<String>,
    /// Measure another commit in the same rounds, and say how many times better ours is (the peers take part with --peers only)
    #[arg(long, value_name = "COMMIT")]
    pub against: Option<String>,
    /// How many rounds, instead of as many as each measurement says (15 with --against); at most 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: Option<u16>,
}

/// Measures; the peers, too, if they are installed, and another commit, if one is named.
pub fn bench(layout: &Layout, args: &BenchArgs) -> Result<()> {
    let _turn = locks::turn(&layout.target().join("bench"), "bench")?; // two runs would disturb each other's times
    let against = args.against.as_deref();
    let against = against
        .map(|name| Against::find(layout, name))
        .transpose()?;
    let peers = peers_folder(layout)?;
    if args.peers {
        make_peers(layout, &peers)?;
    }
    net::loopback_up(layout)?;
    let environment = variables::of_measurements(layout)?;
    let description = match against {
        Some(against) => {
            let kernels = kernels(layout, &environment, &args.only)?;
            Some(against.prepare(layout, &environment, kernels)?)
        }
        None => None,
    };
    let mut cargo = program(layout, &environment);
    cargo.arg("--mnist").arg(layout.mnist());
    cargo.arg("--out").arg(layout.target().join("bench"));
    cargo.arg("--jupyter").arg(layout.python());
    if peers.join(STAMP).is_file() {
        // Beside another commit they would take most of the time.
        if description.is_none() || args.peers {
            cargo.arg("--peers").arg(peers.join("bin/python"));
        }
    } else if description.is_none() {
        println!(
            "the peers are not installed, so ours are measured alone; `make bench PEERS=1` installs them (5 GB)"
        );
    }
    if let Some(description) = description {
        cargo.arg("--against").arg(description);
    }
    if let Some(rounds) = args.rounds {
        cargo.arg("--rounds").arg(rounds.to_string());
    }
    cargo.args(args.quick.then_some("--quick"));
    if !args.only.is_empty() {
        cargo.arg("--only").args(&args.only);
    }
    tools::run(&mut cargo)
}

/// The measuring program, built if need be.
fn program(layout: &Layout, environment: &[(String, String)]) -> Command {
    let mut cargo = Command::new("cargo");
    variables::without_leftovers(&mut cargo)
        .args(["run", "--package", "bench", "--"])
        .current_dir(&layout.root)
        .env("LIBTORCH", layout.libtorch_link())
        .envs(environment.iter().cloned());
    cargo
}

/// Whether any of these measurements needs a kernel; names none, all of them.
fn kernels(layout: &Layout, environment: &[(String, String)], only: &[String]) -> Result<bool> {
    println!("compiling `bench` where it changed …");
    let mut program = program(layout, environment);
    let names = tools::output(program.arg("kernels").args(only));
    Ok(!names
        .context("the measurements cannot be listed")?
        .is_empty())
}

/// The peers' environment; another one for other requirements.
fn peers_folder(layout: &Layout) -> Result<PathBuf> {
    let mut all = Vec::new();
    for path in requirements(layout) {
        all.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let name = format!("peers-{}", &tools::sha256(&all)[..12]);
    Ok(layout.cache.join(name))
}

fn requirements(layout: &Layout) -> [PathBuf; 2] {
    REQUIREMENTS.map(|name| layout.root.join("crates/bench/python").join(name))
}

/// Makes the environment anew unless it is complete: what an interrupted install left is not trusted.
fn make_peers(layout: &Layout, folder: &Path) -> Result<()> {
    let _turn = locks::turn(&layout.cache, "peers")?;
    if folder.join(STAMP).is_file() {
        return Ok(());
    }
    tools::remove_dir(folder)?;
    let (python, version) = compilers::python()?;
    println!("the peers' environment in {} ({version})", folder.display());
    let venv = ["-m".as_ref(), "venv".as_ref(), folder.as_os_str()];
    tools::run_visibly(
        Command::new(&python).args(venv),
        "making a Python environment",
    )?;
    let own = folder.join("bin/python");
    let [packages, alone] = requirements(layout);
    let installs: [&[&OsStr]; 2] = [
        &["-r".as_ref(), packages.as_os_str()],
        &["--no-deps".as_ref(), "-r".as_ref(), alone.as_os_str()],
    ];
    for what in installs {
        let mut pip = python::pip(&own);
        pip.args(["install", "--quiet"]).args(what);
        tools::run_visibly(&mut pip, "installing the peers").context(
            "pip could not install the peers (they need the network for this once, and Python 3.11 or later: \
             PYTHON names one); run the same command again, or measure ours alone with `make bench`",
        )?;
    }
    tools::write_whole(&folder.join(STAMP), version)
}
