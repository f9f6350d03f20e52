//! The measurements of the lesson: ours beside the peers, in one run; `make bench` calls it.
//!
//! What is measured is the table [`measurements::MEASUREMENTS`], by the [`programs`]; how to add to it stands there. The rest, from
//! the outside in: this file reads the command line, [`rounds`] lets the contenders take turns ([`contender`] is one
//! of them as a process, [`other`] another commit, [`race`] one that trains to a score), [`stats`] makes numbers of the rounds,
//! [`against`] compares two commits, [`report`] and [`plot`] show it all. [`ours`] and [`to_19db`] are what runs in our own processes.

mod against;
mod contender;
mod drawn;
mod machine;
mod measurements;
mod memory;
mod other;
mod ours;
mod plot;
mod programs;
mod race;
mod report;
mod rounds;
mod stats;
mod tables;
mod text;
mod to_19db;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::{Map, Value, json};

use crate::contender::Place;
use crate::machine::Machine;
use crate::measurements::{MEASUREMENTS, Measurement, TABLES};
use crate::other::Other;
use crate::report::{Outcome, Report};
use crate::rounds::Session;

/// What the environment may say that changes speed.
const ENVIRONMENT: [&str; 4] = [
    "GLIBC_TUNABLES",
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
    "KMP_BLOCKTIME",
];

/// Measures the lesson, ours beside the peers.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer requests for measurements on stdin
    Worker(ours::Arguments),
    /// Train until the test images score 19 dB
    #[command(name = "to-19db")]
    To19db(to_19db::Arguments),
    /// Print the measurements, of those named or of all, that need a kernel
    Kernels {
        #[arg(value_name = "NAME")]
        only: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Measure {
    /// The folder with the four raw MNIST files
    #[arg(long, value_name = "FOLDER", required = true)]
    mnist: Option<PathBuf>,
    /// Where report.json and the pictures go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// The Python that has the peers; without it ours are measured alone
    #[arg(long, value_name = "PROGRAM")]
    peers: Option<PathBuf>,
    /// The Python that has Jupyter; without it kernels are not measured
    #[arg(long, value_name = "PROGRAM")]
    jupyter: Option<PathBuf>,
    /// See that everything works: few rounds, few steps, numbers that mean little
    #[arg(long)]
    quick: bool,
    /// Measure only these
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,
    /// How many rounds, instead of as many as each measurement says (15 beside another commit); at most 1000
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Measure another commit as well: the file that `lab bench --against` writes
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Some(Verb::Worker(arguments)) => ours::serve(arguments).map(|()| true),
        Some(Verb::To19db(arguments)) => to_19db::run(&arguments).map(|()| true),
        Some(Verb::Kernels { only }) => kernels(&only).map(|()| true),
        None => measure(arguments.measure),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether `name` was chosen; without `--only` everything is.
fn is_among(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|only| only == name)
}

fn kernels(only: &[String]) -> Result<()> {
    check_names(only)?;
    let chosen = MEASUREMENTS
        .iter()
        .filter(|measurement| is_among(only, measurement.name) && measurement.needs_kernel());
    chosen.for_each(|measurement| println!("{}", measurement.name));
    Ok(())
}

/// Measures and reports; false if something of ours could not be measured, or something that the other commit knows.
fn measure(arguments: Measure) -> Result<bool> {
    check_names(&arguments.only)?;
    let wanted = |name: &str| is_among(&arguments.only, name);
    let began = Instant::now();
    let machine = Machine::here();
    let place = place(&arguments, machine.cpus)?;
    println!("{}", machine.line());
    let commit = place.against.as_ref().map(|other| other.commit.clone());
    if let Some(commit) = &commit {
        println!("beside commit {commit}");
    }
    let rounds = arguments.rounds.map(usize::from);
    let mut session = Session::new(place, arguments.quick, rounds);
    let chosen: Vec<&Measurement> = MEASUREMENTS
        .iter()
        .filter(|measurement| wanted(measurement.name))
        .collect();
    let mut results = Vec::new();
    for (at, measurement) in chosen.iter().enumerate() {
        println!("{}: {}", measurement.name, measurement.what);
        let rounds = session.measure(measurement);
        results.push(Outcome::new(measurement, rounds, commit.as_deref()));
        session.keep_for(&chosen[at + 1..]);
    }
    let mut whole = results.iter().all(|outcome| {
        let compared = commit.is_none() || outcome.against.is_some() || outcome.unknown_there();
        outcome.ours.is_some() && compared
    });
    let mut tables = Map::new();
    // The tables are ours alone, so beside another commit they are filled only when they are named.
    let named = |name: &str| commit.is_none() || !arguments.only.is_empty() && wanted(name);
    for (name, what) in TABLES
        .iter()
        .filter(|(name, _)| wanted(name) && named(name))
    {
        println!("{name}: {what}");
        let rows = tables::fill(name, &mut session).unwrap_or_else(|error| {
            println!("  {error:#}");
            whole = false;
            json!({"absent": format!("{error:#}")})
        });
        tables.insert((*name).to_owned(), rows);
    }
    let report = Report {
        machine,
        settings: settings(&session),
        versions: std::mem::take(&mut session.versions),
        seconds: began.elapsed().as_secs_f64(),
        results,
        tables,
        foot: report::FOOT,
    };
    report.print();
    let out = &session.place.out;
    report.save(&out.join("report.json"))?;
    let pictures = plot::save(&report.results, out)?;
    println!(
        "\n{:.0} s; {}",
        report.seconds,
        [
            vec![out.join("report.json").display().to_string()],
            pictures
        ]
        .concat()
        .join(", ")
    );
    Ok(whole)
}

fn check_names(only: &[String]) -> Result<()> {
    let names = measurements::names();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!(
            "nothing is called {unknown:?} here; --only knows {}",
            names.join(", ")
        );
    }
    Ok(())
}

/// The folders, with the first weights in them.
fn place(arguments: &Measure, threads: usize) -> Result<Place> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
    };
    let out = absolute(&arguments.out)?;
    let data = out.join("data");
    fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the folder {}", data.display()))?;
    ours::lesson()?.save(data.join(ours::FIRST_WEIGHTS))?;
    let mnist = arguments.mnist.as_ref().context("--mnist is missing")?;
    Ok(Place {
        data,
        mnist: absolute(mnist)?,
        out,
        peers: arguments.peers.clone(),
        jupyter: arguments.jupyter.clone(),
        threads,
        against: arguments.against.as_deref().map(Other::read).transpose()?,
    })
}

fn settings(session: &Session) -> Value {
    let environment: BTreeMap<&str, String> = ENVIRONMENT
        .iter()
        .filter_map(|name| Some((*name, std::env::var(name).ok()?)))
        .collect();
    json!({
        "quick": session.quick,
        "threads": session.place.threads,
        "environment": environment,
        "contenders": session.settings,
        "against": session.place.against.as_ref().map(|other| json!({
            "commit": other.commit,
            "interval": against::INTERVAL,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_rounds_has_limits() {
        let parse = |rounds: &str| {
            let words = ["bench", "--mnist", "folder", "--rounds", rounds];
            Arguments::try_parse_from(words)
        };
        assert!(parse("1").is_ok() && parse("1000").is_ok());
        assert!(parse("0").is_err() && parse("1001").is_err());
    }
}
