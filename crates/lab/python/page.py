"""A notebook as one HTML page that needs nothing from the network.

nbconvert's own page fetches require.js, MathJax and mermaid from elsewhere; this one leaves them
out, writes formulas as MathML, which browsers draw by themselves, and folds hidden inputs
(solutions) instead of showing them.
"""

from pathlib import Path

from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>summary { font: var(--jp-ui-font-size1) var(--jp-ui-font-family); padding: 4px 84px; cursor: pointer; }</style>
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


def page(notebook, path: Path) -> str:
    """The page's text; `path` is the notebook's, for its title and for pictures that lie beside it."""
    folder = str(path.parent)

    def markdown(source: str) -> str:
        renderer = Renderer(escape=False, embed_images=True, path=folder, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)

    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    exporter.register_filter("markdown2html", markdown)
    return exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem, "path": folder}})[0]
