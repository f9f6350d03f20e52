//! `lab setup`: whatever is missing, and nothing that is there.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use kernel::machine::layout::Layout;
use kernel::machine::{compilers, locks, tools};
use kernel::renewal::DoesNotCompile;

use part::{Finding, Options, Part};

pub mod analyzer;
pub mod evcxr;
pub mod fetch;
pub mod index;
pub mod libtorch;
pub mod mnist;
pub mod net;
pub mod part;
pub mod places;
pub mod programs;
pub mod python;
pub mod rehearsal;
pub mod seed;
pub mod spec;

/// The parts that a working lesson is made of, in the order in which they need each other.
pub const PARTS: &[Part] = &[
    // The error of this check names the fix: the machine's own tools are not ours to install.
    Part {
        name: "tools",
        check: |_, _| compilers::check().map(Finding::Found),
        make: |_, _| compilers::check().map(drop),
        shared: false,
    },
    Part {
        name: "places",
        check: places::check,
        make: places::make,
        shared: false,
    },
    Part {
        name: "python",
        check: python::check,
        make: python::make,
        shared: false,
    },
    Part {
        name: "libtorch",
        check: libtorch::check,
        make: libtorch::make,
        shared: true,
    },
    Part {
        name: "mnist",
        check: mnist::check,
        make: mnist::make,
        shared: true,
    },
    // What is downloaded stands before what is compiled: without a network it fails in the first minute.
    Part {
        name: "evcxr",
        check: evcxr::check,
        make: evcxr::make,
        shared: true,
    },
    Part {
        name: "programs",
        check: programs::check,
        make: programs::make,
        shared: false,
    },
    Part {
        name: "kernel",
        check: spec::check,
        make: spec::make,
        shared: false,
    },
    Part {
        name: "analyzer",
        check: analyzer::check,
        make: analyzer::make,
        shared: false,
    },
    Part {
        name: "seed",
        check: seed::check,
        make: seed::make,
        shared: false,
    },
    Part {
        name: "rehearsal",
        check: rehearsal::check,
        make: rehearsal::make,
        shared: false,
    },
];

/// Goes through the parts; a line for each, with the time it took.
pub fn setup(layout: &Layout, options: &Options) -> Result<()> {
    let began = Instant::now();
    for part in PARTS {
        let start = Instant::now();
        let text = match ready(part, layout, options) {
            // Somebody works on the lesson's crates: notebooks open all the same, and a cell shows the compiler's words.
            Err(error) if error.is::<DoesNotCompile>() && layout.seed().is_dir() => {
                println!(
                    "{:<9} {error:#}\nset-up leaves it at that: kernels start without the lesson's crates until they compile again",
                    part.name
                );
                return Ok(());
            }
            other => other.with_context(|| format!("set-up stopped at `{}`", part.name))?,
        };
        println!(
            "{:<9} {text} [{}]",
            part.name,
            tools::seconds(start.elapsed())
        );
    }
    println!("set-up is complete [{}]", tools::seconds(began.elapsed()));
    Ok(())
}

fn ready(part: &Part, layout: &Layout, options: &Options) -> Result<String> {
    // A folder that was named on purpose is looked at even when there is a set already.
    let named = part.name == "mnist" && options.mnist.is_some();
    let reason = match (part.check)(layout, false)? {
        Finding::Found(text) if !named => return Ok(text),
        Finding::Found(_) => "from the folder you named".to_owned(),
        Finding::Missing(text) | Finding::Wrong(text) => text,
    };
    println!("{:<9} {reason}", part.name);
    let _turn = locks::turn(&if part.shared {
        layout.cache.clone()
    } else {
        layout.target()
    })?;
    // Somebody else's set-up may have made it while we waited.
    if let (Finding::Found(text), false) = ((part.check)(layout, false)?, named) {
        return Ok(text);
    }
    (part.make)(layout, options)?;
    match (part.check)(layout, false)? {
        Finding::Found(text) => Ok(text),
        Finding::Missing(text) | Finding::Wrong(text) => bail!("made, but still not right: {text}"),
    }
}
