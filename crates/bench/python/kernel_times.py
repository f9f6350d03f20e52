"""How long a learner waits, and what a kernel holds: memory and disk.

A worker as the others (see worker.py). Ours is run by the Python that has Jupyter; it talks to kernels through the
notebook runner's own `Kernel`, and its cells are the notebooks': the opening of 01 up to its first picture, and the opening
of 04 with the cells that are tagged `noise-factor` and that call `noise_explorer`. With `--python` the peers' Python
runs it: the same steps in Python (python_cells.py), in ipykernel.

    {"run": "kernel_start"}              -> seconds from a kernel's start until it is ready
    {"run": "first_picture"}             -> seconds from a kernel's start until 01's first picture is there, its cells
                                            run at once
    {"run": "first_cell_after_reading", "seconds": 20} -> seconds of 01's first cell, that long after the kernel's start
    {"run": "edit_to_picture"}           -> seconds from running the cell with another noise level until its picture is
                                            there, in one kernel that stays
    {"run": "compile_error"}             -> seconds from running a cell with a mistake until the words about it are there
    {"run": "explorer"}                  -> seconds from running the explorer's cell until its page is there
    {"run": "kernel_memory"}             -> megabytes of all processes of a kernel, after 01's first picture (proportional set size)
    {"run": "kernel_disk"}               -> megabytes in its build directory that no other has a link to

Requests that stay in one kernel share it; each other request starts a kernel of its own.
"""

import argparse
import contextlib
import json
import platform
import re
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import python_cells

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "crates/lab/python"))

from kernel import Kernel  # noqa: E402
from memory import megabytes  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"
FIRST, DENOISE = "01_*.ipynb", "04_*.ipynb"
TAG, EXPLORER = "noise-factor", "noise_explorer("
LIMIT = 120  # seconds for one cell
# Each edit is another text, or the cell would not be compiled anew.
LEVELS = [round(0.30 + 0.01 * step, 2) for step in range(60)]


class TimedKernel(Kernel):
    """A kernel that remembers when it was started, when a picture or words of failure last came, and when it was done."""

    def __enter__(self):
        self.started, self.picture, self.words, self.idle = time.perf_counter(), None, None, None
        return super().__enter__()

    def _next(self, *arguments):
        message = super()._next(*arguments)
        if message and message["msg_type"] in ("display_data", "execute_result"):
            data = message["content"]["data"]
            if "image/png" in data or "<img" in data.get("text/html", ""):
                self.picture = time.perf_counter()
        if message and message["msg_type"] == "error":
            self.words = self.words or time.perf_counter()
        if message and message["content"].get("execution_state") == "idle":
            self.idle = time.perf_counter()
        return message

    def picture_of(self, code):
        """Runs a cell; when its picture came, or None if it has none. A cell that fails is an error."""
        self.picture = None
        result = self.run(code, LIMIT)
        words = result.text("stderr") + "".join(o.get("evalue", "") for o in result.outputs)
        if result.ended != "idle" or result.status != "ok" or (words.strip() and self.name == "rust"):
            raise RuntimeError(f"this cell failed ({result.ended}, {result.status}): {code}\n{words}")
        return self.picture

    def pid(self):
        return self.manager.provisioner.process.pid


def cells(pattern):
    """The code cells of the one notebook of this name: (source, tags)."""
    [path] = NOTEBOOKS.glob(pattern)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"]), cell["metadata"].get("tags", [])


class Times:
    """Answers requests; holds on to the kernel that edits are made in."""

    def __init__(self, out, stack, name, mnist):
        self.out, self.stack, self.name, self.kernel, self.edits = out, stack, name, None, 0
        python = python_cells.cells(mnist)
        self.first = [source for source, _ in cells(FIRST)] if name == "rust" else python["first"]
        self.denoise = list(cells(DENOISE)) if name == "rust" else python["denoise"]
        self.mistake = "let wrong: i32 = \"ten\";" if name == "rust" else "wrong = nobody_defined_this"

    def new_kernel(self):
        return TimedKernel(NOTEBOOKS, self.out / f"kernel-{self.name}.log", self.name)

    def kernel_start(self, _):
        with self.new_kernel() as kernel:
            return time.perf_counter() - kernel.started

    def to_first_picture(self, kernel):
        for source in self.first:
            if picture := kernel.picture_of(source):
                return picture - kernel.started
        raise RuntimeError("no cell gives a picture")

    def first_picture(self, _):
        with self.new_kernel() as kernel:
            return self.to_first_picture(kernel)

    def first_cell_after_reading(self, request):
        with self.new_kernel() as kernel:
            time.sleep(max(0, request["seconds"] - (time.perf_counter() - kernel.started)))
            start = time.perf_counter()
            result = kernel.run(self.first[0], LIMIT)
            if result.status != "ok":
                raise RuntimeError(f"this cell failed: {self.first[0]}")
            return kernel.idle - start

    def kernel_memory(self, _):
        with self.new_kernel() as kernel:
            self.to_first_picture(kernel)
            time.sleep(2)
            return megabytes(kernel.pid())

    def kernel_disk(self, _):
        with self.new_kernel() as kernel:
            self.to_first_picture(kernel)
            folder = ROOT / "target/kernel/run" / str(kernel.pid())
            files = [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
            return sum(file.st_size for file in files if file.st_nlink == 1) / 1e6

    def staying(self):
        """The kernel that stays, with 04's opening run up to the noise."""
        if self.kernel is None:
            kernel = self.stack.enter_context(self.new_kernel())
            for source, tags in self.denoise:
                kernel.picture_of(source)
                if TAG in tags:
                    self.cell = source
                    break
            else:
                raise RuntimeError(f"no cell of {DENOISE} is tagged {TAG}")
            self.kernel = kernel
        return self.kernel

    def edit_to_picture(self, _):
        kernel, level = self.staying(), LEVELS[self.edits % len(LEVELS)]
        edited, changes = re.subn(r"(noise(?:: f64)? = )[0-9.]+", rf"\g<1>{level}", self.cell, count=1)
        if changes != 1:
            raise RuntimeError(f"expected a line `let noise: f64 = …;` in the cell tagged {TAG}: {self.cell}")
        self.edits += 1
        return self.after(lambda: kernel.picture_of(edited))

    def compile_error(self, _):
        kernel, mistake = self.staying(), f"{self.mistake} " + " " * self.edits
        self.edits += 1
        kernel.words = None

        def words():
            kernel.run(mistake, LIMIT)
            return kernel.words

        return self.after(words)

    def explorer(self, _):
        kernel = self.staying()
        [source] = [source for source, _ in self.denoise if EXPLORER in source]
        self.edits += 1
        return self.after(lambda: kernel.picture_of(source + "\n" * self.edits))

    def after(self, act):
        start = time.perf_counter()
        came = act()
        if came is None:
            raise RuntimeError("the cell showed nothing of what was waited for")
        return came - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the kernels' log")
    parser.add_argument("--python", action="store_true", help="ipykernel instead of ours")
    parser.add_argument("--mnist", type=Path, help="the folder with MNIST, for ipykernel")
    parser.add_argument("--data", type=Path, help="a folder for what workers share")
    parser.add_argument("--threads", type=int, help="not needed here: kernels use what they use by default")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the kernel's shutdown
    name = "python3" if arguments.python else "rust"
    versions = {"python": platform.python_version(), "jupyter-client": version("jupyter-client")}
    if arguments.python:
        versions |= {"ipykernel": version("ipykernel"), "matplotlib": version("matplotlib")}
    ready = {"name": name, "versions": versions, "settings": f"kernel {name}, as it comes"}
    print(json.dumps({"ready": ready}), flush=True)
    with contextlib.ExitStack() as stack:
        times = Times(arguments.out or arguments.data, stack, name, arguments.mnist)
        names = """kernel_start first_picture first_cell_after_reading edit_to_picture compile_error explorer
            kernel_memory kernel_disk""".split()
        for line in sys.stdin:
            request = json.loads(line)
            run = request["run"]
            if run == "exit":
                break
            try:
                if run not in names:
                    raise ValueError(f"unknown request {run!r}; this worker knows {', '.join(names)} and exit")
                answer = {"value": getattr(times, run)(request)}
            except Exception as error:  # whatever it is, the orchestrator has to hear of it
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
