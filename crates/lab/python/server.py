"""A JupyterLab server of our own on this machine: a free port, a random token, nobody's settings."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# No question about news; and all cells in the page, not only those near the window.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


class Server:
    """Use it in a `with`: the server and its kernels are shut down whatever happens."""

    def __init__(self, folder: Path, out: Path):
        self.token, self.log = secrets.token_hex(24), out / "jupyterlab.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        state = out / "jupyter"
        shutil.rmtree(state, ignore_errors=True)
        settings = state / "settings"
        for name, values in SETTINGS.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(values))
        kinds = ("CONFIG", "DATA", "RUNTIME")
        self.environment = os.environ | {f"JUPYTER_{kind}_DIR": str(state / kind.lower()) for kind in kinds}
        self.environment |= {
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
            "JUPYTER_TOKEN": self.token,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "server"),
        }
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": folder,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            # As `make lab` does.
            "LabApp.expose_app_in_browser": True,
            "ServerApp.kernel_websocket_connection_class": "lesson_server.Connection",
        }
        self.command = [sys.executable, "-m", "jupyterlab", *(f"--{key}={value}" for key, value in options.items())]
        self.process = None

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we shut the server down ourselves
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """A polite kill lets the server shut its kernels down first."""
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def url(self, path: str) -> str:
        """The address of a page, with the token."""
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def stop_kernels(self):
        """Ends all kernels, each of which holds about a gigabyte."""
        for kernel in json.load(self._ask("api/kernels")):
            self._ask(f"api/kernels/{kernel['id']}", "DELETE").close()

    def _ask(self, path: str, method: str = "GET"):
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=30)

    def _wait(self):
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                self._ask("api/status").close()
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        raise SystemExit(f"lab browser: JupyterLab did not start; its own words are in {self.log}")
