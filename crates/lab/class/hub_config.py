"""JupyterHub for a class on one machine. `lab class` starts it and says what is particular in LESSON_CLASS.

Every learner gets a folder with copies of the notebooks, a server and kernels of their own. Where root starts the hub, each learner is a
user of the machine, so that nobody can change what others or all have (`walls`); else all run as the one who started it.
"""

import grp
import hashlib
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from jupyterhub.spawner import SimpleLocalProcessSpawner, set_user_setuid
from tornado.web import HTTPError

LESSON = json.loads(os.environ.pop("LESSON_CLASS"))
NOTEBOOKS, CLASS = Path(LESSON["notebooks"]), Path(LESSON["class"])
LEARNERS, HUB = CLASS / "learners", CLASS / "hub"
NAMES = HUB / "names.json"
TEACHER = "teacher"

AT_MOST = 18  # letters of a name; a user of the machine has 32

# What the hub knows is for nobody else; learners must find their folders, whatever the teacher's shell gives to new ones.
for folder, mode in ((CLASS, 0o755), (LEARNERS, 0o755), (HUB, 0o700)):
    folder.mkdir(mode=mode, exist_ok=True)
    folder.chmod(mode)
# A server that runs as a learner gets nothing of the hub's terminal, which may be root's, and nothing of its environment.
LOG = os.open(HUB / "servers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
APART = {"stdin": subprocess.DEVNULL, "stdout": LOG, "stderr": LOG}


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


class Door(SharedPasswordAuthenticator):
    """One password for the class, on the blackboard, and a word of each learner's own, so that nobody comes in by another's name."""

    async def authenticate(self, handler, data):
        user = await super().authenticate(handler, data)
        if not user or user["name"] == TEACHER:
            return user
        name, word = user["name"], data.get("otp", "")
        if not self.validate_username(name):
            raise HTTPError(403, "A name has small letters from a to z, digits, - and _, begins with a letter, and is at most 18 long.")
        if len(word) < 4:
            raise HTTPError(403, "Your own word has at least 4 letters. Choose one; with it you come back to your notebooks.")
        known = json.loads(NAMES.read_text()) if NAMES.exists() else {}
        salt, kept = known.get(name) or (secrets.token_hex(16), None)
        found = hashlib.scrypt(word.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1).hex()
        if kept is None:
            half = NAMES.with_suffix(".half")
            with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump({**known, name: (salt, found)}, file)
            half.rename(NAMES)
        elif not secrets.compare_digest(kept, found):
            raise HTTPError(403, f"Somebody has the name {name} already. If that is you, type the same word as before; else choose another name.")
        return user


class Spawner(SimpleLocalProcessSpawner):
    """A learner's server, as the learner's own user of the machine where there are walls."""

    def make_preexec_fn(self, name):
        return set_user_setuid(system_name(name)) if LESSON["walls"] else super().make_preexec_fn(name)

    def user_env(self, env):
        env = super().user_env(env)
        if LESSON["walls"]:
            env["USER"] = env["LOGNAME"] = system_name(self.user.name)
        return env


def system_name(name: str) -> str:
    """A learner's name as a user of the machine: of this class and no other clone's, and none that is there for something else."""
    return f"lesson-{hashlib.sha256(str(CLASS).encode()).hexdigest()[:6]}-{name}"


def known_user(name: str):
    """The learner's user of the machine, whose group is its own; None where there is none."""
    try:
        found = pwd.getpwnam(system_name(name))
    except KeyError:
        return None
    if not found.pw_uid or grp.getgrgid(found.pw_gid).gr_name != system_name(name):
        raise RuntimeError(f"the user {system_name(name)} of this machine was not made for a class")
    return found


def system_user(name: str, home: Path):
    """Makes the user where there is none."""
    if known_user(name) is None:
        command = ["useradd", "--user-group", "--no-create-home", "--home-dir", home, "--shell", "/usr/sbin/nologin", system_name(name)]
        subprocess.run(command, check=True)
    return known_user(name)


def prepare(spawner):
    """A learner's folder. What is in it is made by the learner's own user: as root, we would follow whatever links lie there."""
    home, user = LEARNERS / spawner.user.name, {}
    home.mkdir(exist_ok=True)
    if LESSON["walls"]:
        found = system_user(spawner.user.name, home)
        if home.stat().st_uid != found.pw_uid:  # new, or from a class without walls
            taken_over(home, found)
        home.chmod(0o700)
        user = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    command = [sys.executable, "-B", Path(__file__).with_name("folder.py"), NOTEBOOKS, home]
    subprocess.run(command, check=True, cwd="/", env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}, **APART, **user)


def end(spawner):
    """Ends what a learner has left running, in a terminal or from a cell, when the server has ended."""
    user = known_user(spawner.user.name) if LESSON["walls"] else None
    if user:
        # All that this user may end: its own. Kernels' directories have nobody left to remove them.
        command = ["sh", "-c", 'kill -KILL -1; rm -rf "$0"', LEARNERS / spawner.user.name / "kernels"]
        env = {"PATH": os.environ["PATH"]}
        subprocess.run(command, cwd="/", env=env, **APART, user=user.pw_uid, group=user.pw_gid, extra_groups=[])


def taken_over(home: Path, user):
    """Makes an old folder the learner's. Its files are copied: in a class without walls some may have been second names of everybody's."""
    shutil.rmtree(home / "kernels", ignore_errors=True)
    new, old = (home.with_name(f".{home.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(home, new, symlinks=True)
    subprocess.run(["chown", "-R", "--no-dereference", f"{user.pw_uid}:{user.pw_gid}", new], check=True)
    home.rename(old)
    new.rename(home)
    shutil.rmtree(old)


c = get_config()  # noqa: F821 (JupyterHub gives it)
c.JupyterHub.bind_url = f"http://{LESSON['host']}:{LESSON['port']}"
c.JupyterHub.hub_port = free_port()
c.JupyterHub.db_url = f"sqlite:///{HUB / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")
c.JupyterHub.cleanup_servers = True
c.ConfigurableHTTPProxy.command = LESSON["proxy"]
c.ConfigurableHTTPProxy.log_level = "warn"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{free_port()}"
c.ConfigurableHTTPProxy.pid_file = str(HUB / "proxy.pid")

# Names are the learners' own, and name a folder. JupyterHub looks whether a name begins as the pattern says.
c.JupyterHub.authenticator_class = Door
c.Door.user_password, c.Door.admin_password = LESSON["password"], LESSON["teacher"]
c.Door.allow_all, c.Door.admin_users = True, {TEACHER}
c.Door.request_otp, c.Door.otp_prompt = True, "A word of your own (choose one; you need it to come back):"
c.Authenticator.username_pattern = rf"[a-z][a-z0-9_-]{{0,{AT_MOST - 1}}}\Z"

c.JupyterHub.spawner_class = Spawner
c.SimpleLocalProcessSpawner.home_dir_template = str(LEARNERS / "{username}")
c.Spawner.notebook_dir = str(LEARNERS / "{username}" / "notebooks")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
# A kernel whose notebook was closed ends after a while, and gives its memory back; not while it trains.
CULL = ["--ServerApp.kernel_manager_class=lesson_server.Kernels", "--MappingKernelManager.cull_idle_timeout=1200", "--MappingKernelManager.cull_interval=60"]
c.Spawner.args = [*LESSON["lab"], *CULL, "--ServerApp.log_level=WARN", "--JupyterHubSingleUser.log_level=WARN"]
c.Spawner.default_url = "/lab/tree/00_rust_in_ten_minutes.ipynb"
c.Spawner.environment = {
    "OMP_NUM_THREADS": str(LESSON["threads"]),
    "JUPYTER_PREFER_ENV_PATH": "1",
    "LAB_RUNS": lambda spawner: str(LEARNERS / spawner.user.name / "kernels"),
    "LESSON_PROGRESS": lambda spawner: str(LEARNERS / spawner.user.name / "progress.tsv"),
}
c.Spawner.popen_kwargs = APART
# The teacher's environment may hold keys and passwords; a server needs its programs, its language and its clock, and kernels what decides
# how they are compiled and shown.
c.Spawner.env_keep = """PATH PYTHONPATH LANG LC_ALL LC_CTYPE TZ CC CXX CFLAGS CXXFLAGS LDFLAGS LAB_PLAIN LESSON_BACKTRACE
OPS_IMPLEMENTATION""".split()
c.Spawner.pre_spawn_hook, c.Spawner.post_stop_hook = prepare, end
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.JupyterHub.concurrent_spawn_limit = 100  # a class comes all at once

c.JupyterHub.services = [
    {
        "name": "progress",
        "url": f"http://127.0.0.1:{free_port()}",
        "command": [sys.executable, str(Path(__file__).with_name("progress.py")), str(NOTEBOOKS), str(LEARNERS)],
        "display": False,
        "oauth_no_confirm": True,
    }
]
if LESSON.get("token"):  # `lab class --measure`
    c.JupyterHub.services.append({"name": "measure", "api_token": LESSON["token"]})
    c.JupyterHub.load_roles = [{"name": "measure", "services": ["measure"], "scopes": ["admin:users", "admin:servers", "access:servers"]}]
