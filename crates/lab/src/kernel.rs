//! `lab kernel`: what `kernel.json` starts.
//!
//! Each kernel gets a build directory of its own, made of second names of the warm one's files: two kernels in one
//! directory would overwrite each other's cells. Then this process *becomes* evcxr_jupyter, so that
//! Jupyter's signals and process ids are the kernel's own. The directory is removed by a janitor,
//! a small process in a group of its own that waits for the kernel to end, however it ends.
//!
//! What it costs and saves, in seconds on two cores, from the start of a kernel (Jupyter's question
//! for readiness comes only once a second):
//!
//! | the configuration holds | ready | `:dep` and `use` | first `let` | later cells | first picture if all run at once |
//! | --- | --- | --- | --- | --- | --- |
//! | nothing | 5.0 | 1.3 | 3.9 | 0.3-0.5 | 11.1 |
//! | `:dep` | 5.9 | 0.3 | 3.9 | 0.3-0.5 | 11.0 |
//! | `:dep`, `use` and a `let` | 10.0 | 0.3 | 1.0 | 0.3-0.5 | 12.2 |
//! | the same, and the analyzer sees less ([`crate::analyzer`]) | 6.0 | 0.4 | 0.9 | 0.3-0.5 | 7.1 |
//!
//! The configuration of the last two lines is what set-up writes: who reads the first paragraph never waits for a cell.
//!
//! Where the rest went, on another machine that takes twice as long for everything (medians of four or five starts, all cells run at
//! once; the machine's own speed moves by a tenth):
//!
//! | | first picture |
//! | --- | --- |
//! | the last line above | 11.4-13.7 |
//! | cargo answers from memory, and compilers run without it ([`crate::cargo`]): 20 calls, 2.5 s | 11.5 |
//! | the warm directory is lent, not copied: of its 2,400 files 1,600 were small copies, 1.5 s ([`tree::lend`]) | 10.0-10.4 |
//! | the standard library without comments, 1.0 s of the analyzer's work | 9.3 |
//! | and without bodies, and the same of `tch` and `ndarray` ([`crate::thin`]) | 7.9 |
//! | cells linked with one shared library ([`crate::cell_linker`]) | 7.7 |
//!
//! Of these 7.7 s the analyzer works for 4: parsing, expanding the standard library's macros, and finding the traits that a `let` needs.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::{cell_library, cells, local, memory, seed, tools, tree};

/// Where Jupyter tells a kernel the id of the server's process.
const SERVER: &str = "JPY_PARENT_PID";
/// Held locked by the janitor for as long as the directory is in use.
const OWNER: &str = "owner";

/// Prepares the directory and becomes the kernel. Returns only if that fails.
pub fn kernel(layout: &Layout, connection: &Path) -> Result<()> {
    become_kernel(layout, connection, &layout.evcxr())
}

fn become_kernel(layout: &Layout, connection: &Path, program: &Path) -> Result<()> {
    if !connection.is_file() {
        bail!(
            "no connection file {}: this verb is for Jupyter, which makes one",
            connection.display()
        );
    }
    if !layout.seed().is_dir() {
        bail!(
            "there is no warm build directory in {} yet: run `make lab`",
            layout.seed().display()
        );
    }
    let own = own_directory(layout)?;
    let house = seed::house_lock(layout)?;
    house
        .lock_shared()
        .context("cannot lock the kernels' folder")?;
    // Without their names the local crates' files could not be told from those that may be lent.
    let crates = local::crates(layout);
    let fresh = crates.is_ok() && seed::is_fresh(layout);
    match &crates {
        Ok(crates) if fresh => tree::lend(
            &layout.seed(),
            &own,
            &|path| seed::may_be_lent(path, crates),
            &seed::is_only_for_rebuilding,
        ),
        _ => tree::clone(&layout.seed(), &own),
    }
    .context("cannot copy the warm build directory")?;
    drop(house);
    let memory = own.join(memory::FOLDER);
    if !fresh {
        // What is in it was learned about libraries that are about to be replaced.
        tools::remove_dir(&memory)?;
    }
    fs::create_dir_all(&memory).with_context(|| format!("cannot make {}", memory.display()))?;

    let mut evcxr = Command::new(program);
    tools::without_cargo_variables(&mut evcxr);
    // Without rustup, evcxr takes the first cargo on PATH.
    let mut path = layout.toolchain().join("bin").into_os_string();
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    evcxr.env("PATH", path);
    evcxr
        .arg("--control_file")
        .arg(connection)
        .env("EVCXR_TMPDIR", own.join("cell"))
        // evcxr "updates" a kernel spec called `rust` that it finds in the user's folder, though it
        // may be somebody else's. In a folder that does not exist it finds none.
        .env("JUPYTER_PATH", own.join("no-kernel-specs"))
        .envs(cell_library::variables(layout));
    if !fresh {
        // A local crate was edited. Cargo compiles it here, now; if it does not compile, the
        // kernel must start all the same, so that the notebook can show the compiler's words.
        eprintln!("lab kernel: the lesson's crates changed, compiling them for this kernel");
        if let Err(error) = cells::compile(layout, &own, false) {
            eprintln!(
                "lab kernel: the lesson's crates do not compile, so the kernel starts without them:\n{error:#}"
            );
            evcxr.env("EVCXR_CONFIG_DIR", layout.kernel().join("config-plain"));
        }
    }
    let error = evcxr.exec();
    Err(error).with_context(|| {
        format!(
            "cannot start the kernel {}: run `make lab`",
            program.display()
        )
    })
}

/// Removes what crashed kernels left, makes a directory for this process, and starts its janitor.
fn own_directory(layout: &Layout) -> Result<PathBuf> {
    let house = seed::house_lock(layout)?;
    house.lock().context("cannot lock the kernels' folder")?;
    fs::create_dir_all(layout.runs())
        .with_context(|| format!("cannot make {}", layout.runs().display()))?;
    sweep(&layout.runs())?;
    let id = std::process::id();
    let mut own = layout.runs().join(id.to_string());
    // A process id comes round again; the last one's janitor may still be at work.
    for again in 1.. {
        match fs::create_dir(&own) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                own = layout.runs().join(format!("{id}-{again}"))
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", own.display()));
            }
        }
    }
    let path = own.join(OWNER);
    let owner = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    owner
        .lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    // The lock belongs to the open file, which the janitor holds as its standard input.
    Command::new(env::current_exe()?)
        .args(["janitor", &id.to_string()])
        .arg(&own)
        .args(env::var(SERVER).ok().filter(|id| id.parse::<u32>().is_ok()))
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::from(owner))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the janitor of the kernel's directory")?;
    Ok(own)
}

/// Removes every directory below `runs` that nobody owns any more.
pub fn sweep(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)
        .with_context(|| format!("cannot read {}", runs.display()))?
        .flatten()
    {
        let free = match File::open(entry.path().join(OWNER)) {
            Ok(owner) => owner.try_lock().is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if free {
            tools::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// `lab janitor`: waits until `kernel`, which started this process, has ended, and removes its
/// directory. The system tells by giving this process another parent: that takes no signal, works
/// after any kind of end, and cannot mistake a later process with the same id for the kernel.
///
/// `server` is the Jupyter server that asked for the kernel. evcxr does not notice when that is gone, as after a crash or
/// when a hub ends, and would hold its memory for ever: so the kernel is ended then.
pub fn janitor(kernel: u32, folder: &Path, server: Option<u32>) {
    let (mut looks, mut requests) = (0u32, 0);
    while parent_id() == kernel {
        thread::sleep(Duration::from_millis(250));
        looks += 1;
        if looks.is_multiple_of(8) && server.is_some_and(|server| !lives(server)) {
            end(kernel, if requests < 3 { "TERM" } else { "KILL" });
            requests += 1;
        }
    }
    // A compiler that outlives the kernel may still write.
    for _ in 0..120 {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Whether there is a process of this id. Asking takes a program, since the standard library has no such question.
fn lives(process: u32) -> bool {
    let asked = Command::new("kill")
        .args(["-0", &process.to_string()])
        .stderr(Stdio::null())
        .status();
    !asked.is_ok_and(|status| status.code() == Some(1))
}

/// Sends a signal to the kernel and to what it has started: Jupyter gives each kernel a process group of its own.
fn end(kernel: u32, signal: &str) {
    for whom in [format!("-{kernel}"), kernel.to_string()] {
        let _ = Command::new("kill")
            .args(["-s", signal, "--", &whom])
            .stderr(Stdio::null())
            .status();
    }
}
