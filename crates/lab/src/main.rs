//! The command line of the workbench; `make` calls it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kernel::machine::layout::Layout;
use lab::bench::BenchArgs;
use lab::class::ClassArgs;
use lab::notebooks::{BrowserArgs, RunArgs, jupyter, suite};
use lab::setup::net;
use lab::setup::part::Options;
use lab::{bench, class, doctor, notebooks, publish, setup};

/// The workbench of the lesson.
#[derive(Parser)]
struct Arguments {
    /// Another clone than the one this program was built in
    #[arg(long, global = true, hide = true, value_name = "FOLDER")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring whatever is missing: libtorch, Python packages, the kernel, MNIST
    Setup {
        /// A folder with the four MNIST files, raw or .gz
        #[arg(long, value_name = "FOLDER")]
        mnist: Option<PathBuf>,
    },
    /// Say what is there, what is missing, and the fix
    Doctor {
        /// Also hash the big files
        #[arg(long)]
        deep: bool,
    },
    /// Open JupyterLab on the notebooks
    Jupyter {
        /// The port to listen on; without it, 8888 or the next free one
        #[arg(long)]
        port: Option<u16>,
    },
    /// Open a JupyterHub on this machine, for a class
    Class(ClassArgs),
    /// Run notebooks top to bottom without a browser
    Run(RunArgs),
    /// Drive a notebook in JupyterLab in Chromium
    Browser(BrowserArgs),
    /// Make a static site of the notebooks as they are saved; nothing is run
    Site {
        /// Where it goes [default: target/site]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Make slides of the notebooks as they are saved, one page for each; nothing is run
    Slides {
        /// Where they go [default: target/slides]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Measure, beside the peers where they are installed
    Bench(BenchArgs),
    /// Run the tests
    Test {
        /// Run what takes longer instead: slow tests, every cell twice in a row, every notebook in the browser
        #[arg(long)]
        long: bool,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<ExitCode> {
    let mut layout = Layout::find()?;
    if let Some(root) = arguments.root {
        layout.root = root;
    }
    match arguments.verb {
        Verb::Setup { mnist } => setup::setup(&layout, &Options { mnist })?,
        Verb::Doctor { deep } if doctor::doctor(&layout, deep)? => {}
        Verb::Doctor { .. } => return Ok(ExitCode::FAILURE),
        Verb::Jupyter { port } => jupyter::jupyter(&layout, port)?,
        Verb::Class(arguments) => class::class(&layout, &arguments)?,
        Verb::Run(arguments) => {
            net::loopback_up(&layout)?;
            notebooks::run(&layout, arguments)?;
        }
        Verb::Browser(arguments) => {
            net::loopback_up(&layout)?;
            notebooks::browser(&layout, arguments)?;
        }
        Verb::Site { out } => publish::site(&layout, out)?,
        Verb::Slides { out } => publish::slides(&layout, out)?,
        Verb::Bench(arguments) => bench::bench(&layout, &arguments)?,
        Verb::Test { long: false } => suite::test(&layout)?,
        Verb::Test { long: true } => suite::long(&layout)?,
    }
    Ok(ExitCode::SUCCESS)
}
