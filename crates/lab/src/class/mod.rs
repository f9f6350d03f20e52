//! `lab class`: a JupyterHub on this machine, with a folder and a kernel for each learner.
//!
//! The hub is the real one, with its proxy from npm; both are installed when they are first asked for: the hub into the
//! project's Python environment, the proxy into the cache. Kernels start from the one warm directory that `make lab`
//! starts from, as links, so that a learner costs 5 MB on disk.

use std::env;
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, anyhow, ensure};
use kernel::machine::layout::Layout;
use kernel::machine::{compilers, locks, tools};
use serde_json::json;

use crate::notebooks::jupyter;
use crate::setup::{net, python};

/// The hub's proxy, an npm package.
const PROXY: &str = "configurable-http-proxy";
/// It and all that it needs, each with its version and its hash (made by `npm install --package-lock-only
/// --omit-lockfile-registry-resolved`).
const LOCKED: [&str; 2] = ["package.json", "package-lock.json"];
/// The user and group that own nothing.
const NOBODY: u32 = 65534;
/// How to come by what it runs on.
const NODE: &str = "install Node.js 20 or later with npm (Debian and Ubuntu: `apt install nodejs npm`; conda: `conda install nodejs`)";

/// What `lab class` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct ClassArgs {
    /// The port to listen on
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// The address to listen on: 0.0.0.0 lets other machines in
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// How many threads a kernel computes with [default: the cores divided by four, at least 1]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Everybody who can reach the hub trusts each other: learners run as whoever starts it, and can read and change each other's files
    #[arg(long)]
    pub trust: bool,
    /// Do not wait for a class: measure what so many learners cost who run notebook 4 at the same time
    #[arg(long, value_name = "LEARNERS", num_args = 1..)]
    pub measure: Vec<usize>,
}

/// Becomes the hub; returns only if that fails, or when all is measured.
pub fn class(layout: &Layout, args: &ClassArgs) -> Result<()> {
    TcpListener::bind((args.host.as_str(), args.port)).map_err(|error| {
        anyhow!("{}:{} cannot be listened on ({error}): stop what uses the port, or choose another with `make class PORT={}`", args.host, args.port, args.port.saturating_add(1))
    })?;
    ensure!(
        args.threads != Some(0),
        "a kernel with 0 threads cannot compute; expected 1 or more"
    );
    let (password, teacher, token) = (password()?, secret(16)?, secret(24)?);
    check_node()?;
    let measuring = !args.measure.is_empty();
    let walls = !measuring && walls(layout, args)?;
    net::loopback_up(layout)?;
    install_hub(layout)?;
    let proxy = install_proxy(layout)?;
    // Not below `target`, which `make clean` removes: what learners write is theirs.
    let folder = layout.root.join("class");
    fs::create_dir_all(folder.join("learners"))
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let lesson = json!({
        "notebooks": layout.notebooks(),
        "class": folder,
        "host": args.host,
        "port": args.port,
        "password": password,
        "teacher": teacher,
        "walls": walls,

        "threads": args.threads.unwrap_or((cores / 4).max(1)),
        "proxy": ["node", proxy],
        "lab": jupyter::settings(),
        "token": measuring.then_some(&token),
    });
    let mut hub = python::command(layout);
    hub.args(["-m", "jupyterhub", "--log-level=WARN", "-f"])
        .arg(ours(layout, "hub_config.py"))
        .current_dir(&folder)
        .env("LESSON_CLASS", lesson.to_string())
        .env("PYTHONPATH", jupyter::python_path(layout));
    let url = format!("http://{}:{}", args.host, args.port);
    if measuring {
        let mut hub = hub.spawn().context("cannot start JupyterHub")?;
        let measured = measure(layout, args, &url, &token, &hub);
        stop(&mut hub)?;
        return measured;
    }
    println!(
        "a class in {}\n  address   {url}\n  password  {password}\nEach learner chooses a name (a to z, 0 to 9) and a word of their own, and types the password.\n\
         You see who has solved which exercise: {url}/services/progress/\n  name      teacher\n  password  {teacher}\n\
         Ctrl-C ends the class; the learners' notebooks stay.",
        folder.display()
    );
    println!(
        "{}",
        match walls {
            true =>
                "Each learner is a user of this machine, lesson-…-<name>, and can change nobody else's files.",
            false => "Learners run as you, and can read and change your files and each other's.",
        }
    );
    if is_local(&args.host) {
        println!(
            "Only this machine can reach it: `make class HOST=0.0.0.0` lets others in, without encryption, so in a network you trust."
        );
    }
    Err(hub.exec()).context("cannot start JupyterHub")
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether each learner is a user of the machine, which only root can bring about. Where that cannot be, others than this machine's own
/// users are let in only if that was said to be right.
fn walls(layout: &Layout, args: &ClassArgs) -> Result<bool> {
    if args.trust {
        return Ok(false);
    }
    let is_root = tools::output(Command::new("id").arg("-u"))? == "0";
    let reason = match is_root {
        false => "only root can make each learner a user of the machine".to_owned(),
        true => match closed(layout)? {
            None => return Ok(true),
            Some(reason) => reason,
        },
    };
    ensure!(
        is_local(&args.host),
        "learners would run as you, and could read and change your files and each other's: {reason}. Or say that everybody who can reach \
         {} trusts each other: `make class HOST={} TRUST=1`",
        args.host,
        args.host
    );
    println!("no walls between learners: {reason}");
    Ok(false)
}

/// Why users of the machine cannot take part, if they cannot.
fn closed(layout: &Layout) -> Result<Option<String>> {
    if let Err(error) = tools::output(Command::new("useradd").arg("--help")) {
        return Ok(Some(format!(
            "the machine's program for new users does not run ({error:#}); it is in /usr/sbin, which may not be on PATH"
        )));
    }
    let mut needed = vec![
        layout.root.join("crates"),
        layout.notebooks(),
        layout.seed(),
        layout.launcher(),
        layout.libtorch()?.join("lib"),
        layout.evcxr(),
        layout.mnist(),
    ];
    needed.extend(compilers::cargo_home().map(|home| home.join("registry")));
    for path in needed {
        let path = path
            .canonicalize()
            .with_context(|| format!("no {}: run `make lab`", path.display()))?;
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for place in above {
            let mode = fs::metadata(place)
                .with_context(|| format!("cannot look at {}", place.display()))?
                .permissions()
                .mode();
            let (wanted, fix) = match (place == path, place.is_dir()) {
                (true, true) => (0o005, "o+rx"),
                (true, false) => (0o004, "o+r"),
                (false, _) => (0o001, "o+x"),
            };
            if mode & wanted != wanted {
                return Ok(Some(format!(
                    "learners as users of the machine cannot read {0}: change that (`chmod {fix} {0}`), or set the lesson up outside of it \
                     (the clone, and the folders DIFFUSION_CACHE, CARGO_HOME and RUSTUP_HOME)",
                    place.display()
                )));
            }
        }
    }
    // And as somebody who may do nothing.
    let programs: [(PathBuf, &[&str]); 2] = [
        (layout.python(), &["-c", "import jupyterlab"]),
        (layout.toolchain().join("real/bin/rustc"), &["--version"]),
    ];
    for (program, arguments) in programs {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/");
        if let Err(error) = tools::output(&mut command) {
            return Ok(Some(format!(
                "learners as users of the machine cannot run it: {error:#}"
            )));
        }
    }
    Ok(None)
}

fn measure(layout: &Layout, args: &ClassArgs, url: &str, token: &str, hub: &Child) -> Result<()> {
    let mut program = python::command(layout);
    program
        .arg(ours(layout, "measure.py"))
        .args(["--url", url, "--hub", &hub.id().to_string()])
        .args(args.measure.iter().map(usize::to_string))
        .env("LESSON_TOKEN", token)
        .env("LESSON_NOTEBOOKS", layout.notebooks());
    tools::run(&mut program)
}

/// Asks the hub to end, which ends the servers and the proxy.
fn stop(hub: &mut Child) -> Result<()> {
    // The shell's own: not every machine has a program of that name.
    let kill = ["-c", "kill \"$0\"", &hub.id().to_string()];
    if let Err(error) = tools::output(Command::new("sh").args(kill)) {
        hub.kill().with_context(|| format!("{error:#}"))?;
    }
    hub.wait().context("JupyterHub is lost").map(drop)
}

fn ours(layout: &Layout, name: &str) -> PathBuf {
    layout.root.join("crates/lab/class").join(name)
}

/// The hub in the project's Python environment: the learners' servers need a part of it there.
fn install_hub(layout: &Layout) -> Result<()> {
    let (wanted, stamp) = (
        ours(layout, "requirements.txt"),
        layout.python_env().join("share/diffusion-class.stamp"),
    );
    let text =
        fs::read_to_string(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let _turn = locks::turn(&layout.target(), locks::SETUP)?;
    let mut pip = python::locked(&layout.python(), &wanted);
    pip.arg("--quiet");
    tools::run_visibly(&mut pip, "installing JupyterHub").context(
        "pip could not install JupyterHub (the network is needed for this once); run the same command again",
    )?;
    tools::write_whole(&stamp, text)
}

/// The proxy is a program for Node.js.
fn check_node() -> Result<()> {
    let found = tools::output(Command::new("node").arg("--version"));
    found.map(drop).with_context(|| {
        format!("JupyterHub's proxy runs on Node.js, and `node` on PATH does not: {NODE}")
    })
}

/// The proxy's program, in the cache.
fn install_proxy(layout: &Layout) -> Result<PathBuf> {
    let locked = LOCKED.map(|name| ours(layout, "proxy").join(name));
    let lock = tools::sha256_file(&locked[1])?;
    let folder = layout.cache.join(format!("{PROXY}-{}", &lock[..12]));
    let program = folder
        .join("node_modules")
        .join(PROXY)
        .join("bin")
        .join(PROXY);
    if program.is_file() {
        return Ok(program);
    }
    let _turn = locks::turn(&layout.cache, PROXY)?;
    let new = layout.downloads().join(PROXY);
    tools::remove_dir(&new)?;
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    for (file, name) in locked.iter().zip(LOCKED) {
        fs::copy(file, new.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--silent"])
        .current_dir(&new);
    tools::run_visibly(&mut npm, "installing JupyterHub's proxy").with_context(|| {
        format!("npm could not install {PROXY} (the network is needed for this once; {NODE}); run the same command again")
    })?;
    tools::remove_dir(&folder)?;
    fs::rename(&new, &folder).with_context(|| format!("cannot rename {}", new.display()))?;
    Ok(program)
}

/// The class's password: `LESSON_PASSWORD`, else a new one that can be read out.
fn password() -> Result<String> {
    match env::var("LESSON_PASSWORD")
        .ok()
        .filter(|text| !text.is_empty())
    {
        Some(text) => {
            ensure!(
                text.len() >= 8,
                "LESSON_PASSWORD has {} characters; expected at least 8",
                text.len()
            );
            Ok(text)
        }
        None => secret(5),
    }
}

/// Random bytes of the system, in hex.
fn secret(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    let mut source =
        fs::File::open(Path::new("/dev/urandom")).context("the system gives no random numbers")?;
    std::io::Read::read_exact(&mut source, &mut random)?;
    Ok(tools::hex(&random))
}
