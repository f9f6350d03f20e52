//! `lab setup`: whatever is missing, and nothing that is there.

use std::fs::File;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kernel::machine::layout::Layout;
use kernel::machine::tools::Running;
use kernel::machine::{compilers, locks, tools};
use kernel::renewal::DoesNotCompile;

use part::{Finding, Make, Options, Part};

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
        make: Make::InTurn(|_, _| compilers::check().map(drop)),
        shared: false,
    },
    Part {
        name: "places",
        check: places::check,
        make: Make::InTurn(places::make),
        shared: false,
    },
    Part {
        name: "python",
        check: python::check,
        make: Make::InTurn(python::make),
        shared: false,
    },
    Part {
        name: "libtorch",
        check: libtorch::check,
        make: Make::InTurn(libtorch::make),
        shared: true,
    },
    Part {
        name: "mnist",
        check: mnist::check,
        make: Make::InTurn(mnist::make),
        shared: true,
    },
    Part {
        name: "evcxr",
        check: evcxr::check,
        make: Make::Meanwhile {
            begin: evcxr::begin,
            end: evcxr::end,
        },
        shared: true,
    },
    Part {
        name: "programs",
        check: programs::check,
        make: Make::InTurn(programs::make),
        shared: false,
    },
    Part {
        name: "kernel",
        check: spec::check,
        make: Make::InTurn(spec::make),
        shared: false,
    },
    Part {
        name: "analyzer",
        check: analyzer::check,
        make: Make::InTurn(analyzer::make),
        shared: false,
    },
    Part {
        name: "seed",
        check: seed::check,
        make: Make::InTurn(seed::make),
        shared: false,
    },
    Part {
        name: "rehearsal",
        check: rehearsal::check,
        make: Make::InTurn(rehearsal::make),
        shared: false,
    },
];

/// How many of the parts only look at the machine. What is made meanwhile begins after them.
const LOOKS: usize = 2;

/// Something that is being made meanwhile.
struct Begun {
    part: &'static str,
    program: Running,
    turn: File,
}

/// Goes through the parts; a line for each, with the time that it took.
///
/// # Errors
/// The first part that cannot be made. Programs that were at work meanwhile are ended.
pub fn setup(layout: &Layout, options: &Options) -> Result<()> {
    let whole = Instant::now();
    let mut begun = Vec::new();
    for (at, part) in PARTS.iter().enumerate() {
        if at == LOOKS {
            begun = begin(layout)?;
        }
        for other in &mut begun {
            // Not first after all downloads.
            let looked = other.program.look();
            looked.with_context(|| stopped(other.part))?;
        }
        let at_work = begun.iter().find(|begun| begun.part == part.name);
        let start = at_work.map_or_else(Instant::now, |begun| begun.program.began);
        let text = match ready(part, layout, options, &mut begun) {
            // Somebody works on the lesson's crates: notebooks open all the same, and a cell shows the compiler's words.
            Err(error) if error.is::<DoesNotCompile>() && layout.seed().is_dir() => {
                println!(
                    "{:<9} {error:#}\nset-up leaves it at that: kernels start without the lesson's crates until they compile again",
                    part.name
                );
                return Ok(());
            }
            other => other.with_context(|| stopped(part.name))?,
        };
        println!(
            "{:<9} {text} [{}]",
            part.name,
            tools::seconds(start.elapsed())
        );
    }
    println!("set-up is complete [{}]", tools::seconds(whole.elapsed()));
    Ok(())
}

fn stopped(part: &str) -> String {
    format!("set-up stopped at `{part}`")
}

/// Begins what can be made meanwhile: compilers need the processor, and downloads the network. What somebody else is making is waited for
/// in its turn.
fn begin(layout: &Layout) -> Result<Vec<Begun>> {
    let mut begun = Vec::new();
    for part in PARTS {
        if let Make::Meanwhile { begin, .. } = part.make
            && let Finding::Missing(reason) | Finding::Wrong(reason) = (part.check)(layout, false)?
            && let Some(turn) = locks::turn_if_free(&layout.cache, part.name)?
            // A set-up that ended between the look and the lock has made it.
            && !matches!((part.check)(layout, false)?, Finding::Found(_))
        {
            println!("{:<9} {reason}", part.name);
            let program = begin(layout).with_context(|| stopped(part.name))?;
            begun.push(Begun {
                part: part.name,
                program,
                turn,
            });
        }
    }
    Ok(begun)
}

fn ready(
    part: &Part,
    layout: &Layout,
    options: &Options,
    begun: &mut Vec<Begun>,
) -> Result<String> {
    let program = begun.extract_if(.., |begun| begun.part == part.name).next();
    let (program, _turn) = match program {
        Some(begun) => (Some(begun.program), begun.turn),
        None => match look(part, layout, options)? {
            Look::There(text) => return Ok(text),
            Look::Ours(turn) => (None, turn),
        },
    };
    match part.make {
        Make::InTurn(make) => make(layout, options)?,
        Make::Meanwhile { begin, end } => {
            end(layout, program.map_or_else(|| begin(layout), Ok)?)?;
        }
    }
    match (part.check)(layout, false)? {
        Finding::Found(text) => Ok(text),
        Finding::Missing(text) | Finding::Wrong(text) => bail!("made, but still not right: {text}"),
    }
}

/// What a look at a part leads to.
enum Look {
    /// It is there.
    There(String),
    /// It is ours to make, while we hold this lock.
    Ours(File),
}

fn look(part: &Part, layout: &Layout, options: &Options) -> Result<Look> {
    // A folder that was named on purpose is looked at even when there is a set already.
    let named = part.name == "mnist" && options.mnist.is_some();
    let reason = match (part.check)(layout, false)? {
        Finding::Found(text) if !named => return Ok(Look::There(text)),
        Finding::Found(_) => "from the folder you named".to_owned(),
        Finding::Missing(text) | Finding::Wrong(text) => text,
    };
    println!("{:<9} {reason}", part.name);
    let turn = match part.shared {
        true => locks::turn(&layout.cache, part.name)?,
        false => locks::turn(&layout.target(), locks::SETUP)?,
    };
    // Somebody else's set-up may have made it while we waited.
    if let (Finding::Found(text), false) = ((part.check)(layout, false)?, named) {
        return Ok(Look::There(text));
    }
    Ok(Look::Ours(turn))
}
