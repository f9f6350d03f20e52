"""A notebook as one HTML page that needs nothing from the network.

nbconvert's own page fetches require.js, MathJax and mermaid from elsewhere; this one leaves them
out, writes formulas as MathML, which browsers draw by themselves, and folds hidden inputs
(solutions) instead of showing them.
"""

import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
/* JupyterLab's own colours for numbers, comments and prompts are too pale to read for some. */
body { --jp-mirror-editor-number-color: #006100; --jp-mirror-editor-comment-color: #2b5f5f; }
.jp-InputPrompt, .jp-OutputPrompt { color: #595959 !important; opacity: 1 !important; }
/* So are the compiler's colours on the red of an error. */
[data-mime-type="application/vnd.jupyter.stderr"] span { color: #7a1f1f !important; }
.jp-RenderedHTMLCommon a { text-decoration: underline !important; }
summary { font: var(--jp-ui-font-size1) var(--jp-ui-font-family); padding: 4px 84px; cursor: pointer; }</style>
{%- endblock -%}
{%- block input_group -%}
{%- if cell.metadata.get('jupyter', {}).get('source_hidden') -%}
<details><summary>Show the code</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock -%}
"""


class Renderer(IPythonRenderer):
    """Markdown to HTML, formulas to MathML."""

    def inline_math(self, body: str, display: str = "inline") -> str:
        try:
            return convert(body, display=display)
        except Exception:  # a formula the converter does not know is shown as it was written
            return f"<code>{self.escape_html(body)}</code>"

    def block_math(self, body: str) -> str:
        return self.inline_math(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def markdown_of(folder: Path):
    """From a notebook's Markdown to HTML; pictures that lie in its folder become part of the text."""

    def markdown(source: str) -> str:
        renderer = Renderer(escape=False, embed_images=True, path=str(folder), exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)

    return markdown


def lesson(folder: Path) -> list:
    """The lesson's notebooks as pairs of path and content, in their order. What is no notebook with a title, and what is a copy, is
    named and left out."""
    found = []
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        reason, notebook = None, None
        try:
            notebook = nbformat.read(path, as_version=4)
            if not notebook.cells or not notebook.cells[0].source.startswith("# "):
                reason = "it does not begin with a title"
        except Exception as error:  # whatever nbformat stumbles over: the file is not a notebook
            reason = f"it is no notebook ({type(error).__name__})"
        if re.search(r"-Copy\d*$", path.stem):
            reason = "it is a copy"
        if reason:
            print(f"left out: {path.name}: {reason}", flush=True)
        else:
            found.append((path, notebook))
    return found


def to_pages(text: str) -> str:
    """Links between notebooks, and to the texts beside them, become links between pages."""
    text = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', text)
    return re.sub(r'href="([A-Z]+)\.md(#[\w-]+)?"', lambda link: f'href="{link[1].lower()}.html{link[2] or ""}"', text)


def page(notebook, path: Path) -> str:
    """The page's text; `path` is the notebook's, for its title and for pictures that lie beside it."""
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    exporter.register_filter("markdown2html", markdown_of(path.parent))
    resources = {"metadata": {"name": path.stem, "path": str(path.parent)}}
    return exporter.from_notebook_node(notebook, resources)[0]
