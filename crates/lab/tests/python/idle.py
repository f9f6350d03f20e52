"""Kernels of a class: one that does nothing ends, one that trains in the background does not before it is done. `idle.py FOLDER`."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from jupyter_client import BlockingKernelClient

ROOT = Path(__file__).resolve().parents[4]
PORT, TOKEN = 18765, "token"
LIMIT, SECONDS = 12, 40  # when an idle kernel ends, and for how long the other one computes
CELL = f"""std::thread::spawn(|| {{
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < {SECONDS} {{}}
}});"""


def ask(method: str, path: str, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/api/{path}", data, {"Authorization": f"token {TOKEN}"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "null")


def main():
    folder = Path(sys.argv[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "crates/lab/server"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    settings = [f"--ServerApp.port={PORT}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--ServerApp.allow_root=True",
                "--ServerApp.kernel_manager_class=lesson_server.Kernels", "--MappingKernelManager.cull_interval=4",
                f"--MappingKernelManager.cull_idle_timeout={LIMIT}", "--ServerApp.log_level=ERROR"]
    server = subprocess.Popen([sys.executable, "-m", "jupyter_server", *settings], env=environment)
    try:
        for _ in range(100):
            try:
                ask("GET", "status")
                break
            except OSError:
                time.sleep(0.3)
        idle, busy = (ask("POST", "kernels", {"name": "rust"})["id"] for _ in range(2))
        client = BlockingKernelClient(connection_file=str(folder / f"runtime/kernel-{busy}.json"))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=120)
        client.execute_interactive(CELL, timeout=60)
        client.stop_channels()
        began, ends = time.monotonic(), {}
        while len(ends) < 2 and time.monotonic() - began < 120:
            living = {kernel["id"] for kernel in ask("GET", "kernels")}
            for name in {idle, busy} - living - ends.keys():
                ends[name] = time.monotonic() - began
            time.sleep(0.5)
        assert idle in ends, "the idle kernel lives"
        assert busy in ends, "the kernel that has done its work lives"
        assert ends[idle] < SECONDS, f"the idle kernel ended after {ends[idle]:.0f} s"
        assert ends[busy] > SECONDS, f"the kernel that computed for {SECONDS} s was ended after {ends[busy]:.0f} s"
        print(f"idle: ended after {ends[idle]:.0f} s; computing for {SECONDS} s: after {ends[busy]:.0f} s")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
