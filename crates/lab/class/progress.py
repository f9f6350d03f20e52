"""The teacher's page of a class: which learner has tried and solved which exercise, live. JupyterHub starts it as a service.

`diffusion::check` adds a line to `progress.tsv` in the learner's folder (notebook, whether it is solved, the hints of the check), and
this page reads these files. Nothing leaves the machine.
"""

import html
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlparse

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler, authenticated

AT_MOST = 1_000_000  # bytes of a learner's file that are read

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Exercises of the class</title><style>
body {{ font: 18px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; }} th, td {{ border: 1px solid #bbb; padding: .3em .7em; text-align: center; }}
th[scope=row] {{ text-align: left; font-weight: 600; }} caption {{ text-align: left; padding-bottom: .7em; }}
.solved {{ background: #cdeccf; }} .tried {{ background: #fdebc8; }}
</style></head><body><main><h1>Exercises of the class</h1><div id="table" aria-live="polite">{table}</div></main>
<script>setInterval(async () => {{
  const answer = await fetch(location.href, {{headers: {{"X-Part": "table"}}}});
  if (answer.ok && !answer.redirected) document.getElementById("table").innerHTML = await answer.text();
}}, 3000);</script></body></html>
"""


def exercises(notebooks: Path) -> list[tuple[str, str, set[str]]]:
    """The lesson's exercises in order: notebook, a short name, and the hints of its check."""
    found = []
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        except (ValueError, KeyError, OSError):
            continue
        open_exercises = 0
        for cell in cells:
            source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
            if "exercise" in tags:
                open_exercises += 1
            elif open_exercises and cell["cell_type"] == "code" and "check(" in source and "solution" not in tags:
                number = sum(name == path.name for name, _, _ in found) + 1
                hints = {json.loads(f'"{text}"') for text in re.findall(r'"((?:[^"\\\n]|\\["\\])*)"', source)} - {""}
                found.append((path.name, f"{int(path.name[:2])}.{number}", hints))
                open_exercises = 0
    return found


def plainly(path, flags):
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def learnt(folder: Path, known) -> dict[str, str]:
    """What a learner has done, by the exercises' short names: `solved` once it was, else `tried`."""
    done = {}
    try:
        # The file is the learner's: a link in its place may lead anywhere, and a pipe would never end.
        with open(folder / "progress.tsv", encoding="utf-8", errors="replace", opener=plainly) as file:
            lines = file.read(AT_MOST).splitlines()
    except OSError:
        return done
    for line in lines:
        notebook, solved, *said = [*line.split("\t"), ""]
        for name, short, hints in known:
            if name == notebook.rsplit("/", 1)[-1] and hints.intersection(said):
                done[short] = "solved" if solved == "solved" or done.get(short) == "solved" else "tried"
    return done


def table(notebooks: Path, learners: Path) -> str:
    known = exercises(notebooks)
    names = sorted(path.name for path in learners.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "teacher") if learners.is_dir() else []
    if not names:
        return "<p>Nobody has come in yet.</p>"
    head = "".join(f'<th scope="col">{short}</th>' for _, short, _ in known)
    rows = []
    for name in names:
        done = learnt(learners / name, known)
        cells = "".join(f'<td class="{done.get(short, "")}">{done.get(short, "")}</td>' for _, short, _ in known)
        rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    caption = "<caption>Learners by exercises; 3.2 is the second one of notebook 3.</caption>"
    return f'<table>{caption}<thead><tr><th scope="col">learner</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


class Page(HubOAuthenticated, RequestHandler):
    """For whoever may see the hub's services, which is its administrator: the teacher."""

    @authenticated
    def get(self):
        content = table(*(Path(path) for path in sys.argv[1:3]))
        self.finish(content if self.request.headers.get("X-Part") == "table" else PAGE.format(table=content))


def main():
    prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
    handlers = [(prefix, Page), (prefix + "oauth_callback", HubOAuthCallbackHandler)]
    place = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
    Application(handlers, cookie_secret=os.urandom(32)).listen(place.port, place.hostname)
    IOLoop.current().start()


if __name__ == "__main__":
    main()
