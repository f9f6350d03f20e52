"""Drives one notebook in a real JupyterLab in Chromium, as a learner would.

`lab browser` starts it with the project's Python. It opens the notebook, runs all cells, looks for
the picture with the three rows, changes the noise factor in its cell, runs that cell and the
picture's again and waits for the picture to change. Cells are found by their tags: `noise-factor`
(reads like `let noise: f64 = 0.5;`) and `three-rows`. Its explorers are moved by keyboard and by mouse. Then it
watches a training in a notebook of its own: the panel must follow it, its button must stop it, the notebook must keep
what the panel showed last, and the training must go on when it is resumed. In another it presses Stop during a training, and
goes on with the variables. It presents the notebook as slides inside
JupyterLab, running cells as a teacher would, and visits the pages that need no network (`static_pages`). With
`--every` it runs every notebook to its end instead; with `--gallery` nothing is run, and pictures are taken of
all notebooks as they look after `git clone`: saved outputs, not trusted.
"""

import argparse
import json
import re
import signal
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, TimeoutError, sync_playwright

import static_pages
from server import Server
from static_pages import Failed, check_accessible

FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
# What JupyterLab itself may say on its console without anything being wrong with the lesson.
NOT_OURS = re.compile(r"favicon|ResizeObserver|/lsp/|WebSocket")
FAILED = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type="application/vnd.jupyter.error"]'
NEW_NOISE = "0.8"


class Notebook:
    """One notebook, open in a page of JupyterLab."""

    def __init__(self, page: Page, server: Server, name: str, folder: Path):
        self.page, self.name, self.console = page, name, []
        self.cells = json.loads((folder / name).read_text(encoding="utf-8"))["cells"]
        page.on("console", lambda m: m.type == "error" and self.console.append(f"{m.text} ({m.location.get('url')})"))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.goto(server.url(f"lab/tree/{name}") + "&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(f"document.querySelectorAll('.jp-Notebook .jp-Cell').length >= {len(self.cells)}")

    def theme(self, name: str):
        """Changes JupyterLab's theme."""
        self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        self.page.wait_for_selector(f'body[data-jp-theme-name="{name}"]', state="attached")

    def menu(self, *path: str):
        """Picks an entry of the menu bar, as in `Run`, `Run All Cells`."""
        self.page.click(f'.lm-MenuBar-itemLabel:text-is("{path[0]}")')
        for label in path[1:]:
            self.page.click(f'.lm-Menu-itemLabel:text-is("{label}")')

    def tagged(self, tag: str):
        """The cell with a tag."""
        found = [i for i, cell in enumerate(self.cells) if tag in cell["metadata"].get("tags", [])]
        if len(found) != 1:
            raise Failed(f"{self.name}: expected one cell tagged `{tag}`, found {len(found)}")
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{found[0]}"]')

    def check_failures(self):
        """No cell shows an error, but for those that are meant to."""
        meant = [i for i, cell in enumerate(self.cells) if "raises-exception" in cell["metadata"].get("tags", [])]
        where = "all => all.map(one => [Number(one.closest('.jp-Cell').dataset.windowedListIndex), one.innerText])"
        for cell, words in self.page.eval_on_selector_all(FAILED, where):
            if cell not in meant:
                raise Failed(f"{self.name}: a cell failed: {words[:2000]}")

    def wait_until_idle(self, seconds: float):
        """Waits until no cell is running or queued and none shows an error; code cells have a number then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_failures()
            prompts = self.page.locator(".jp-CodeCell .jp-InputArea-prompt").all_text_contents()
            if all(re.fullmatch(r"\[\d+\]:", text.strip()) for text in prompts):
                return
            self.page.wait_for_timeout(300)
        raise Failed(f"{self.name}: not all cells had run after {seconds:g} s; prompts: {prompts}")

    def run_all(self, seconds: float):
        """Clears the saved outputs, so that none is taken for a new one, and runs all cells."""
        self.menu("Edit", "Clear Outputs of All Cells")
        self.page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output').length === 0")
        self.menu("Run", "Run All Cells")
        self.wait_until_idle(seconds)

    def run_cell(self, cell, seconds: float):
        """Runs a cell to its end; it must not fail."""
        self.start_cell(cell)
        self.wait_for(cell, seconds)

    def start_cell(self, cell):
        """Selects a cell by a click beside its text and runs it; again if its prompt does not change, since a page that is
        still loading may lose a key (seen once)."""
        prompt = cell.locator(".jp-InputArea-prompt")
        before = prompt.text_content()
        for _ in range(3):
            prompt.click()
            self.page.keyboard.press("Control+Enter")
            deadline = time.monotonic() + 10
            while prompt.text_content() == before and time.monotonic() < deadline:
                self.page.wait_for_timeout(100)
            if prompt.text_content() != before:
                break
            print(f"  {self.name}: the page lost a key", flush=True)

    def wait_for(self, cell, seconds: float):
        """Waits until one cell has run, whatever the others do."""
        wait_for_number(self.page, cell, self.name, seconds)
        self.check_failures()

    def replace(self, cell, old: str, new: str):
        """Edits one line of a cell by typing."""
        source = cell.locator(".cm-content").inner_text()
        if not re.search(old, source):
            raise Failed(f"{self.name}: expected something like {old} in the cell, found: {source}")
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(re.sub(old, new, source, count=1))

    def check_pictures(self) -> int:
        """Every picture has been drawn and has alternative text; returns how many there are."""
        pictures = self.page.eval_on_selector_all(
            ".jp-OutputArea-output img",
            "all => all.map(i => ({alt: i.alt.trim(), drawn: i.complete && i.naturalWidth > 0, src: i.src.slice(0, 60)}))",
        )
        for picture in pictures:
            if not picture["alt"] or not picture["drawn"]:
                raise Failed(f"{self.name}: a picture without alternative text, or not drawn: {picture}")
        return len(pictures)

    def photograph(self, path: Path):
        """A picture of the whole notebook, in a window as high as it needs."""
        panel, size = self.page.locator(".jp-WindowedPanel-outer"), self.page.viewport_size
        height = panel.evaluate("panel => panel.scrollHeight") + 200
        self.page.set_viewport_size({"width": size["width"], "height": min(height, 16_000)})
        panel.evaluate("panel => { panel.scrollTop = 0; }")  # running a cell scrolls to it
        self.page.wait_for_timeout(1_000)
        panel.screenshot(path=path)
        self.page.set_viewport_size(size)

    def check_console(self):
        """The browser's console has no error of the lesson's doing."""
        ours = [text for text in self.console if not NOT_OURS.search(text)]
        if ours:
            raise Failed(f"{self.name}: errors on the browser's console: {ours}")


def wait_for_number(page: Page, cell, name: str, seconds: float):
    """Waits until a cell has its number, which it gets when it has run."""
    deadline = time.monotonic() + seconds
    while not re.fullmatch(r"\[\d+\]:", cell.locator(".jp-InputArea-prompt").text_content().strip()):
        if time.monotonic() > deadline:
            raise Failed(f"{name}: a cell had not run after {seconds:g} s")
        page.wait_for_timeout(100)


def drive(notebook: Notebook, out: Path, seconds: float):
    """The whole visit; pictures of it go to `out`."""
    page, stem = notebook.page, Path(notebook.name).stem
    print(f"{notebook.name}: Run All Cells …", flush=True)
    start = time.monotonic()
    notebook.run_all(seconds)
    print(f"  all cells ran without an error in {time.monotonic() - start:.1f} s", flush=True)
    notebook.photograph(out / f"{stem}-all.png")

    rows = notebook.tagged("three-rows")
    picture = rows.locator(".jp-OutputArea-output img").first
    picture.scroll_into_view_if_needed(timeout=5_000)
    picture.wait_for(state="visible", timeout=5_000)
    before = picture.get_attribute("src")
    rows.screenshot(path=out / f"{stem}-before.png")
    print(f"  the three rows are visible: {picture.get_attribute('alt')}", flush=True)

    factor = notebook.tagged("noise-factor")
    notebook.replace(factor, r"(let\s+\w+\s*(?::\s*f64)?\s*=\s*)[\d.]+", rf"\g<1>{NEW_NOISE}")
    notebook.run_cell(factor, seconds)
    notebook.run_cell(rows, seconds)
    deadline = time.monotonic() + 30
    while picture.get_attribute("src", timeout=10_000) == before:
        if time.monotonic() > deadline:
            raise Failed(f"{notebook.name}: the picture did not change with noise {NEW_NOISE}")
        page.wait_for_timeout(200)
    rows.screenshot(path=out / f"{stem}-after.png")
    print(f"  with noise {NEW_NOISE} the picture changed", flush=True)
    print(f"  {notebook.check_pictures()} pictures, each drawn and with alternative text", flush=True)
    check_accessible(page, notebook.name, {"include": [[".jp-OutputArea-output"]]})
    print("  axe-core finds nothing in the outputs", flush=True)


def play(notebook: Notebook, out: Path):
    """Moves the sliders of every explorer, by keyboard and by mouse: each time a picture must change."""
    page = notebook.page
    explorers = page.locator(".explorer")
    for at in range(explorers.count()):
        explorer = explorers.nth(at)
        explorer.scroll_into_view_if_needed(timeout=5_000)
        for number, slider in enumerate(explorer.locator("input[type=range]").all()):
            for hand in ("keyboard", "mouse"):
                before = pictures_of(explorer)
                if hand == "keyboard":
                    slider.focus()
                    page.keyboard.press("ArrowRight")
                else:
                    box = slider.bounding_box()
                    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2)
                page.wait_for_timeout(100)
                if pictures_of(explorer) == before:
                    raise Failed(f"{notebook.name}: explorer {at + 1}, slider {number + 1}: no picture follows the {hand}")
        explorer.screenshot(path=out / f"{Path(notebook.name).stem}-explorer-{at + 1}.png")
    print(f"  {explorers.count()} explorers, moved by keyboard and mouse", flush=True)


def pictures_of(explorer) -> list:
    """What an explorer shows: its pictures, and how much of each."""
    return explorer.locator("img").evaluate_all("all => all.map(i => i.src + i.style.clipPath)")


def draw(notebook: Notebook, out: Path, seconds: float):
    """Draws a one on the pad, by mouse and by keyboard; the cell tagged `pad` must read it."""
    page, canvas = notebook.page, notebook.page.locator(".explorer canvas")
    if not canvas.count():
        return
    reader = notebook.tagged("pad")
    if "Nothing is drawn yet" not in reader.inner_text():
        raise Failed(f"{notebook.name}: a digit is read from the pad before one is drawn")
    canvas.scroll_into_view_if_needed(timeout=5_000)
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + 140, steps=8)
    page.mouse.up()
    canvas.focus()
    for key in ["ArrowDown"] * 8 + ["Space"] + ["ArrowDown"] * 10 + ["Space"]:
        page.keyboard.press(key)
    page.wait_for_function("[...document.querySelectorAll('.explorer [role=status]')].some(s => s.textContent.startsWith('Saved'))", timeout=10_000)
    notebook.run_cell(reader, seconds)
    text = reader.inner_text()
    if "Nothing is drawn" in text or "drawn: read as" not in text:
        raise Failed(f"{notebook.name}: what was drawn did not arrive: {text[-300:]}")
    canvas.screenshot(path=out / "pad.png")
    reader.screenshot(path=out / "pad-read.png")
    print(f"  a digit was drawn and arrived ({text[text.index('drawn: read as'):].splitlines()[0]})", flush=True)


TRAINING = [
    (":dep diffusion = { path = \"../crates/diffusion\" }\nuse diffusion::prelude::*;", ""),
    (
        "let pairs: Pairs = Mnist::load()?.train.first(2_000)?.noisy(0.5)?;\n"
        "let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);\n"
        "cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);\n"
        "let fit: Fit = Fit { epochs: 240, validation: 500, ..Fit::default() };\n"
        "let training: Training<Network> = cnn.fit_in_background(&pairs, &fit, \"saved/watched\")?;",
        "begin",
    ),
    ("training.monitor()", "panel"),
    ("let (cnn, history): (Network, History) = training.wait()?;\nprintln!(\"stopped: {}\", history.stopped);", "end"),
    (
        "let again: Training<Network> = Network::resume(\"saved/watched\", Loss::BinaryCrossEntropy, &pairs)?;\n"
        "again.monitor()",
        "resumed",
    ),
    ("again.stop();\nlet (cnn, longer): (Network, History) = again.wait()?;\nlet kept: bool = longer.epochs[0].loss == history.epochs[0].loss;\nprintln!(\"went on: {}\", kept && longer.epochs.len() + 1 >= history.epochs.len());", "longer"),
]
"""A notebook that trains in the background: source and tag of each cell."""


STOPPING = [
    (":dep diffusion = { path = \"../crates/diffusion\" }\nuse diffusion::prelude::*;", ""),
    (
        "let mnist: Mnist = Mnist::load()?;\n"
        "let clean: Tensor = mnist.test.images(10)?;\n"
        "let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);\n"
        "cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);\n"
        "let history: History = cnn.fit(&mnist.train.noisy(0.5)?, &Fit { epochs: 50, ..Fit::default() })?;",
        "fit",
    ),
    (
        "println!(\"stopped: {}\", history.stopped);\n"
        "rows(&[(\"original\", &clean)]).evcxr_display();\n"
        "rows(&[(\"denoised\", &cnn.predict(&add_noise(&clean, 0.5)?)?)]).evcxr_display();",
        "two-pictures",
    ),
    ("clean.reshape(&[7, 7])", "error"),
    ("use diffusion::", "half"),
]
"""A notebook whose training is stopped; what it defined before is used afterwards."""


def own_notebook(page: Page, server: Server, folder: Path, name: str, sources: list) -> Notebook:
    """A notebook of these cells (source and tag), written and opened."""
    cells = [
        {"cell_type": "code", "id": f"cell-{at}", "metadata": {"tags": [tag] if tag else []}, "source": source,
         "outputs": [], "execution_count": None}
        for at, (source, tag) in enumerate(sources)
    ]
    kernel = {"kernelspec": {"display_name": "Rust", "language": "rust", "name": "rust"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / name).write_text(json.dumps(content))
    return Notebook(page, server, name, folder)


def stop(page: Page, server: Server, folder: Path, out: Path, seconds: float):
    """The interrupt button ends a training, and the notebook goes on with its variables; an error is short; two pictures show."""
    notebook = own_notebook(page, server, folder, "stopped.ipynb", STOPPING)
    notebook.run_cell(page.locator('.jp-Notebook .jp-Cell[data-windowed-list-index="0"]'), seconds)
    fit = notebook.tagged("fit")
    notebook.start_cell(fit)
    page.wait_for_function("document.body.innerText.includes('Training on ')", timeout=60_000)
    page.wait_for_timeout(1_500)
    start = time.monotonic()
    page.click('[data-command="notebook:interrupt-kernel"]')
    wait_for_number(page, fit, notebook.name, 10)
    took = time.monotonic() - start
    pictures = notebook.tagged("two-pictures")
    notebook.run_cell(pictures, seconds)
    if "stopped: true" not in pictures.inner_text() or pictures.locator("img").count() != 2:
        raise Failed(f"{notebook.name}: the variables are gone, or two pictures are not two: {pictures.inner_text()[-500:]}")
    pictures.screenshot(path=out / "two-pictures.png")
    failing = notebook.tagged("error")
    notebook.start_cell(failing)
    wait_for_number(page, failing, notebook.name, seconds)
    page.wait_for_timeout(500)
    words = failing.locator(FAILED).all_inner_texts()
    lines = "\n".join(words).strip().splitlines()
    if not lines or not lines[0].startswith("shape '[7, 7]' is invalid") or len(lines) > 6:
        raise Failed(f"{notebook.name}: expected a short error, found {words}")
    failing.screenshot(path=out / "short-error.png")
    half = notebook.tagged("half")
    notebook.start_cell(half)
    wait_for_number(page, half, notebook.name, seconds)
    page.wait_for_timeout(500)
    if "does not end" not in half.inner_text():
        raise Failed(f"{notebook.name}: nothing is said about a half-typed cell: {half.inner_text()}")
    print(f"  Stop ended a training after {took:.1f} s, its variables are there; an error has {len(lines)} lines", flush=True)


def watch(page: Page, server: Server, folder: Path, out: Path, seconds: float):
    """A training is watched, and stopped by its button; the notebook keeps what the panel showed last."""
    notebook = own_notebook(page, server, folder, "watched_training.ipynb", TRAINING)
    path = folder / notebook.name
    first = page.locator('.jp-Notebook .jp-Cell[data-windowed-list-index="0"]')
    for cell in (first, notebook.tagged("begin"), notebook.tagged("panel")):
        notebook.run_cell(cell, seconds)
    panel = notebook.tagged("panel").locator(".panel")
    print(f"  a training's panel changed {follow(page, panel, path.name)} times", flush=True)
    # Only a whole epoch can be gone on with, and a slow machine takes its time for one.
    page.wait_for_function("/epoch \\d+\\/240/.test(document.querySelector('.panel .line').textContent)", timeout=60_000)
    panel.screenshot(path=out / "training-panel.png")
    panel.locator("button").click()
    page.wait_for_function("document.querySelector('.panel .line').textContent.startsWith('Stopped')", timeout=30_000)
    notebook.run_cell(notebook.tagged("end"), seconds)
    if "stopped: true" not in notebook.tagged("end").inner_text():
        raise Failed(f"{path.name}: the button stopped no training")
    panel.screenshot(path=out / "training-stopped.png")
    page.keyboard.press("Control+s")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        saved = json.loads(path.read_text(encoding="utf-8"))["cells"][2]["outputs"]
        html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in saved)
        if "Stopped" in html and "<script" not in html and "<img" in html:
            break
        page.wait_for_timeout(250)
    else:
        raise Failed(f"{path.name}: the saved notebook does not hold what the panel showed last: {html[-300:]}")
    print("  its button stopped it, and the notebook keeps the last picture", flush=True)
    notebook.run_cell(notebook.tagged("resumed"), seconds)
    times = follow(page, notebook.tagged("resumed").locator(".panel"), path.name)
    notebook.run_cell(notebook.tagged("longer"), seconds)
    if "went on: true" not in notebook.tagged("longer").inner_text():
        raise Failed(f"{path.name}: resumed, the training did not go on: {notebook.tagged('longer').inner_text()[-300:]}")
    print(f"  resumed, it went on: its panel changed {times} times", flush=True)


def follow(page: Page, panel, name: str) -> int:
    """Waits until a panel has changed three times while its network trains; how often it did."""
    seen, deadline = set(), time.monotonic() + 90
    while len(seen) < 4:
        if time.monotonic() > deadline:
            raise Failed(f"{name}: the panel showed only {sorted(seen)} within 90 s")
        seen.add((panel.locator(".line").inner_text(), panel.locator(".preview img").first.get_attribute("src")))
        page.wait_for_timeout(250)
    return len(seen) - 1


SLIDE = ".reveal section.stack.present > section.present"
"""The slide that one sees when JupyterLab presents."""


def present(page: Page, server: Server, name: str, out: Path, seconds: float):
    """Slides inside JupyterLab: cells run on them, and the picture follows another noise."""
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(server.url(f"rise/{name}"))
    page.wait_for_selector(f"{SLIDE} .jp-Cell", timeout=60_000)

    def run(cell):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(200)
        wait_for_number(page, cell, name, seconds)

    for cell in page.locator(f"{SLIDE} .jp-CodeCell").all():
        run(cell)
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    factor = page.locator(f"{SLIDE} .jp-CodeCell").filter(has_text="let noise: f64 = ")
    run(factor)
    picture = factor.locator("img").first
    before, source = picture.get_attribute("src"), factor.locator(".cm-content").inner_text()
    page.screenshot(path=out / "presented.png")
    factor.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    # On a slow machine JupyterLab has saved the visit before this one, with its noise.
    noise = "0.3" if f"= {NEW_NOISE};" in source else NEW_NOISE
    page.keyboard.insert_text(re.sub(r"(let noise: f64 = )[\d.]+", rf"\g<1>{noise}", source, count=1))
    run(factor)
    deadline = time.monotonic() + 30
    while picture.get_attribute("src", timeout=10_000) == before:
        if time.monotonic() > deadline:
            raise Failed(f"{name}: on the slide the picture did not change with noise {noise}")
        page.wait_for_timeout(100)
    page.screenshot(path=out / "presented-after.png")
    if small := [size for size in factor.locator(".cm-line").evaluate_all("all => all.map(l => parseFloat(getComputedStyle(l).fontSize) / innerHeight)") if size < 1 / 42]:
        raise Failed(f"{name}: on the slide code is {min(small):.4f} of the height, expected at least 1/42")
    print("  presented in JupyterLab: cells run on slides, and the picture follows another noise", flush=True)


def every(page: Page, server: Server, names: list, folder: Path, out: Path, seconds: float):
    """Every notebook runs to its end."""
    for name in names:
        notebook, start = Notebook(page, server, name, folder), time.monotonic()
        notebook.run_all(seconds)
        took = time.monotonic() - start
        check_accessible(page, name, {"include": [[".jp-OutputArea-output"]]})
        print(f"{name}: ran to its end in {took:.0f} s, {notebook.check_pictures()} pictures, accessible", flush=True)
        notebook.photograph(out / f"every-{Path(name).stem}.png")
        notebook.check_console()
        page.goto("about:blank")
        server.stop_kernels()


def gallery(page: Page, server: Server, names: list, folder: Path, out: Path):
    """Every notebook as it looks before it is run, saved outputs and all, in JupyterLab's light theme and in its dark one."""
    problems = []
    for name in names:
        notebook = Notebook(page, server, name, folder)
        notebook.photograph(out / f"gallery-{Path(name).stem}.png")
        notebook.theme("JupyterLab Dark")
        notebook.photograph(out / f"gallery-dark-{Path(name).stem}.png")
        notebook.theme("JupyterLab Light")
        try:
            print(f"{name}: {notebook.check_pictures()} saved pictures are shown", flush=True)
        except Failed as problem:
            problems.append(str(problem))
        page.goto("about:blank")
        server.stop_kernels()
    if problems:
        raise Failed("\n".join(problems))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", required=True, help="the browser's program")
    parser.add_argument("--work", type=Path, required=True, help="the folder with copies of the notebooks")
    parser.add_argument("--out", type=Path, required=True, help="where pictures go")
    parser.add_argument("--timeout", type=float, required=True, help="seconds for all cells together")
    parser.add_argument("--gallery", action="store_true", help="show all notebooks, run none")
    parser.add_argument("--every", action="store_true", help="run every notebook to its end, and no more")
    parser.add_argument("notebook", nargs="?", help="the notebook to drive")
    arguments = parser.parse_args()
    (arguments.out / "failed.png").unlink(missing_ok=True)
    with Server(arguments.work, arguments.out) as server, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=arguments.chromium, args=FLAGS)
        page = chromium.new_page(viewport={"width": 1200, "height": 1000})
        try:
            names = sorted(path.name for path in arguments.work.glob("[0-9]*.ipynb"))
            if arguments.gallery:
                gallery(page, server, names, arguments.work, arguments.out)
            elif arguments.every:
                every(page, server, names, arguments.work, arguments.out, arguments.timeout)
            else:
                notebook = Notebook(page, server, arguments.notebook, arguments.work)
                drive(notebook, arguments.out, arguments.timeout)
                play(notebook, arguments.out)
                draw(notebook, arguments.out, arguments.timeout)
                notebook.check_console()
                page.goto("about:blank")
                server.stop_kernels()
                for visit in (watch, stop):
                    visit(page, server, arguments.work, arguments.out, arguments.timeout)
                    page.goto("about:blank")
                    server.stop_kernels()
                present(page, server, arguments.notebook, arguments.out, arguments.timeout)
                page.close()
                static_pages.visit_slides(chromium, arguments.work, arguments.out)
                static_pages.visit_site(chromium, arguments.work, arguments.out)
        except (Failed, TimeoutError) as error:
            print(f"lab browser: {error}", file=sys.stderr)
            if not page.is_closed():
                page.screenshot(path=arguments.out / "failed.png")
                print(f"The page at that moment: {arguments.out / 'failed.png'}", file=sys.stderr)
            return 1
        finally:
            chromium.close()
    print(f"pictures in {arguments.out}")
    return 0


def interrupted(*_):
    """Ctrl-C and a polite kill both end the visit through the server's shutdown; later ones change nothing."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
