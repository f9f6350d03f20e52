"""JupyterHub for a class on one machine. `lab class` starts it and says what is particular in LESSON_CLASS.

Every learner gets a folder with copies of the notebooks, a server and kernels of their own. All run as the one who
started the hub: this is for people who trust each other in one room. Who needs walls between learners, takes
containers (see notebooks/SERVER.md).
"""

import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path

LESSON = json.loads(os.environ["LESSON_CLASS"])
NOTEBOOKS, CLASS = Path(LESSON["notebooks"]), Path(LESSON["class"])


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def prepare(spawner):
    """A learner's folder; what is there already is theirs and stays."""
    home = CLASS / "learners" / spawner.user.name
    own = home / "notebooks"
    own.mkdir(parents=True, exist_ok=True)
    for notebook in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        if not (own / notebook.name).exists():
            shutil.copyfile(notebook, own / notebook.name)
    # Read by all, written by none: the trained weights, the glossary, and the support crate that the first cell names.
    shared = [(own / name, NOTEBOOKS / name) for name in ("weights", "GLOSSARY.md")]
    for link, target in (*shared, (home / "crates", NOTEBOOKS.parent / "crates")):
        if not link.is_symlink() or link.readlink() != target:  # the clone may have been moved
            link.unlink(missing_ok=True)
            link.symlink_to(target)


c = get_config()  # noqa: F821 (JupyterHub gives it)
c.JupyterHub.bind_url = f"http://{LESSON['host']}:{LESSON['port']}"
c.JupyterHub.hub_port = free_port()
c.JupyterHub.db_url = f"sqlite:///{CLASS / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(CLASS / "cookie_secret")
c.JupyterHub.cleanup_servers = True
c.ConfigurableHTTPProxy.command = LESSON["proxy"]
c.ConfigurableHTTPProxy.log_level = "warn"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{free_port()}"
c.ConfigurableHTTPProxy.pid_file = str(CLASS / "proxy.pid")

# One password for the class, on the blackboard; names are the learners' own, and name a folder.
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = LESSON["password"]
c.SharedPasswordAuthenticator.allow_all = True
c.Authenticator.username_pattern = r"[a-z][a-z0-9_-]{0,30}"

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(CLASS / "learners" / "{username}")
c.Spawner.notebook_dir = str(CLASS / "learners" / "{username}" / "notebooks")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = [*LESSON["lab"], "--ServerApp.log_level=WARN", "--JupyterHubSingleUser.log_level=WARN"]
c.Spawner.default_url = "/lab/tree/00_rust_in_ten_minutes.ipynb"
c.Spawner.environment = {"OMP_NUM_THREADS": str(LESSON["threads"]), "JUPYTER_PREFER_ENV_PATH": "1"}
c.Spawner.env_keep = [name for name in os.environ if not re.match("LESSON_|JUPYTERHUB_|CONFIGPROXY_", name)]
c.Spawner.pre_spawn_hook = prepare
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.JupyterHub.concurrent_spawn_limit = 100  # a class comes all at once

if LESSON.get("token"):  # `lab class --measure`
    c.JupyterHub.services = [{"name": "measure", "api_token": LESSON["token"]}]
    c.JupyterHub.load_roles = [{"name": "measure", "services": ["measure"], "scopes": ["admin:users", "admin:servers", "access:servers"]}]
