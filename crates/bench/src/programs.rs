//! The programs that are measured, ours and the peers', and how each is told what to do.

/// Who is measured: a program that speaks the protocol of [`crate::contender`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contender {
    /// The name in tables and reports.
    pub name: &'static str,
    /// What is started.
    pub program: Program,
    /// What it is told.
    pub arguments: &'static [&'static str],
    /// Whether it is another commit's ([`crate::other`]).
    pub against: bool,
}

/// A program that can measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// This very program.
    Ours,
    /// A script of `crates/bench/python`, run by the Python that has the peers.
    Peer(&'static str),
    /// A script of `crates/bench/python`, run by the Python that has Jupyter.
    Jupyter(&'static str),
}

const fn contender(
    name: &'static str,
    program: Program,
    arguments: &'static [&'static str],
) -> Contender {
    Contender {
        name,
        program,
        arguments,
        against: false,
    }
}

const KERAS: Program = Program::Peer("keras_worker.py");
const TORCH: Program = Program::Peer("torch_worker.py");

/// Ours in mixed precision.
pub const OURS_MIXED: Contender = contender(
    "ours-mixed",
    Program::Ours,
    &["worker", "--precision", "mixed"],
);
/// Ours in `float32`.
pub const OURS_FLOAT32: Contender = contender(
    "ours-float32",
    Program::Ours,
    &["worker", "--precision", "float32"],
);
pub const OURS_TO_19DB: Contender =
    contender("ours", Program::Ours, &["to-19db", "--start", "calibrated"]);
pub const OURS_TO_19DB_AS_KERAS: Contender =
    contender("ours", Program::Ours, &["to-19db", "--start", "keras"]);
pub const KERNEL: Contender = contender("kernel", Program::Jupyter("kernel_times.py"), &[]);
/// The same cells in Python: ipykernel, Keras, matplotlib.
pub const PYTHON_KERNEL: Contender = contender(
    "python-kernel",
    Program::Peer("kernel_times.py"),
    &["--python"],
);
pub const KERAS_FLOAT32: Contender = contender("keras-float32", KERAS, &["--policy", "float32"]);
pub const KERAS_MIXED: Contender = contender("keras-mixed", KERAS, &["--policy", "mixed_bfloat16"]);
pub const KERAS_TO_19DB: Contender = contender(
    "keras-float32",
    KERAS,
    &["--policy", "float32", "--to-19db", "--start", "keras"],
);
pub const KERAS_TO_19DB_CALIBRATED: Contender = contender(
    "keras-calibrated",
    KERAS,
    &["--policy", "float32", "--to-19db", "--start", "calibrated"],
);
pub const TORCH_FLOAT32: Contender =
    contender("pytorch-float32", TORCH, &["--precision", "float32"]);
pub const TORCH_MIXED: Contender = contender("pytorch-mixed", TORCH, &["--precision", "mixed"]);
pub const TORCH_COMPILE: Contender = contender(
    "torch-compile",
    TORCH,
    &["--precision", "mixed", "--compile"],
);
