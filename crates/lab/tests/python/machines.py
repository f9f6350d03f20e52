"""Set-up and a notebook on a machine that is odd in one way: `machines.py LAB CLONE ONE`, where ONE is a function below.

Each makes a copy of the clone, sets it up with the cache that is there, and runs notebook 0 in a real kernel. What needs other rights than
this user has is skipped with a line.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAB, CLONE = Path(sys.argv[1]), Path(sys.argv[2])
NOTEBOOK = "00_rust_in_ten_minutes.ipynb"
NOT_COPIED = ("target", "class", "saved", ".git")
LOG = CLONE / "target/test-run/machines.log"
QUICK = 5  # seconds in which set-up says what cannot be


def check(right: bool, what: str):
    print(f"{'ok  ' if right else 'NOT '} {what}", flush=True)
    if not right:
        sys.exit(1)


class Machine:
    """A copy of the clone in a folder, with more variables in its environment, and words before each command (such as `unshare`)."""

    def __init__(self, root: Path, env: dict | None = None, before: list | None = None, target: Path | None = None):
        self.root, self.before = root, before or []
        self.env = {**os.environ, **(env or {})}
        self.env.pop("LIBTORCH", None)
        shutil.copytree(CLONE, root, ignore=lambda folder, names: NOT_COPIED if Path(folder) == CLONE else ())
        # The Python packages as they are: installing them is not what is tried here.
        (root / "target").symlink_to(target) if target else (root / "target").mkdir()
        python, own = CLONE / "target/python", root / "target/python"
        if subprocess.run(["cp", "-al", python, own], capture_output=True).returncode:
            shutil.rmtree(own, ignore_errors=True)
            subprocess.run(["cp", "-a", python, own], check=True)
        stamp = own / "share/diffusion-lesson.stamp"
        text = stamp.read_text().replace(str(python), str(own))
        stamp.unlink()  # the other name is the clone's
        stamp.write_text(text)

    def lab(self, *words) -> tuple[int, str, float]:
        """The workbench: how it ended, what it said, after how many seconds."""
        began = time.monotonic()
        command = [*self.before, LAB, "--root", self.root, *words]
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        LOG.parent.mkdir(parents=True, exist_ok=True)
        with LOG.open("a") as log:
            log.write(f"== {sys.argv[3]}: {' '.join(map(str, words))}\n{done.stdout}\n")
        return done.returncode, done.stdout, time.monotonic() - began

    def works(self, unused: tuple = ()):
        """Set-up and the notebook; all speed-ups but those in `unused` are used."""
        code, said, seconds = self.lab("setup")
        check(code == 0, f"set-up, {seconds:.0f} s" if code == 0 else said)
        code, said, _ = self.lab("doctor")
        slow = [line for line in said.splitlines() if line.startswith("speed-up") and ("not used" in line or "all off" in line)]
        slow = [line for line in slow if not any(word in line for word in unused)]
        check(code == 0 and not slow, "all is well, says the doctor" if code == 0 and not slow else said)
        self.runs()

    def runs(self):
        code, said, seconds = self.lab("run", self.root / "notebooks" / NOTEBOOK, "--out", self.root / "target/out")
        check(code == 0, f"notebook 0, {seconds:.0f} s" if code == 0 else said)


@contextlib.contextmanager
def scratch(beside: Path | None = None):
    """A folder that goes away afterwards; beside the clone, hard links to its files are possible."""
    folder = Path(tempfile.mkdtemp(prefix="lesson-machine-", dir=beside)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shim(folder: Path, code: str) -> dict:
    """A library that changes what the system answers, for all programs that are started with these variables."""
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text("#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <errno.h>\n#include <fcntl.h>\n#include <sys/file.h>\n" + code)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def another_file_system():
    """The clone on one file system, the cache on another, `target` a link to a third place; and a path with all sorts of letters."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == CLONE.stat().st_dev:
        return print("skipped: no second file system at /dev/shm")
    with scratch(memory) as there, scratch() as elsewhere:
        root = there / "a lesson, [é] e\u0301" / ("long" * 40)
        root.mkdir(parents=True)
        Machine(root / "clone", target=elsewhere).works()


def no_hard_links_and_no_locks():
    with scratch() as folder:
        code = "int link(const char *a, const char *b) { errno = EPERM; return -1; }\n"
        code += "int linkat(int a, const char *b, int c, const char *d, int e) { errno = EPERM; return -1; }\n"
        lock = "int flock(int f, int o) { %s errno = ENOSYS; return -1; }\n"
        machine = Machine(folder / "clone", shim(folder, code + lock % ""))
        end, said, seconds = machine.lab("setup")
        right = end != 0 and "has no locks" in said and "make `target` a link" in said and seconds < QUICK
        check(right, f"set-up says after {seconds:.1f} s that compilers need locks: {said[-400:]}")
        # Everywhere but where compilers work.
        target = f"""char fd[64], path[4096]; int n; snprintf(fd, 64, "/proc/self/fd/%d", f); n = readlink(fd, path, 4095); path[n < 0 ? 0 : n] = 0;
    if (!strncmp(path, "{folder}/clone/target/", {len(str(folder)) + 14})) return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(f, o);"""
        machine.env.update(shim(folder, "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\n" + code + lock % target))
        machine.works()


def locks_of_a_network():
    """As on NFS: a lock held alone needs a file open for writing, a shared one a file open for reading."""
    with scratch() as folder:
        code = """int flock(int f, int o) {
    int how = fcntl(f, F_GETFL) & O_ACCMODE, kind = o & ~LOCK_NB;
    if ((kind == LOCK_EX && how == O_RDONLY) || (kind == LOCK_SH && how == O_WRONLY)) { errno = EBADF; return -1; }
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(f, o);
}
"""
        Machine(folder / "clone", shim(folder, code)).works()


def a_home_that_cannot_be_written_to():
    home = Path.home()
    places = {
        "DIFFUSION_CACHE": os.environ.get("DIFFUSION_CACHE", str(home / ".cache/diffusion-lesson")),
        "CARGO_HOME": os.environ.get("CARGO_HOME", str(home / ".cargo")),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home / ".rustup")),
    }
    with scratch() as folder:
        (folder / "home").mkdir()
        before = apart(f"mount -t tmpfs -o ro tmpfs {folder}/home")
        if not before:
            return
        probe = subprocess.run([*before, "touch", folder / "home/x"], capture_output=True)
        check(probe.returncode != 0, "the home cannot be written to")
        machine = Machine(folder / "clone", {**places, "HOME": str(folder / "home")}, before)
        machine.works()
        del machine.env["DIFFUSION_CACHE"]
        code, said, seconds = machine.lab("setup")
        words = "set DIFFUSION_CACHE to a folder in another place"
        check(code != 0 and words in said and seconds < QUICK, f"without a cache elsewhere set-up says so after {seconds:.1f} s: {said[-400:]}")


def apart(mount: str) -> list:
    """Words before a command that run it where this was mounted, and nobody else sees it."""
    words = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c", f'{mount} && exec "$@"', "sh"]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True)
    if tried.returncode:
        print(f"skipped: {tried.stderr.strip()}")
        return []
    return words


def a_full_disk():
    with scratch() as folder:
        (folder / "small").mkdir()
        before = apart(f"mount -t tmpfs -o size=100m tmpfs {folder}/small")
        if not before:
            return
        machine = Machine(folder / "clone")
        machine.before, machine.env["DIFFUSION_CACHE"] = before, str(folder / "small/cache")
        code, said, seconds = machine.lab("setup")
        right = code != 0 and "too little room" in said and "DIFFUSION_CACHE" in said and seconds < QUICK
        check(right, f"set-up says after {seconds:.1f} s that there is too little room: {said[-400:]}")
    with scratch(Path("/dev/shm")) as folder:
        # A disk that fills up later: a kernel says so, and works again when there is room.
        machine = Machine(folder / "clone")
        machine.works()
        small = apart(f"mount -t tmpfs -o size=1m tmpfs {machine.root}/target/kernel/run")
        machine.before = small
        code, said, _ = machine.lab("run", machine.root / "notebooks" / NOTEBOOK, "--out", folder / "out")
        right = code != 0 and "No space left on device" in said and "panicked" not in said
        check(right, f"on a full disk a kernel says so: {said[-600:]}")
        machine.before = []
        machine.runs()


def settings_of_ones_own():
    """A user's own settings of cargo, and what a shell may have set for other builds. Kernels stay warm."""
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    with scratch() as folder:
        own = folder / "cargo"
        own.mkdir()
        for name in ("registry", "git", "bin", "env"):
            if (home / name).exists():
                (own / name).symlink_to(home / name)
        wrapper, linker, log = folder / "wrapper", folder / "linker", folder / "calls"
        wrapper.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec "$@"\n')
        linker.write_text('#!/bin/sh\nexec cc "$@"\n')
        for script in (wrapper, linker):
            script.chmod(0o755)
        host = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
        vendored = subprocess.run(
            ["cargo", "vendor", "--locked", "--versioned-dirs", folder / "vendor"], cwd=CLONE, capture_output=True, text=True, check=True
        ).stdout
        (own / "config.toml").write_text(
            f'{vendored}\n[build]\nrustc-wrapper = "{wrapper}"\n[target.{host}]\nlinker = "{linker}"\n[profile.dev]\ndebug = 1\nopt-level = 1\n'
        )
        shell = {
            "CARGO_HOME": str(own),
            "CARGO_TARGET_DIR": str(folder / "elsewhere"),
            "RUSTFLAGS": "-C debuginfo=1",
            "RUSTC_WRAPPER": "",
            "LIBTORCH_USE_PYTORCH": "1",
            "LIBTORCH_LIB": "/nowhere",
            "PIP_USER": "1",
            "PATH": f"{own}/bin:/usr/local/bin:/usr/bin:/bin",
        }
        machine = Machine(folder / "clone", shell)
        machine.works(unused=("linked with one library",))  # with a linker of one's own
        before = log.read_text().splitlines()
        check(any("--crate-name diffusion " in line for line in before), "set-up compiled the lesson's crates with these settings")
        machine.runs()
        after = log.read_text().splitlines()[len(before):]
        check(not any("--crate-name diffusion " in line for line in after), "no kernel compiles the lesson's crates again")


def an_update_of_rust():
    """New files take the place of the old, as rustup puts them; kernels that run, and new ones, keep the Rust that they were set up with."""
    home = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
    sysroot = Path(subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()).resolve()
    if not sysroot.is_relative_to(home.resolve()):
        return print("skipped: this Rust is not rustup's")
    with scratch(CLONE.parent) as folder:
        rustup = folder / "rustup"
        rustup.mkdir()
        if subprocess.run(["cp", "-al", *home.iterdir(), rustup], capture_output=True).returncode:
            return print("skipped: rustup's home is on another file system")
        machine = Machine(folder / "clone", {"RUSTUP_HOME": str(rustup)})
        machine.env.pop("RUSTUP_TOOLCHAIN", None)
        machine.works()
        os.environ["RUSTUP_HOME"] = machine.env["RUSTUP_HOME"]
        sys.path.insert(0, str(CLONE / "crates/lab/python"))
        from kernel import Kernel

        sys.prefix = str(machine.root / "target/python")  # where a kernel's specification is looked for

        def says(kernel, code: str, expected: str, what: str):
            result = kernel.run(code, 300)
            check(expected in result.text("stdout"), f"{what} {result if expected not in result.text('stdout') else ''}")

        use = ':dep diffusion = { path = "../crates/diffusion" }\nuse diffusion::prelude::*;\nlet digit: Tensor = Mnist::load()?.test.images(1)?;\n'
        with Kernel(machine.root / "notebooks", folder / "one.log") as one:
            says(one, use + 'println!("{:?}", digit.size());', "[1, 1, 28, 28]", "a kernel before the update")
            toolchain = rustup / sysroot.relative_to(home.resolve())
            for old in [path for part in ("bin", "lib") for path in (toolchain / part).rglob("*") if path.is_file()]:
                old.unlink()
                old.write_text(f"#!/bin/sh\ncase $2 in sysroot) echo {toolchain};; *) echo rustc 1.99.0;; esac\n")
                old.chmod(0o755)
            says(one, 'fn later() -> i64 { 41 }\nprintln!("{:?} {}", digit.size(), later() + 1);', "[1, 1, 28, 28] 42", "and after it")
            with Kernel(machine.root / "notebooks", folder / "two.log") as two:
                says(two, use + 'println!("{:?}", digit.size());', "[1, 1, 28, 28]", "a kernel that was started after it")
        code, said, _ = machine.lab("doctor")
        check("toolchain" in said and "of another Rust" in said, f"the doctor sees the update: {said}")


if __name__ == "__main__":
    globals()[sys.argv[3]]()
