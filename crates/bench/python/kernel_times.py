"""How long a learner waits: for a kernel, for its first picture, and for a picture after an edit.

A worker as the others (see worker.py), run by the Python that has Jupyter; it talks to kernels through the
notebook runner's own `Kernel`. The cells are the notebooks': the opening of 01 up to its first picture, and
the opening of 04 up to the cell that is tagged `noise-factor`.

    {"run": "kernel_start"}     -> {"value": seconds from a kernel's start until it is ready}
    {"run": "first_picture"}    -> {"value": seconds from a kernel's start until 01's first picture is there,
                                             its cells run at once}
    {"run": "edit_to_picture"}  -> {"value": seconds from running the cell with another noise level until its
                                             picture is there}, in one kernel that stays

Each request but the last starts a kernel of its own.
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

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "crates/lab/python"))

from kernel import Kernel  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"
FIRST, DENOISE = "01_*.ipynb", "04_*.ipynb"
TAG = "noise-factor"
LIMIT = 120  # seconds for one cell
# Each edit is another text, or the cell would not be compiled anew.
LEVELS = [round(0.30 + 0.01 * step, 2) for step in range(60)]


class TimedKernel(Kernel):
    """A kernel that remembers when it was started, and when a picture last came out of it."""

    def __enter__(self):
        self.started, self.picture = time.perf_counter(), None
        return super().__enter__()

    def _next(self, *arguments):
        message = super()._next(*arguments)
        if message and message["msg_type"] in ("display_data", "execute_result"):
            data = message["content"]["data"]
            if "image/png" in data or "<img" in data.get("text/html", ""):
                self.picture = time.perf_counter()
        return message

    def picture_of(self, code):
        """Runs a cell; when its picture came, or None if it has none. A cell that fails is an error."""
        self.picture = None
        result = self.run(code, LIMIT)
        words = result.text("stderr") + "".join(o.get("evalue", "") for o in result.outputs)
        if result.ended != "idle" or result.status != "ok" or words.strip():
            raise RuntimeError(f"this cell failed ({result.ended}, {result.status}): {code}\n{words}")
        return self.picture


def cells(pattern):
    """The code cells of the one notebook of this name: (source, tags)."""
    [path] = NOTEBOOKS.glob(pattern)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"]), cell["metadata"].get("tags", [])


class Times:
    """Answers requests; holds on to the kernel that edits are made in."""

    def __init__(self, log, stack):
        self.log, self.stack, self.kernel, self.edits = log, stack, None, 0

    def new_kernel(self):
        return TimedKernel(NOTEBOOKS, self.log)

    def kernel_start(self):
        with self.new_kernel() as kernel:
            return time.perf_counter() - kernel.started

    def first_picture(self):
        with self.new_kernel() as kernel:
            for source, _ in cells(FIRST):
                if picture := kernel.picture_of(source):
                    return picture - kernel.started
        raise RuntimeError(f"no cell of {FIRST} gives a picture")

    def edit_to_picture(self):
        if self.kernel is None:
            kernel = self.stack.enter_context(self.new_kernel())
            for source, tags in cells(DENOISE):
                kernel.picture_of(source)
                if TAG in tags:
                    self.cell = source
                    break
            else:
                raise RuntimeError(f"no cell of {DENOISE} is tagged {TAG}")
            self.kernel = kernel
        level = LEVELS[self.edits % len(LEVELS)]
        edited, changes = re.subn(r"(let noise: f64 = )[0-9.]+;", rf"\g<1>{level};", self.cell, count=1)
        if changes != 1:
            raise RuntimeError(f"expected a line `let noise: f64 = …;` in the cell tagged {TAG}: {self.cell}")
        self.edits += 1
        started = time.perf_counter()
        picture = self.kernel.picture_of(edited)
        if picture is None:
            raise RuntimeError(f"this cell gives no picture: {edited}")
        return picture - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the kernels' log")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the kernel's shutdown
    versions = {"python": platform.python_version(), "jupyter-client": version("jupyter-client")}
    ready = {"name": "kernel", "versions": versions, "settings": "the notebook runner's kernel"}
    print(json.dumps({"ready": ready}), flush=True)
    with contextlib.ExitStack() as stack:
        times = Times(arguments.out / "kernel.log", stack)
        known = {name: getattr(times, name) for name in ("kernel_start", "first_picture", "edit_to_picture")}
        for line in sys.stdin:
            run = json.loads(line)["run"]
            if run == "exit":
                break
            try:
                if run not in known:
                    raise ValueError(f"unknown request {run!r}; this worker knows {', '.join(known)} and exit")
                answer = {"value": known[run]()}
            except Exception as error:  # whatever it is, the orchestrator has to hear of it
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
