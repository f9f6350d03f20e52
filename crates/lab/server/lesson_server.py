"""What JupyterLab's server adds to the stock Rust kernel, between the browser and the kernel.

- Shift-Tab: the kernel looks at what stands before the cursor, so within a name, and between the brackets of a call, it
  finds nothing. The question that it gets here is about the whole name, or about the function that is called.
- A half-typed cell of which the kernel makes nothing (`}`, `use diffusion::`) ends without a word; here it gets one.

- In a class, a kernel that nobody looks at any more is ended, unless it computes.

`lab jupyter` and `lab class` name the class `Connection` in the server's settings, and `lab class` also `Kernels`; both put this folder on
Python's path.
"""

import json
import os
import re
from pathlib import Path

from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

PROTOCOL = "v1.kernel.websocket.jupyter.org"
HEADER, CONTENT = 0, 3  # parts of a message from the browser
OUTPUTS = ("stream", "error", "execute_result", "display_data")
PAIRS = {")": "(", "]": "[", "}": "{"}

# What is no code: comments (block comments nest, so only their ends are here), text, letters.
TOKEN = re.compile(
    r"""//[^\n]* | /\* | \*/ | b?r(?P<hashes>\#*)".*?(?:"(?P=hashes)|\Z) | b?"(?:\\.|[^"\\])*(?:"|\Z) | b?'(?:\\.[^']*|[^'\\])' | [()\[\]{};] | \w+ | \S""",
    re.X | re.S,
)


def pieces(code: str):
    """The tokens of a cell with their places, without comments; last `None` if it ends within one."""
    depth = 0
    for found in TOKEN.finditer(code):
        token = found.group()
        if token == "/*":
            depth += 1
        elif token == "*/" and depth:
            depth -= 1
        elif not depth and not token.startswith("//"):
            yield token, found.start()
    if depth:
        yield None, len(code)


def unfinished(code: str):
    """What is missing in a cell of which the kernel makes nothing, or None."""
    opened, statement = [], []
    for token, _ in pieces(code):
        if token is None:
            return "This cell ends within a comment: `*/` is missing."
        if token in PAIRS.values():
            opened.append(token)
        elif token in PAIRS:
            if not opened or opened.pop() != PAIRS[token]:
                return f"`{token}` closes nothing in this cell: take it away, or open `{PAIRS[token]}` before it."
        statement = [] if token in ";{}" else [*statement, token]
    if opened:
        return f"`{opened[-1]}` is not closed in this cell."
    if statement[:1] == ["use"]:
        return "This `use` does not end: it takes a name and a semicolon, as in `use diffusion::scores::features;`."
    if statement[:1] == ["let"]:
        return "This `let` does not end: it takes a name and a value, as in `let level: f64 = 0.5;`."
    return None


def question(code: str, cursor: int) -> tuple[str, int]:
    """The code and the place in it at which the kernel finds what the cursor is at.

    That is the name under the cursor, or the function or struct between whose brackets the cursor stands. What is
    left open before it would only confuse: of the statement, the innermost expression remains. The kernel's own commands
    are left out: half of `:dep name = …` would send it to look for a crate.
    """
    code = re.sub(r"^[ \t]*:[a-z].*$", lambda line: " " * len(line.group()), code, flags=re.M)
    opened, begins = [], [0]  # brackets, and where at each depth the last expression begins

    def asked(depth: int, end: int) -> tuple[str, int]:
        kept = code[: begins[0]] + code[begins[depth] : end] if depth else code[:end]
        return kept, len(kept)

    for token, at in pieces(code):
        if token is None or at > cursor:
            break
        end = at + len(token)
        if cursor <= end and re.match(r"[^\W\d]\w*$", token):
            return asked(len(opened), end)
        if end > cursor:
            break
        if token in PAIRS.values():
            opened.append((token, at))
            begins.append(end)
        elif token in PAIRS and opened:
            opened.pop()
            begins.pop()
        if token in ",;}":
            begins[-1] = end
    for depth in reversed(range(len(opened))):
        bracket, at = opened[depth]
        before = code[:at].rstrip()
        if bracket == "(" and re.search(r"\w$", before):
            return asked(depth, at + 1)
        if bracket == "{" and re.search(r"\b[A-Z]\w*$", before):
            return asked(depth, len(before))
    return code, cursor


class Connection(ZMQChannelsWebsocketConnection):
    """A browser's connection to a kernel."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mute = {}  # by the id of a request, what to say if the kernel says nothing

    def handle_incoming_message(self, incoming_msg):
        if self.subprotocol == PROTOCOL:
            incoming_msg = self.looked_at(incoming_msg)
        super().handle_incoming_message(incoming_msg)

    def looked_at(self, message):
        """A browser's message as the kernel shall see it."""
        channel, parts = deserialize_msg_from_ws_v1(message)
        if channel != "shell":
            return message
        header = json.loads(parts[HEADER])
        if header["msg_type"] == "execute_request":
            words = unfinished(json.loads(parts[CONTENT])["code"])
            if words:
                self.mute[header["msg_id"]] = words
        elif header["msg_type"] == "inspect_request":
            content = json.loads(parts[CONTENT])
            content["code"], content["cursor_pos"] = question(content["code"], content["cursor_pos"])
            parts[CONTENT] = json.dumps(content).encode()
            return serialize_msg_to_ws_v1(parts, channel)
        return message

    def handle_outgoing_message(self, stream, outgoing_msg):
        if self.mute:
            self.speak_for(outgoing_msg)
        super().handle_outgoing_message(stream, outgoing_msg)

    def speak_for(self, message):
        """Says what is wrong before a cell ends of which the kernel said nothing."""
        _, parts = self.session.feed_identities(message)
        header, parent, content = (self.session.unpack(parts[at]) for at in (1, 2, 4))
        request = parent.get("msg_id")
        if header["msg_type"] in OUTPUTS:
            self.mute.pop(request, None)
        elif header["msg_type"] == "status" and content["execution_state"] == "idle":
            words = self.mute.pop(request, None)
            if words:
                self.write_stderr(words, parent)


def computed(group: int):
    """The seconds that the processes of a group have computed for, or None on a system that does not list them."""
    if not Path("/proc/self/stat").exists():
        return None
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(words[2]) == group:
            ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Kernels(AsyncMappingKernelManager):
    """A server's kernels. One that computes, as a training in the background does, is not idle, though no cell runs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.computed = {}

    async def cull_kernel_if_idle(self, kernel_id):
        kernel = self._kernels[kernel_id]
        before, now = self.computed.get(kernel_id), computed(kernel.provisioner.pid)
        self.computed[kernel_id] = now
        if before is None or now is None or now - before > self.cull_interval / 20:
            kernel.last_activity = utcnow()
        await super().cull_kernel_if_idle(kernel_id)
