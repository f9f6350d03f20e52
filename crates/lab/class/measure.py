"""What learners at the same time cost: each has a server of the hub and runs notebook 4 from its first cell.

`lab class --measure N` starts it beside the hub. For each number of learners: how long until a kernel is ready, until
the three rows are there and until the notebook's end, and the most memory that hub, servers and kernels held together
(proportional set size: what processes share is counted once).
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from memory import megabytes  # noqa: E402

NOTEBOOK, TAG = "04_denoise.ipynb", "three-rows"


class Hub:
    """The hub's and its servers' REST interface."""

    def __init__(self, url: str, token: str):
        self.url, self.headers = url.rstrip("/"), {"Authorization": f"token {token}"}

    def ask(self, method: str, path: str, body=None):
        data = json.dumps(body).encode() if body is not None else (b"" if method == "POST" else None)
        request = urllib.request.Request(self.url + path, data=data, headers=self.headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def wait(self, path: str, seconds: float, done):
        """Asks until the answer is right."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.ask("GET", path)
                if done(answer):
                    return answer
            except (urllib.error.URLError, ConnectionError):
                pass
            if time.monotonic() > deadline:
                raise SystemExit(f"lab class: no answer from {path} within {seconds:g} s; the hub's own words stand above")
            time.sleep(0.3)


def cells() -> list:
    """The notebook's code cells: source and tags."""
    notebook = json.loads((Path(os.environ["LESSON_NOTEBOOKS"]) / NOTEBOOK).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in code]


# A cell that works until it is stopped.
ENDLESS = "loop { diffusion::ops::check_stop()?; std::thread::sleep(std::time::Duration::from_millis(1)); }"


async def learn(hub: Hub, name: str) -> dict:
    """One learner: a kernel, and all cells one after the other. Seconds from the first request; last a cell that is stopped."""
    start, times = time.monotonic(), {}
    kernel = await asyncio.to_thread(hub.ask, "POST", f"/user/{name}/api/kernels", {"name": "rust", "path": NOTEBOOK})
    address = f"{hub.url.replace('http', 'ws', 1)}/user/{name}/api/kernels/{kernel['id']}/channels"
    socket = await websocket_connect(HTTPRequest(address, headers=hub.headers, connect_timeout=120, request_timeout=300), max_message_size=100 << 20)

    async def request(kind: str, content: dict, fails: str = ""):
        header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "username": name, "session": name, "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        await socket.write_message(json.dumps(message))
        while True:
            text = await asyncio.wait_for(socket.read_message(), 1200)
            if text is None:
                raise SystemExit(f"lab class: {name}'s kernel hung up")
            answer = json.loads(text)
            if answer["parent_header"].get("msg_id") == header["msg_id"]:
                if fails and fails in answer["content"].get("text", ""):
                    fails = ""
                elif answer["msg_type"] == "error" or answer["content"].get("name") == "stderr":
                    raise SystemExit(f"lab class: {name}'s cell failed: {answer['content']}\n{content}")
                if answer["msg_type"] == f"{kind.removesuffix('_request')}_reply":
                    if fails:
                        raise SystemExit(f"lab class: {name}'s cell ended without `{fails}`\n{content}")
                    return

    async def run(source: str, fails: str = ""):
        await request("execute_request", {"code": source, "silent": False, "allow_stdin": False}, fails)

    await request("kernel_info_request", {})
    times["ready"] = time.monotonic() - start
    for source, tags in cells():
        await run(source)
        if TAG in tags:
            times["three rows"] = time.monotonic() - start
    times["all cells"] = time.monotonic() - start
    endless = asyncio.create_task(run(ENDLESS, "stopped"))
    await asyncio.sleep(2)
    start = time.monotonic()
    await asyncio.to_thread(hub.ask, "POST", f"/user/{name}/api/kernels/{kernel['id']}/interrupt")
    await endless
    times["stop"] = time.monotonic() - start
    await run("clean.size()")
    socket.close()
    await asyncio.to_thread(hub.ask, "DELETE", f"/user/{name}/api/kernels/{kernel['id']}")
    return times


async def watch(root: int, peak: list):
    while True:
        peak.append(await asyncio.to_thread(megabytes, root))
        await asyncio.sleep(1)


async def measure(hub: Hub, learners: int, root: int) -> dict:
    names = [f"learner-{number}" for number in range(1, learners + 1)]
    for name in names:
        try:
            hub.ask("POST", f"/hub/api/users/{name}")
        except urllib.error.HTTPError as error:
            if error.code != 409:  # is there already
                raise
        hub.ask("POST", f"/hub/api/users/{name}/server")
    for name in names:
        hub.wait(f"/hub/api/users/{name}", 180, lambda user: user.get("servers", {}).get("", {}).get("ready"))
    idle, peak = megabytes(root), []
    watcher = asyncio.create_task(watch(root, peak))
    times = await asyncio.gather(*(learn(hub, name) for name in names))
    watcher.cancel()
    for name in names:
        hub.ask("DELETE", f"/hub/api/users/{name}/server")
    line = {"learners": learners, "MB without kernels": round(idle), "MB at most": round(max(peak))}
    for what in times[0]:
        line[f"{what}, s (median)"] = round(statistics.median(each[what] for each in times), 1)
        line[f"{what}, s (last)"] = round(max(each[what] for each in times), 1)
    return line


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--hub", type=int, required=True, help="the hub's process id")
    parser.add_argument("learners", type=int, nargs="+")
    arguments = parser.parse_args()
    hub = Hub(arguments.url, os.environ["LESSON_TOKEN"])
    await asyncio.to_thread(hub.wait, "/hub/api/", 120, lambda _: True)
    for learners in arguments.learners:
        print(json.dumps(await measure(hub, learners, arguments.hub)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
