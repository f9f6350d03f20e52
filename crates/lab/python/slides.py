"""The lesson as slides: each notebook as one page that needs nothing from the network.

`lab slides` starts it with the project's Python. Nothing is run: the slides show the saved outputs, explorers
and all. Which cell begins a slide, continues one or is left out stands in the cells' metadata (`slideshow`), as
Jupyter's own tools have it. The page is reveal.js with its scripts written into it.
"""

import argparse
import html
import re
import sys
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import RustLexer

from page import lesson, markdown_of, to_pages

ASSETS = Path(__file__).resolve().parents[1] / "assets/reveal"
WIDTH, HEIGHT = 1600, 900
# Sizes are of a slide 900 high: text is 1/27 of its height, code 1/35. A slide that holds more is made smaller
# as a whole, by at most the factor that `lab browser` checks.
STYLE = """
html, body, main { margin: 0; height: 100%; background: #fff; }
.reveal { font: 33px/1.3 system-ui, "DejaVu Sans", sans-serif; color: #1a1a1a; }
.reveal .slides { text-align: left; }
.reveal .slides section { height: 100%; padding: 0; box-sizing: border-box; }
.fit { transform-origin: 0 0; }
.fit > * { margin: 0 0 16px; }
.reveal h1, .reveal h2 { font-size: 52px; line-height: 1.15; margin: 0 0 20px; } .reveal h1 { font-size: 68px; }
.reveal p, .reveal ul, .reveal ol { margin: 0 0 14px; }
.reveal code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.86em; }
.reveal pre { font: 25px/1.32 ui-monospace, "DejaVu Sans Mono", monospace; margin: 0; white-space: pre-wrap; }
.code { background: #f5f5f5; border-left: 5px solid #0072b2; padding: 10px 18px; border-radius: 3px; }
.output img { max-width: 100%; display: block; }
.output > img { image-rendering: pixelated; }
.output:has(table) { max-height: 640px; overflow: auto; }
.reveal table { border-collapse: collapse; font-size: 28px; }
.reveal td, .reveal th { padding: 4px 22px 4px 0; text-align: right; border-bottom: 1px solid #bbb; }
.reveal td:first-child, .reveal th:first-child { text-align: left; }
.reveal a { color: #00508a; }
.reveal summary { cursor: pointer; }
.reveal .slide-number { font-size: 18px; color: #333; background: #fff; }
"""
# When a slide is shown, its pictures grow as far as there is room; where there is none, all becomes smaller. Keys
# belong to what has the focus.
SCRIPT = """
function fit(section) {
  const box = section && section.querySelector(".fit");
  if (!box) return;
  const fits = (scale) => box.scrollHeight * scale <= %HEIGHT% - 20;
  const pictures = box.querySelectorAll(".output > img"), others = box.querySelectorAll(".explorer, .panel");
  const grow = (by) => {
    pictures.forEach((picture) => { picture.style.width = `${Math.min(by * picture.naturalWidth, 0.98 * %WIDTH%)}px`; });
    others.forEach((other) => { other.style.zoom = by; });
  };
  const shrink = (scale) => { box.style.transform = `scale(${scale})`; box.style.width = `${100 / scale}%`; };
  shrink(1);
  let by = 2.6, scale = 1;
  for (grow(by); by > 1 && !fits(1); grow(by)) by -= 0.1;
  while (scale > 0.3 && !fits(scale)) shrink((scale -= 0.02));
  section.dataset.scale = scale.toFixed(2);
}
Reveal.initialize({
  width: %WIDTH%, height: %HEIGHT%, margin: 0.03, center: false, transition: "none", hash: true, controls: true,
  progress: true, slideNumber: "c/t", navigationMode: "linear", controlsTutorial: false,
  keyboardCondition: () => !document.activeElement.closest(".explorer, input, button, summary"),
}).then(() => {
  fit(Reveal.getCurrentSlide());
  document.querySelectorAll("img").forEach((image) => image.complete || image.addEventListener("load", () => fit(Reveal.getCurrentSlide())));
});
Reveal.on("slidechanged", (event) => fit(event.currentSlide));
"""
TOP, SUB, FRAGMENT, SKIP, NOTES = "slide", "subslide", "fragment", "skip", "notes"


def slides_of(notebook) -> list:
    """The notebook's cells, slide by slide; subslides follow their slide in the same row."""
    slides = []
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if kind in (SKIP, NOTES):
            continue
        if kind in (TOP, SUB) or not slides:
            slides.append([])
        slides[-1].append((cell, kind == FRAGMENT))
    return slides


def shown(output) -> str:
    """One output as HTML; of a rich one the richest form."""
    if output.output_type == "stream":
        return f"<pre>{html.escape(output.text.rstrip())}</pre>"
    data = output.get("data", {})
    if "text/html" in data:
        return data["text/html"]
    for kind in ("image/png", "image/gif"):
        if kind in data:
            alt = html.escape(data.get("text/plain", ""), quote=True)
            return f'<img alt="{alt}" src="data:{kind};base64,{data[kind].strip()}">'
    return f"<pre>{html.escape(data.get('text/plain', ''))}</pre>"


def output_box(text: str) -> str:
    """An output; a table may be longer than the slide, and then scrolls, also by keyboard."""
    scrolls = ' tabindex="0" role="region" aria-label="table"' if "<table" in text else ""
    return f'<div class="output"{scrolls}>{text}</div>'


def body(cell, markdown) -> str:
    """A cell as HTML."""
    if cell.cell_type == "markdown":
        # The glossary is a page of the site; on a slide its words are only words.
        text = re.sub(r'<a href="GLOSSARY\.md[^"]*">(.*?)</a>', r"\1", markdown(cell.source))
        return f"<div>{to_pages(text)}</div>"
    source = highlight(cell.source, RustLexer(), HtmlFormatter(nowrap=True)).rstrip()
    outputs = "".join(output_box(shown(output)) for output in cell.outputs)
    return f'<div class="code"><pre>{source}</pre></div>{outputs}'


def page(notebook, path: Path) -> str:
    """The page's text."""
    markdown = markdown_of(path.parent)
    sections = []
    for slide in slides_of(notebook):
        cells = [f'<div class="fragment">{text}</div>' if late else text for text, late in ((body(c, markdown), f) for c, f in slide)]
        sections.append(f'<section><div class="fit">{"".join(cells)}</div></section>')
    title = html.escape(notebook.cells[0].source.splitlines()[0].lstrip("# "))
    style = (ASSETS / "reveal.css").read_text(encoding="utf-8") + HtmlFormatter(style="default").get_style_defs(".code") + STYLE
    script = SCRIPT.replace("%WIDTH%", str(WIDTH)).replace("%HEIGHT%", str(HEIGHT))
    reveal = (ASSETS / "reveal.js").read_text(encoding="utf-8").replace("</script", "<\\/script")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n"
        f'<body><main><div class="reveal"><div class="slides">\n{chr(10).join(sections)}\n</div></div></main>\n'
        f"<script>{reveal}</script><script>{script}</script></body></html>\n"
    )


def make(folder: Path, out: Path) -> list:
    """Makes slides of a folder's notebooks; returns their paths."""
    notebooks = lesson(folder)
    out.mkdir(parents=True, exist_ok=True)
    for path, notebook in notebooks:
        (out / f"{path.stem}.html").write_text(page(notebook, path), encoding="utf-8")
    return [path for path, _ in notebooks]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, required=True, help="the folder with the notebooks")
    parser.add_argument("--out", type=Path, required=True, help="where the slides go")
    arguments = parser.parse_args()
    paths = make(arguments.notebooks, arguments.out)
    if not paths:
        print(f"lab slides: no notebooks in {arguments.notebooks}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: slides of {len(paths)} notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
