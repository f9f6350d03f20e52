"""What a notebook user takes for granted, tried in a real kernel; `cells.rs` calls one part after another.

Each part is a function. It raises AssertionError with all that a person needs to see what went wrong.
"""

import json
import random
import re
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
for folder in ("python", "server"):
    sys.path.insert(0, str(ROOT / "crates/lab" / folder))

from kernel import Kernel, Result  # noqa: E402
from lesson_server import question, unfinished  # noqa: E402

DIGITS = """let mnist: Mnist = Mnist::load()?;
let clean: Tensor = mnist.test.images(10)?;
let noisy: Tensor = add_noise(&clean, 0.5)?;"""
SIZE = "[10, 1, 28, 28]"
TEXT_OF_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def errors(result: Result) -> str:
    """All that a cell's outputs say about a failure."""
    words = [result.text("stderr")]
    words += ["\n".join(o.traceback) or o.evalue for o in result.outputs if o.output_type == "error"]
    return TEXT_OF_COLOURS.sub("", "\n".join(filter(None, words))).strip()


def shown(result: Result, mime: str = "text/plain") -> str:
    return "\n".join(o.data[mime] for o in result.outputs if mime in o.get("data", {}))


class Cells:
    """A kernel with ten digits in it, which must answer after whatever a test does to it."""

    def __init__(self, folder: Path):
        self.kernel = Kernel(folder, folder / "cells.log")

    def __enter__(self):
        self.kernel.__enter__()
        self.well(DIGITS)
        return self

    def __exit__(self, *_):
        self.kernel.stop()

    def run(self, code: str, limit: float = 60) -> Result:
        result = self.kernel.run(code, limit)
        assert result.ended == "idle", f"{code!r} {result.ended} after {limit} s: {result.outputs}"
        return result

    def well(self, code: str) -> Result:
        result = self.run(code)
        assert result.status == "ok" and not errors(result), f"{code!r}: {errors(result)}"
        return result

    def answers(self, after: str):
        result = self.run("clean.size()", 10)
        assert SIZE in shown(result), f"`clean` is gone after {after!r}: {errors(result)}"

    def press(self):
        self.kernel.manager.interrupt_kernel()

    def stopped(self, code: str, after: float) -> tuple[Result, float]:
        """Runs a cell that prints BEGINS, presses Stop some time after that, and says how long the cell took to end."""
        client, pressed = self.kernel.client, threading.Event()
        request, result = client.execute('println!("BEGINS");\n' + code, allow_stdin=False), Result()
        moment, deadline = None, time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline, f"{code!r} did not end; it said {result.outputs}"
            message = self.kernel._next(client.get_iopub_msg, request, 0.02)
            if moment and not pressed.is_set() and time.monotonic() >= moment:
                self.press()
                pressed.set()
                since = time.monotonic()
            if not message:
                continue
            result.add(message)
            if moment is None and "BEGINS" in result.text("stdout"):
                moment = time.monotonic() + after
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        assert pressed.is_set(), f"{code!r} ended before Stop was pressed: {errors(result)}"
        seconds = time.monotonic() - since
        client.get_shell_msg(timeout=5)
        while message := self.kernel._next(client.get_iopub_msg, request, 0.05):
            result.add(message)
        return result, seconds


def stop(cells: Cells, times: int):
    """Stop at random moments of a training, a sampling and an evaluation, a third of the times each."""
    cells.well(
        """let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
let pairs: Pairs = mnist.train.noisy(0.5)?;
let unet: Unet = Unet::trained("unet")?;
let long: Fit = Fit { epochs: 100, validation: 1000, ..Fit::default() };"""
    )
    whats = {
        "training": "let history: History = cnn.fit(&pairs, &long)?;",
        "sampling": "let drawn: Samples = sample(&unet, &[Some(3); 40], &Sampler::ddim(200))?;",
        "evaluation": "let scores: Scores = Scores::of(&mnist.train, 0.5, |noisy| cnn.predict(noisy))?;",
    }
    chance, slowest = random.Random(7), 0.0
    for number in range(times):
        what = list(whats)[number % 3]
        after = chance.uniform(0, 2.0)
        result, seconds = cells.stopped(whats[what], after)
        where = f"{what} stopped after {after:.2f} s (try {number})"
        assert seconds < 1, f"{where} took {seconds:.2f} s to end: {result.outputs}"
        slowest = max(slowest, seconds)
        words = errors(result)
        if what == "training":
            assert not words, f"{where}: {words}"
            assert "true" in shown(cells.run("history.stopped")), where
        else:
            assert words.splitlines()[0] == "stopped", f"{where}: {words}"
        cells.answers(where)
        assert SIZE in shown(cells.run("cnn.predict(&clean)?.size()")), where
    print(f"{times} stops, the slowest took {slowest:.2f} s")


def wait(cells: Cells, _):
    """Stop ends the waiting for a training in the background, and not the training."""
    cells.well(
        """let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
let training: Training<Network> =
    cnn.fit_in_background(&mnist.train.noisy(0.5)?, &Fit { epochs: 100, ..Fit::default() }, "saved/wait")?;"""
    )
    result, seconds = cells.stopped("training.wait()?;", 0.5)
    assert seconds < 1 and "the training goes on" in errors(result), f"{seconds:.2f} s: {errors(result)}"
    assert "true" in shown(cells.run("training.is_running()"))
    cells.well("training.stop();\nlet (trained, history): (Network, History) = training.wait()?;")
    assert "true" in shown(cells.run("history.stopped"))


def deaf(cells: Cells, _):
    """A cell that does not look at Stop says so, and the second press ends it."""
    result, _ = cells.stopped("std::thread::sleep(std::time::Duration::from_secs(5));", 0.3)
    assert "does not look at Stop" in result.text("stderr"), result.outputs
    cells.answers("one press")
    again = threading.Timer(3.5, cells.press)
    again.start()
    result, seconds = cells.stopped("loop {}", 0.3)
    assert seconds < 3.5 + 5, f"{seconds:.2f} s"
    assert result.text("stderr").count("all variables are lost:") == 1, result.outputs
    assert "mnist" in errors(cells.run("mnist")), "variables are there after all?"
    # What runs in the new process is stopped as well.
    cells.well(DIGITS)
    result, _ = cells.stopped("std::thread::sleep(std::time::Duration::from_secs(3));", 0.1)
    assert "does not look at Stop" in result.text("stderr"), result.outputs
    cells.answers("a press in the new process")
    # While a cell compiles there is nothing to stop.
    presses = [threading.Timer(after / 10, cells.press) for after in range(1, 4)]
    for press in presses:
        press.start()
    assert "7" in shown(cells.well("let seven: i64 = 7;\nseven"))


def short(cells: Cells, _):
    """Errors: at most six lines, the cause first, then the line of the cell."""
    size = "The size of tensor a (28) must match the size of tensor b (3) at non-singleton dimension 3"
    three = "Tensor::zeros([3], (Kind::Float, Device::Cpu))"
    for code, cause, line in (
        ("noisy.reshape(&[7, 7]);", "shape '[7, 7]' is invalid for input of size 7840", "noisy.reshape(&[7, 7]);"),
        ("noisy.reshape(&[7, 7])", "shape '[7, 7]' is invalid for input of size 7840", "noisy.reshape(&[7, 7])"),
        (f"let y: Tensor =\n    &noisy + {three};", size, f"&noisy + {three};"),
        (f"fn f(x: &Tensor) -> Tensor {{\n    x * {three}\n}}\nlet y: Tensor = f(&noisy);", size, f"x * {three}"),
        ("let v: Vec<i64> = vec![1];\nlet at: usize = 5;\nv[at]", "index out of bounds: the len is 1 but the index is 5", "v[at]"),
        ("let none: Option<i64> = None;\nnone.unwrap();", "called `Option::unwrap()` on a `None` value", "none.unwrap();"),
        ("assert_eq!(1, 2);", "assertion `left == right` failed", "assert_eq!(1, 2);"),
        ('panic!("the cell gave up");', "the cell gave up", 'panic!("the cell gave up");'),
        ("noisy.f_reshape(&[7, 7])?;", "Torch(\"shape '[7, 7]' is invalid for input of size 7840\")", ""),
        ("add_noise(&clean, -3.0)?;", "the noise level is -3; expected a number from 0 up (0.5 is the lesson's)", ""),
        ('Unet::trained("nothing")?;', "", ""),
    ):
        words = errors(cells.run(code)).splitlines()
        assert words and len(words) <= 6, f"{code!r}: {words}"
        assert words[0] == cause or not cause, f"{code!r}: {words}"
        assert not line or f"panicked at: {line}" in words, f"{code!r}: {words}"
        cells.answers(code)
    # A loss of a cell panics in the threads of a training.
    loss = """fn loss(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(prediction.reshape([7, 7]).mean(Kind::Float) + target.mean(Kind::Float))
}
let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?;
cnn.compile(Adam::new(0.001), Loss::Custom(loss));
let history: History = cnn.fit(&mnist.train.noisy(0.5)?, &Fit::default())?;"""
    words = errors(cells.run(loss)).splitlines()
    assert words[0].startswith("shape '[7, 7]' is invalid for input of size"), words
    assert len(words) <= 6 and "prediction.reshape([7, 7])" in words[1], words
    cells.answers(loss)
    words = errors(cells.run("unsafe { *(8 as *mut i32) = 1; }")).splitlines()
    assert words[0] == "Segmentation fault." and len(words) <= 6, words


HALF_TYPED = (
    "let a = std::", "0,5", 'rows(&[("noisy", &noisy)', 'println!("hello);', ":dep", ")", "]", "{", "fn f(", "struct",
    "let x", "let x =", "let x: Tensor = ", "for i in", "for i in 0..3 {", "if true", "match 3 {", "clean.",
    "clean.size(", "'a", "#[", "&", 'r#"', ":unknown", "impl X for", "let x = |a", "macro_rules! m", "let y = x?",
)  # fmt: skip
# The kernel takes these for nothing; in JupyterLab the server says what is wrong.
MUTE = ("}", "/* open", "use diffusion::", "let")


def half(cells: Cells, _):
    """Half-typed cells: an answer within 5 s, words about what is wrong, and a kernel that lives."""
    for code in HALF_TYPED + MUTE:
        start = time.monotonic()
        result = cells.run(code, 10)
        seconds = time.monotonic() - start
        assert seconds < 5, f"{code!r} took {seconds:.1f} s"
        assert code in MUTE or (result.status == "error" and errors(result)), f"{code!r}: {result.outputs}"
        cells.answers(code)


def text(cells: Cells, _):
    """What is printed arrives, whole and in its own cell; nothing waits for a keyboard."""
    progress = 'use std::io::Write;\nfor p in 0..3 { print!("\\r{p} %"); std::io::stdout().flush()?; };'
    assert cells.well(progress).text("stdout").strip().endswith("2 %")
    assert cells.well('print!("no line end");').text("stdout").strip() == "no line end"
    result = cells.well('print!("before"); rows(&[("noisy", &noisy)])')
    assert result.text("stdout").strip() == "before" and "<img" in shown(result, "text/html")
    words = errors(cells.run('eprint!("no line end, in red");'))
    assert words == "no line end, in red", words
    start = time.monotonic()
    result = cells.run('let mut line: String = String::new();\nstd::io::stdin().read_line(&mut line)?;\nline.len()')
    assert time.monotonic() - start < 2 and shown(result) == "0", result.outputs
    assert "no keyboard" in result.text("stdout"), result.outputs
    cells.answers("reading the keyboard")
    cells.well(
        """std::thread::spawn(|| for number in 0..20 {
    println!("from the thread {number}");
    std::thread::sleep(std::time::Duration::from_millis(100));
});"""
    )
    pause = "std::thread::sleep(std::time::Duration::from_millis(800));"
    lines = cells.well(f'{pause}\nprintln!("from the cell");').text("stdout").splitlines()
    assert "from the cell" in lines, lines
    others = [line for line in lines if "thread" in line]
    assert others and all(line.startswith("(from an earlier cell) from the thread") for line in others), lines
    # A thread of the same cell is no other's.
    joined = 'std::thread::spawn(|| println!("from my own thread")).join().ok();'
    assert "\nfrom my own thread" in "\n" + cells.well(f"{pause}\n{pause}\n{pause}\n{joined}").text("stdout")


# Every function of the prelude that gives a value, and what one does with the types.
UNTYPED = """Batch::first(&mnist.train, 4)?
gaussian_filter(&noisy, 1.0)?
median_filter(&noisy)?
Mnist::load()?
mnist.train.first(5)?
noise_explorer(&cnn, &clean)
diffusion_explorer(&unet, &Sampler::ddim(2), &clean.narrow(0, 0, 1), &[Some(3)])
guidance_explorer(&unet, &clean.narrow(0, 0, 1))
digit_classifier()
lesson_cnn()
Network::new([28, 28, 1], lesson_cnn())?
Scores::of(&mnist.test.first(50)?, 0.5, median_filter)?
mean_psnr(&clean, &noisy)?
psnr(&clean, &noisy)?
psnr(&clean, &noisy)
add_noise(&clean, 0.5)?
Sampler::ddim(2)
sample(&unet, &[Some(3)], &Sampler::ddim(2))?
balanced_classes(10)
with_labels(&[1, 2])
Schedule::cosine(100)?
unet.schedule().timesteps(5)?
unet.schedule().alpha_bar().clone()
centred(&clean)
to_pixels(&centred(&clean))
Reference::new(&classifier, &mnist.train.first(500)?, &mnist.test.first(500)?, 200)?
class_accuracy(&classifier, &clean, &mnist.test.labels(10)?)?
Unet::trained("unet")?
UnetConfig::default()
Pad::new("saved/pad.png", 28)?
Series::new("a", [(0.0, 1.0)])
compare(("a", &clean), ("b", &noisy))
curve("title", ("x", "y"), &[Series::new("a", [(0.0, 1.0), (1.0, 2.0)])])
grid(&clean, 5)
histogram("title", "x", &[("a", &clean)])
rows(&[("a", &clean)])
rows_with_captions(&[("a", &clean)], &[""; 10])
scatter(&[("a", &Tensor::zeros([5, 2], (Kind::Float, Device::Cpu)))])
scatter_animation(&[Tensor::zeros([5, 2], (Kind::Float, Device::Cpu))])
table(&["a"], vec![vec!["b".to_owned()]], "caption")
Array1::from_vec(vec![1.0])
Array2::<f64>::zeros((2, 2))
Initialisation::Keras
conv2d(16, 3).relu()
conv2d_transpose(16, 3)
dense(64)
flatten()
group_norm(4)
max_pooling2d(2)
up_sampling2d(2)
reshape([28, 28, 1])
Adam::new(0.001)
Sgd::new(0.1)
Loss::BinaryCrossEntropy
binary_cross_entropy(&clean, &clean)?
mean_squared_error(&clean, &noisy)?
mnist.train.noisy(0.5)?
mnist.train.noisy(0.5)?.batch(0, 4)?
Rng::new(3).normal(&[2])
Fit::default()
Tensor::zeros([2], (Kind::Float, Device::Cpu))
noisy.f_reshape([10, 784])
clean.size()""".splitlines()


def untyped(cells: Cells, _):
    """A `let` without a type compiles, whatever function of the prelude gives the value."""
    cells.well(
        """let cnn: Network = Network::trained("cnn")?;
let classifier: Network = Network::trained("classifier")?;
let unet: Unet = Unet::trained("unet")?;"""
    )
    for start in range(0, len(UNTYPED), 10):
        lets = [f"let value_{number} = {code};" for number, code in enumerate(UNTYPED[start : start + 10])]
        cells.well("\n".join(lets))


def hidden(cells: Cells, _):
    """A variable that hides a function is explained, and can be forgotten."""
    for name, value, use in (
        ("psnr", "psnr(&clean, &noisy)?", "let again = psnr(&clean, &noisy)?;"),
        ("grid", "7", "grid(&clean, 5)"),
    ):
        cells.well(f"let {name} = {value};")
        words = " ".join(errors(cells.run(use)).split())
        forget = f"let {name} = String::new(); drop({name});"
        assert f"the variable `{name}` hides the function" in words and forget in words, words
        cells.well(forget)
        cells.well(use)


def asked(cells: Cells, kind: str, code: str, cursor: int) -> tuple[dict, float]:
    """The kernel's answer to Tab (`complete`) or Shift-Tab (`inspect`), and how long it took."""
    client, start = cells.kernel.client, time.monotonic()
    request = getattr(client, kind)(code, cursor)
    answer = cells.kernel._next(client.get_shell_msg, request, 20)
    assert answer, f"no answer to {kind} at {cursor} of {code!r}"
    return answer["content"], time.monotonic() - start


def tab(cells: Cells, times: int):
    """Tab and Shift-Tab at every ninth position of the notebooks' cells: an answer within 2 s, and a kernel that lives.

    `times` notebooks from the first on, or all. Shift-Tab asks as JupyterLab's server does.
    """
    slowest, positions, found = 0.0, 0, 0
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))[: times or None]:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            code = "".join(cell["source"])
            for cursor in range(0, len(code), 9):
                for kind, place in (("complete", (code, cursor)), ("inspect", question(code, cursor))):
                    answer, seconds = asked(cells, kind, *place)
                    where = f"{path.name}: {kind} at {cursor} of {code!r}"
                    assert seconds < 2, f"{where} took {seconds:.1f} s"
                    slowest, positions = max(slowest, seconds), positions + 1
                    found += bool(answer.get("found"))
            cells.answers(f"Tab in {code!r}")
    print(f"{positions} answers, the slowest after {slowest:.2f} s; Shift-Tab showed something {found} times")


def shift_tab(cells: Cells, _):
    """Shift-Tab within a name and between the brackets of a call, as JupyterLab's server asks."""
    for code, marked in (
        ("let x: Tensor = add_noise(&clean, 0.5)?;", "add_n|oise"),
        ("let x: Tensor = add_noise(&clean, 0.5)?;", "0.|5"),
        ("let x: Tensor = add_noise(&clean, 0.5)?;", "&clean,| "),
        ('rows(&[("original", &clean), ("noisy", &add_noise(&clean, 0.5)?)])', "&clean, 0|.5"),
        ('rows(&[("original", &clean), ("noisy", &noisy)])', '"orig|inal"'),
        ("clean.reshape([10, 784]).mean(Kind::Float)", "resh|ape"),
        ("clean.reshape([10, 784]).mean(Kind::Float)", "10,| 784"),
        ("let fit: Fit = Fit { epochs: 2, ..Fit::default() };", "epochs:| 2"),
    ):
        cursor = code.index(marked.replace("|", "")) + marked.index("|")
        answer, seconds = asked(cells, "inspect", *question(code, cursor))
        assert answer["found"] and seconds < 2, f"{marked} in {code!r}: {answer}, {seconds:.1f} s"


def words(_, __):
    """What the server says about cells of which the kernel makes nothing, and that it says nothing about the lesson's."""
    for code in MUTE:
        assert unfinished(code), code
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            code = "".join(cell["source"])
            assert cell["cell_type"] != "code" or not unfinished(code), f"{path.name}: {unfinished(code)}\n{code}"
    for code in ("// }", "/* /* */ } */", 'r#"}"# ', "'}';", '"\\"}";', "let a: &'static str = \"{\";", ""):
        assert not unfinished(code), f"{code!r}: {unfinished(code)}"


def main():
    name, folder, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    with Cells(folder) as cells:
        globals()[name](cells, times)


if __name__ == "__main__":
    main()
