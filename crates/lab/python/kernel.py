"""One kernel, Rust unless another is named, of this Python's own environment: start it, run cells in it, stop it.

It talks to the kernel through jupyter_client, as JupyterLab does. evcxr speaks tcp only, so the
machine's loopback interface has to be up; `lab` sees to that.
"""

import contextlib
import os
import queue
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager
from nbformat.v4 import output_from_msg

# A kernel warms itself at its start, and compiles the lesson's crates first if they were edited.
START_LIMIT = 900
# evcxr forwards what a cell printed on a thread of its own, so lines may arrive after "idle".
QUIET = 0.1
IDLE, DEAD, TIMEOUT = "idle", "dead", "timeout"


class CannotRun(Exception):
    """There is no kernel to run anything in; the text says why, and the fix."""


class DidNotStart(Exception):
    """One kernel died or kept silent at its start; the text has its last words."""


@dataclass
class Result:
    """What came of one cell: how it ended (idle, dead, timeout), the reply's status, its outputs."""

    ended: str = IDLE
    status: str = "ok"
    outputs: list = field(default_factory=list)

    def text(self, *names):
        """All the text of the named streams ("stdout", "stderr"), in the order in which it came."""
        return "".join(o.text for o in self.outputs if o.output_type == "stream" and o.name in names)

    def add(self, message):
        """Keeps one message from the kernel if it is an output; a stream's pieces are joined."""
        if message["msg_type"] not in ("stream", "execute_result", "display_data", "error"):
            return
        output = output_from_msg(message)
        last = self.outputs[-1] if self.outputs else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            self.outputs.append(output)


class Kernel:
    """A running kernel. Use it in a `with`: it is shut down whatever happens."""

    def __init__(self, folder: Path, log: Path, name: str = "rust"):
        kernels = Path(sys.prefix, "share/jupyter/kernels")
        self.name, self.folder, self.log = name, folder, log
        self.client, self.busy, self.group = None, False, None
        self.manager = KernelManager(
            kernel_name=name, kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
        )
        try:
            self.manager.kernel_spec
        except NoSuchKernel:
            raise CannotRun(
                f"no kernel called `{name}` in {kernels}; `make test` and `make lesson` install it first"
            ) from None

    def __enter__(self):
        try:
            with self.log.open("wb") as log:
                # What follows a training in a browser waits for its end here, and shows that.
                env = os.environ | {"FIGURES_UNATTENDED": "1"}
                self.manager.start_kernel(cwd=str(self.folder), env=env, stdout=log, stderr=log)
            self.group = getattr(self.manager.provisioner, "pgid", None)
            self.client = self.manager.client()
            self.client.start_channels()
            self.client.wait_for_ready(timeout=START_LIMIT)
        except BaseException as error:
            self.stop()
            if isinstance(error, (RuntimeError, OSError)):
                raise DidNotStart(f"the kernel did not start: {error}{self.last_words()}") from error
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def run(self, code: str, limit: float) -> Result:
        """Runs one cell. A cell over its limit (seconds) is interrupted, which may lose all variables."""
        result, deadline = Result(), time.monotonic() + limit
        request = self.client.execute(code, allow_stdin=False)
        self.busy, idle, replied = True, False, None
        while not idle:
            message = self._next(self.client.get_iopub_msg, request, 0.2)
            if message:
                idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
                result.add(message)
            elif time.monotonic() > deadline:
                result.ended = TIMEOUT
                self.interrupt()
                break
            elif not self.manager.is_alive():
                result.ended, self.busy = DEAD, False
                break
            elif replied := replied or self._next(self.client.get_shell_msg, request, 0):
                idle = True
        while message := self._next(self.client.get_iopub_msg, request, QUIET):
            result.add(message)
        if result.ended == IDLE:
            self.busy = False
            replied = replied or self._next(self.client.get_shell_msg, request, 5)
            result.status = replied["content"]["status"] if replied else "error"
        return result

    def _next(self, channel, request: str, seconds: float):
        """The next message that belongs to a request, or None when the channel stays silent."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = channel(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if message["parent_header"].get("msg_id") == request:
                return message

    def interrupt(self):
        """Ends the cell that is running, as a person does: Stop, and Stop again if the cell does not heed it."""
        for _ in range(2):
            self.manager.interrupt_kernel()
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline and self.manager.is_alive():
                try:
                    content = self.client.get_iopub_msg(timeout=0.2)["content"]
                except queue.Empty:
                    continue
                if content.get("execution_state") == "idle":
                    self.busy = False
                    return

    def stop(self):
        """Shuts the kernel down: asked first, then terminated, then killed; and with it all it started."""
        if self.client and self.busy and self.manager.is_alive():
            self.interrupt()  # while a cell runs, evcxr does not answer a request to shut down
        if self.client:
            self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=False)
        if self.group and self.group != os.getpgrp():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)  # a cell's process, a compiler still at work
        self.client = self.group = None

    def last_words(self) -> str:
        """The end of what the kernel itself wrote, for an error's text."""
        words = self.log.read_text(errors="replace").strip()[-2000:] if self.log.exists() else ""
        return f"\nThe kernel's last words:\n{words}" if words else ""
