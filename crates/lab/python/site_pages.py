"""The lesson as a static site: every notebook as it was saved, with pictures and explorers, and an index.

`lab site` starts it with the project's Python. Nothing is run, and the pages need no network: they can be read from a
folder, a USB stick or any web server. Notebooks lie beside their pages.
"""

import argparse
import html
import re
import shutil
import sys
from pathlib import Path

from nbconvert.filters.markdown_mistune import markdown2html_mistune

from page import lesson, page, to_pages

STYLE = """
<style>
.site { position: sticky; top: 0; z-index: 10; display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center;
  padding: 8px 16px; font: 15px system-ui, sans-serif; background: #f4f4f4; border-bottom: 1px solid #999; }
.site a { color: #00508a; } .site form { margin-left: auto; }
.site input, .site button { font: inherit; padding: 3px 8px; }
main.index { max-width: 760px; margin: 0 auto; padding: 16px; font: 17px/1.5 system-ui, sans-serif; color: #222; }
main.index td, main.index th { padding: 6px 16px 6px 0; vertical-align: top; text-align: left; }
main.index td:first-child { min-width: 190px; } main.index td p { margin: 0; }
mark.found { background: #ffe08a; } mark.here { background: #ff9d3c; }
</style>
"""
# Finds within a page: all matches are marked, Enter goes from one to the next.
SEARCH = """
<script>
(function () {
  const form = document.querySelector(".site form"), [input, count] = [form.querySelector("input"), form.querySelector("output")];
  let marks = [], at = -1;
  function find(text) {
    marks.forEach((mark) => mark.replaceWith(mark.textContent));
    document.querySelector("main").normalize();
    marks = []; at = -1;
    if (text.length > 1) {
      const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
      const hits = [];
      for (let node; (node = walker.nextNode()); ) {
        if (!node.parentElement.closest("script, style, svg, math")) hits.push(node);
      }
      for (let node of hits) {
        for (let where; (where = node.data.toLowerCase().indexOf(text.toLowerCase())) >= 0; ) {
          const mark = document.createElement("mark"), rest = node.splitText(where);
          mark.className = "found";
          node = rest.splitText(text.length);
          rest.replaceWith(mark);
          mark.appendChild(rest);
          marks.push(mark);
        }
      }
    }
    count.textContent = text.length > 1 ? marks.length + " found" : "";
  }
  input.addEventListener("input", () => find(input.value));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!marks.length) return;
    if (at >= 0) marks[at].classList.remove("here");
    at = (at + 1) % marks.length;
    marks[at].classList.add("here");
    marks[at].scrollIntoView({ block: "center" });
  });
})();
</script>
"""
# What lies beside the notebooks: file, title, promise.
TEXTS = (
    ("GLOSSARY.md", "Glossary", "The words of the lesson, each with the notebook that explains it."),
    ("TEACHING.md", "For whoever teaches this", "A run sheet, what to change live, questions and answers."),
    ("SERVER.md", "One server for a class", "How many learners fit on one machine, and on a cluster."),
)
FIND = (
    '<form role="search"><label>Find on this page <input type="search"></label> <button>next</button> '
    '<output aria-live="polite"></output></form>'
)


def bar(links: list) -> str:
    """The bar on top: links as (address, text), and the search."""
    return f'<nav class="site">{" ".join(f"<a href={quoted(to)}>{html.escape(text)}</a>" for to, text in links)}{FIND}</nav>'


def quoted(text: str) -> str:
    return f'"{html.escape(text, quote=True)}"'


def title_and_promise(notebook) -> tuple:
    """A notebook's heading, and its first paragraph."""
    lines = [line for line in notebook.cells[0].source.splitlines() if line.strip()]
    return lines[0].lstrip("# "), lines[1] if len(lines) > 1 else ""


def whole(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{STYLE}</head><body>{body}{SEARCH}</body></html>\n'


def make(folder: Path, out: Path) -> list:
    """Makes the site of a folder's notebooks; returns their paths."""
    notebooks = lesson(folder)
    paths = [path for path, _ in notebooks]
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for at, (path, notebook) in enumerate(notebooks):
        title, promise = title_and_promise(notebook)
        links = [("index.html", "Contents")]
        links += [(f"{paths[at - 1].stem}.html", "← before")] if at else []
        links += [(f"{paths[at + 1].stem}.html", "next →")] if at + 1 < len(paths) else []
        links += [(path.name, "this notebook")]
        text = to_pages(page(notebook, path))
        text = text.replace("</head>", STYLE + "</head>", 1)
        text = re.sub(r"(<body[^>]*>)", lambda body: body[1] + bar(links), text, count=1)
        text = text.replace("</body>", SEARCH + "</body>")
        (out / f"{path.stem}.html").write_text(text, encoding="utf-8")
        shutil.copyfile(path, out / path.name)
        rows.append(f'<tr><td><a href="{path.stem}.html">{html.escape(title)}</a></td><td>{to_pages(markdown2html_mistune(promise))}</td></tr>')
    links = [("index.html", "Contents")]
    for name, title, promise in TEXTS:
        body = to_pages(markdown2html_mistune((folder / name).read_text(encoding="utf-8")))
        text = whole(title, f'{bar(links)}<main class="index">{body}</main>')
        page_name = f"{Path(name).stem.lower()}.html"
        (out / page_name).write_text(text, encoding="utf-8")
        rows.append(f'<tr><td><a href="{page_name}">{title}</a></td><td>{promise}</td></tr>')
    table = f"<table><tbody>{''.join(rows)}</tbody></table>"
    body = f'{bar(links)}<main class="index"><h1>Diffusion models, live, in Rust</h1>{table}</main>'
    (out / "index.html").write_text(whole("Diffusion models, live, in Rust", body), encoding="utf-8")
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, required=True, help="the folder with the notebooks")
    parser.add_argument("--out", type=Path, required=True, help="where the site goes")
    arguments = parser.parse_args()
    paths = make(arguments.notebooks, arguments.out)
    if not paths:
        print(f"lab site: no notebooks in {arguments.notebooks}", file=sys.stderr)
        return 2
    print(f"{arguments.out / 'index.html'}: {len(paths)} notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
