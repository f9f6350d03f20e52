"""Runs notebooks top to bottom, each in a fresh kernel, and reports every cell that failed.

`lab run` starts it with the project's Python. A cell of the lesson is fine when it compiles, ends,
and writes nothing to stderr: evcxr answers "ok" to a panic and to a failed `?`, and all that shows
of them is text there. So the lesson's cells never write to stderr for any other reason.

Kinds of failure: `compile` (the cell did not compile), `panic`, `timeout` (over its time limit) and
`error` (a failed `?` or other text on stderr, a dead process or kernel, an exercise's solution that
is "Not yet" one, or a cell tagged `raises-exception` that did not fail).

After a failed cell the rest of the notebook still runs, so that one run tells all; it stops where
its variables are lost (a timeout, a dead process, a dead kernel), for then everything fails.
Cells are numbered by their position among the code cells, from 1; 0 is the notebook as a whole
(not a notebook, or its kernel did not start).

With `--twice` each cell is run twice in a row, as a learner does, and must show the same again. A cell whose figures
cannot be the same (seconds, the number of a run) says so in its metadata, `"varies": "the reason"`: of such a cell
only the words are compared, and run again it may say more.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import nbformat

from kernel import DEAD, TIMEOUT, CannotRun, DidNotStart, Kernel, Result
from page import page

DIED = "Subprocess terminated"
KERNELSPEC = {"display_name": "Rust", "language": "rust", "name": "rust"}
LANGUAGE = {"codemirror_mode": "rust", "file_extension": ".rs", "mimetype": "text/rust", "name": "Rust"}
SLOWEST = 5  # how many slow cells a report names
TRANSIENT = ("execution", "ExecuteTime", "trusted", "scrolled")


def plain(text: str) -> str:
    """Text without colours, thread numbers, and the backtrace that the kernel asks Rust for."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"^(thread '.*?') \(\d+\) panicked", r"\1 panicked", text, flags=re.M)
    return re.split(r"^stack backtrace:$|^note: run with `RUST_BACKTRACE", text, flags=re.M)[0].strip()


def failure(result: Result, limit: float):
    """(kind, text) of what went wrong in a cell, or None. `error` outputs are the compiler's words."""
    stderr = plain(result.text("stderr"))
    errors = [o for o in result.outputs if o.output_type == "error"]
    words = plain("\n".join("\n".join(o.traceback) or o.evalue for o in errors))
    said = "\n".join(filter(None, [words, stderr]))
    if result.ended == TIMEOUT:
        return "timeout", f"over the limit of {limit:g} s for one cell; interrupted"
    if result.ended == DEAD:
        return "error", "the kernel died while this cell ran"
    if "panicked at" in stderr:
        return "panic", said
    if DIED in words:
        return "error", f"the process that runs the cells ended, and all variables with it: {said}"
    if result.status != "ok":
        return "compile", said or "the kernel answered `error` and gave no reason"
    if stderr:
        return "error", stderr
    return None


def failure_with_tags(cell, result: Result, limit: float):
    """The failure of a cell with its tags taken into account, or None."""
    tags, found = cell.metadata.get("tags", []), failure(result, limit)
    if "raises-exception" in tags and result.ended not in (TIMEOUT, DEAD):
        return None if found else ("error", "tagged raises-exception, so it should fail, and it did not")
    if found is None and "solution" in tags:
        shown = result.text("stdout") + "".join(
            value for o in result.outputs for mime, value in o.get("data", {}).items() if mime[:5] == "text/"
        )
        if "Not yet" in shown:
            return "error", f"the solution does not pass its own check: {plain(shown)}"
    return found


def seen(result: Result, words_only: bool) -> list[str]:
    """What a reader sees of a cell, each kind of output by itself, as streams may come in another order."""
    shown = [result.text("stdout"), result.text("stderr")]
    shown += [f"{mime}: {value}" for o in result.outputs for mime, value in sorted(o.get("data", {}).items())]
    if words_only:
        shown = [re.sub(r"data:image/[^\"]*|[\d.,█░]+|<svg.*?</svg>", "…", text, flags=re.S) for text in shown]
    return [re.sub(r" +", " ", plain(text)) for text in shown]


def says_all_of(text: str, other: str) -> bool:
    """Whether a text has all lines of another one."""
    return set(other.splitlines()) <= set(text.splitlines())


def another(cell, first: Result, second: Result):
    """What differs when a cell is run again, or None."""
    reason = cell.metadata.get("varies")
    if reason is not None and not str(reason).strip():
        return "its metadata says that it varies, without a reason"
    before, after = (seen(result, bool(reason)) for result in (first, second))
    if before == after or reason and len(before) == len(after) and all(map(says_all_of, after, before)):
        return None
    if len(before) != len(after):
        return f"it showed {len(before)} outputs, and {len(after)} when it was run again"
    old, new = next((old, new) for old, new in zip(before, after) if old != new)
    at = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
    part = slice(max(0, at - 60), at + 60)
    return f"run again, it shows something else:\n  first …{old[part]}…\n  then  …{new[part]}…"


def run_cells(notebook, kernel: Kernel, limit: float, twice: bool, progress) -> tuple[list, list]:
    """Runs the code cells, leaves their outputs in the notebook, and returns the failures and the seconds of each cell."""
    failures, seconds, cells = [], [], [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        if not cell.source.strip():
            continue
        progress(number, len(cells))
        start = time.monotonic()
        result = kernel.run(cell.source, limit)
        seconds.append({"cell": number, "seconds": round(time.monotonic() - start, 1)})
        # evcxr shows results when the cell ends, but printed lines may overtake or trail them.
        cell.outputs = sorted(result.outputs, key=lambda o: o.output_type != "stream")
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            if output.get("name") == "stderr":
                output.text = plain(output.text) + "\n"
        found = failure_with_tags(cell, result, limit)
        if twice and not found and result.ended == "idle":
            again = kernel.run(cell.source, limit)
            found = failure_with_tags(cell, again, limit)
            if not found and (differs := another(cell, result, again)):
                found = "error", differs
            result = again
        lost = result.ended != "idle" or any(DIED in o.get("evalue", "") for o in result.outputs)
        if found:
            kind, text = found
            if result.ended == DEAD:
                text += kernel.last_words()
            if lost and number < len(cells):
                text += f"\n({len(cells) - number} code cells after it were not run)"
            failures.append({"cell": number, "kind": kind, "text": text})
            if lost:
                break
    return failures, seconds


def tidy(notebook):
    """Takes away what differs from run to run for no reason, so that a diff shows what changed."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec, notebook.metadata.language_info = KERNELSPEC, LANGUAGE
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, 1):
        cell.setdefault("id", f"cell-{number}")
        for key in TRANSIENT:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def save(text: str, path: Path):
    """Writes a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    os.replace(part, path)


def run_notebook(path: Path, arguments, progress) -> dict:
    """Runs one notebook of the work folder, writes its executed copy and page; its part of the report."""
    start, cells, failures, seconds_of_cells = time.monotonic(), 0, [], []
    try:
        notebook = nbformat.read(path, as_version=4)
        tidy(notebook)
        cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    except Exception as error:  # whatever nbformat stumbles over: the file is not a notebook
        words = f"not a notebook: {type(error).__name__}: {str(error)[:500]}"
        failures = [{"cell": 0, "kind": "error", "text": words}]
    else:
        try:
            with Kernel(path.parent, arguments.out / f"{path.stem}.log") as kernel:
                failures, seconds_of_cells = run_cells(
                    notebook, kernel, arguments.timeout, arguments.twice, progress
                )
        except DidNotStart as error:
            failures = [{"cell": 0, "kind": "error", "text": str(error)}]
        save(nbformat.writes(notebook), arguments.out / path.name)
        if not arguments.no_html:
            save(page(notebook, path), arguments.out / f"{path.stem}.html")
    seconds = round(time.monotonic() - start, 1)
    slowest = sorted(seconds_of_cells, key=lambda cell: -cell["seconds"])[:SLOWEST]
    return {"name": path.name, "cells": cells, "seconds": seconds, "slowest": slowest, "failures": failures}


def show_progress(number: int, cells: int):
    """Which cell is running, on one line that is rewritten; silent where output is kept in a file."""
    if sys.stdout.isatty():
        print(f"\r      cell {number} of {cells} … ", end="", flush=True)


def show_report(report: dict):
    """How one notebook went, and all that is known of each failure."""
    bad = len(report["failures"])
    slowest = ", ".join(f"cell {cell['cell']} {cell['seconds']} s" for cell in report["slowest"])
    line = f"      {f'{bad} FAILED' if bad else 'ok'}, {report['cells']} code cells, {report['seconds']} s"
    line += f"; slowest: {slowest}" if slowest else ""
    print(f"\r{line:<40}" if sys.stdout.isatty() else line, flush=True)
    for item in report["failures"]:
        print(f"      {report['name']}, code cell {item['cell']}, {item['kind']}:")
        print("\n".join(f"        {text}" for text in item["text"].splitlines()), flush=True)


def stop_on_signals():
    """Ctrl-C and a polite kill both end the run through the kernel's shutdown; later ones change nothing."""

    def stop(*_):
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        print("\nstopping: the kernel is being shut down …", flush=True)
        raise KeyboardInterrupt

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="the folder with the copies to run")
    parser.add_argument("--out", type=Path, required=True, help="where results go")
    parser.add_argument("--timeout", type=float, required=True, help="seconds for one cell")
    parser.add_argument("--update", action="store_true", help="write back over the originals")
    parser.add_argument("--twice", action="store_true", help="each cell twice in a row")
    parser.add_argument("--no-html", action="store_true", help="no pages")
    parser.add_argument("notebooks", type=Path, nargs="+", help="the originals")
    arguments = parser.parse_args()
    stop_on_signals()
    reports, start = [], time.monotonic()
    for number, original in enumerate(arguments.notebooks, 1):
        print(f"[{number}/{len(arguments.notebooks)}] {original.name}", flush=True)
        report = run_notebook(arguments.work / original.name, arguments, show_progress)
        reports.append(report)
        show_report(report)
    seconds = round(time.monotonic() - start, 1)
    whole = {"notebooks": reports, "seconds": seconds}
    save(json.dumps(whole, indent=2, ensure_ascii=False), arguments.out / "report.json")
    failed = sum(len(report["failures"]) for report in reports)
    print(f"{len(reports)} notebooks, {seconds} s, {failed} failed cells; all in {arguments.out}")
    if failed:
        return 1
    if arguments.update:
        for original in arguments.notebooks:
            save((arguments.out / original.name).read_text(encoding="utf-8"), original)
        print("the originals are updated with these outputs")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotRun as error:
        print(f"lab run: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
