"""A class with walls, as two learners and the teacher meet it: `walls.py URL PASSWORD TEACHERS_PASSWORD CLONE`.

The hub runs as root. Each learner logs in as with a browser, starts a kernel and tries to read, write and stop what is not theirs.
"""

import asyncio
import http.cookiejar
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect


class Browser:
    """Cookies, forms, and the requests that JupyterLab sends."""

    def __init__(self, url: str):
        self.url = url
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, path: str, data: dict | None = None, method: str | None = None, **headers) -> tuple[int, str]:
        body = urllib.parse.urlencode(data).encode() if data else None
        return self.send(urllib.request.Request(self.url + path, body, {"Sec-Fetch-Mode": "navigate", **headers}, method=method))

    def send(self, request) -> tuple[int, str]:
        try:
            with self.opener.open(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def enter(self, name: str, password: str, word: str) -> str:
        """Fills in the form; the words of the page that comes."""
        _, page = self.get("/hub/login")
        token = re.search(r'name="_xsrf" value="([^"]*)"', page)[1]
        return self.get("/hub/login", {"_xsrf": token, "username": name, "password": password, "otp": word})[1]

    def api(self, user: str, path: str, body=None, method: str | None = None) -> tuple[int, object]:
        """A request to a learner's server."""
        prefix = f"/user/{user}/"
        token = next((cookie.value for cookie in self.jar if cookie.name == "_xsrf" and cookie.path == prefix), "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-XSRFToken": token.strip('"'), "Content-Type": "application/json"}
        status, text = self.send(urllib.request.Request(self.url + prefix + path, data, headers, method=method))
        return status, json.loads(text) if text.startswith(("{", "[")) else text

    def cookies(self, path: str) -> str:
        request = urllib.request.Request(self.url + path)
        self.jar.add_cookie_header(request)
        return request.get_header("Cookie", "")


async def run(browser: Browser, user: str, kernel: str, code: str | None) -> str:
    """Everything that a cell says. Without a cell, the kernel is only asked who it is, as JupyterLab does first."""
    path = f"/user/{user}/api/kernels/{kernel}/channels"
    headers = {"Cookie": browser.cookies(path)}
    socket = await websocket_connect(HTTPRequest(browser.url.replace("http", "ws", 1) + path, headers=headers, request_timeout=120))
    kind = "kernel_info" if code is None else "execute"
    header = {"msg_id": uuid.uuid4().hex, "msg_type": f"{kind}_request", "username": user, "session": user, "version": "5.3"}
    content = {} if code is None else {"code": code, "silent": False, "allow_stdin": False}
    await socket.write_message(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
    said = []
    while True:
        answer = json.loads(await asyncio.wait_for(socket.read_message(), 120))
        if answer["parent_header"].get("msg_id") == header["msg_id"]:
            content = answer["content"]
            said += [content.get("text", ""), content.get("data", {}).get("text/plain", ""), "\n".join(content.get("traceback", []))]
            if answer["msg_type"] == f"{kind}_reply":
                socket.close()
                return "\n".join(said)


def shell(command: str) -> str:
    """A cell that runs a shell's command and prints its end and its words."""
    return f"""{{
    let done = std::process::Command::new("sh").args(["-c", {json.dumps(command)}]).output()?;
    println!("END {{:?}} {{}}{{}}", done.status.code(),
        String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
}}"""


def check(holds: bool, what: str):
    print("ok  " if holds else "FAIL", what, flush=True)
    if not holds:
        sys.exit(1)


NOTEBOOK = "00_rust_in_ten_minutes.ipynb"
ADA, BOB = (f"{name}{os.getpid()}" for name in ("ada", "bob"))  # names that no learner has chosen before


async def main():
    url, password, teachers, clone = sys.argv[1:5]
    learners = Path(clone, "class/learners")
    ada, bob, other = Browser(url), Browser(url), Browser(url)
    for _ in range(200):
        try:
            if ada.get("/hub/login")[0] == 200:
                break
        except OSError:
            pass
        await asyncio.sleep(0.2)
    check("Invalid username or password" in other.enter(ADA, "wrong-password", "ada's word"), "a wrong password is refused")
    for name in ("Ada Lovelace!", "a" * 19, "ada b", "../root"):
        words = other.enter(name, password, "a word")
        check("A name has small letters" in words or "Invalid username" in words, f"the name {name!r} is refused")
    check("at least 4 letters" in other.enter(ADA, password, "abc"), "a short word is refused")
    check("login_error" not in ada.enter(ADA, password, "ada's word"), "ada comes in")
    check(f"Somebody has the name {ADA} already" in other.enter(ADA, password, "another word"), "a second ada is told so")
    check("login_error" not in other.enter(ADA, password, "ada's word"), "ada comes in from another machine")
    check("login_error" not in bob.enter(BOB, password, "bob's word"), "bob comes in")

    kernels = {}
    for browser, name in ((ada, ADA), (bob, BOB)):
        deadline = time.monotonic() + 120
        browser.get("/hub/spawn")
        while browser.api(name, "api/status")[0] != 200:
            check(time.monotonic() < deadline, f"{name}'s server starts")
            browser.get(f"/user/{name}/lab")
            await asyncio.sleep(1)
        session = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": "rust"}}
        status, session = browser.api(name, "api/sessions", session)
        check(status == 201, f"{name}'s kernel starts")
        kernels[name] = session["kernel"]["id"]
        await run(browser, name, kernels[name], None)
        said = await run(browser, name, kernels[name], shell("id -un; pwd"))
        check(f"-{name}" in said and "lesson-" in said and f"learners/{name}/notebooks" in said, f"{name}'s cells run as a user of the machine")
    said = await run(ada, ADA, kernels[ADA], "let digits: Mnist = Mnist::load()?; digits.test.images(3)?.size()")
    check("[3, 1, 28, 28]" in said, "the lesson works")
    said = await run(ada, ADA, kernels[ADA], shell("echo mine > saved-by-ada; ls -l saved-by-ada ../kernels"))
    check("END Some(0)" in said, "ada writes in her folder")

    # Bob's kernel, which ada tries to stop.
    victim = (await run(bob, BOB, kernels[BOB], 'println!("{}", std::process::id());')).strip()
    tries = {
        "read bob's notebook": f"cat {learners}/{BOB}/notebooks/{NOTEBOOK}",
        "list bob's folder": f"ls {learners}/{BOB}",
        "write in bob's folder": f"touch {learners}/{BOB}/notebooks/hello",
        "stop bob's kernel": f"kill {victim}",
        "read bob's environment": f"cat /proc/{victim}/environ",
        "change the weights": "touch weights/cnn.safetensors && echo x >> weights/cnn.safetensors",
        "add to the weights": "touch weights/more",
        "change the support crate": "echo x >> ../crates/diffusion/src/lib.rs",
        "change the warm directory": f"touch {clone}/target/kernel/seed/Cargo.toml",
        "change the kernels' program": f"echo x >> {clone}/target/kernel/kernel",
        "change Python's packages": f"touch {clone}/target/python/bin/more",
        "read the hub's names": f"cat {clone}/class/hub/names.json",
        "read the hub's secret": f"cat {clone}/class/hub/cookie_secret",
        "read the hub's data": f"cat {clone}/class/hub/hub.sqlite",
        "read the hub's environment": "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep TEACHERS_SECRET=hush",
    }
    for what, command in tries.items():
        said = await run(ada, ADA, kernels[ADA], shell(command))
        check("END Some(" in said and "END Some(0)" not in said, f"ada cannot {what}: {' '.join(said.split())[:150]}")
    said = await run(ada, ADA, kernels[ADA], shell("env"))
    check(password not in said and teachers not in said and "LESSON_CLASS" not in said and "TEACHERS_SECRET" not in said,
          "the class's passwords and the teacher's environment are not handed down")
    check(ada.api(BOB, "api/kernels")[0] in (403, 404), "ada cannot see bob's server")
    check(ada.api(BOB, f"api/kernels/{kernels[BOB]}/interrupt", {}, "POST")[0] in (403, 404), "nor interrupt his kernel")
    said = await run(bob, BOB, kernels[BOB], "1 + 1")
    check("2" in said, "bob's kernel lives")

    # Progress: bob tries an exercise, ada solves it.
    cells = json.loads(Path(clone, "notebooks", NOTEBOOK).read_text())["cells"]
    test = next("".join(cell["source"]) for cell in cells if "check(" in "".join(cell["source"]))
    setup = "set_seed(1);\nlet clean: Tensor = Mnist::load()?.test.one_of_each()?;\nlet noisy: Tensor = add_noise(&clean, 0.5)?;"
    for browser, name, body in ((bob, BOB, "x.shallow_clone()"), (ada, ADA, "x * (1.0 - share) + noisy * share")):
        for code in (setup, f"fn mix(x: &Tensor, noisy: &Tensor, share: f64) -> Tensor {{ {body} }}", test):
            await run(browser, name, kernels[name], code)
    teacher = Browser(url)
    check("login_error" not in teacher.enter("teacher", teachers, ""), "the teacher comes in")
    _, page = teacher.get("/services/progress/")
    rows = {name: re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', page, re.S)[1] for name in (ADA, BOB)}
    check(rows[ADA].split("</td>")[0].endswith(">solved"), "the teacher sees that ada has solved 0.1")
    check(rows[BOB].split("</td>")[0].endswith(">tried"), "and that bob has tried it")
    check(ada.get("/services/progress/")[0] == 403, "ada does not see this page")

    # What ada leaves running ends with her server, and bob's goes on.
    await run(ada, ADA, kernels[ADA], shell("setsid sleep 3000 > left-running 2>&1 &"))
    user = next(user.pw_name for user in pwd.getpwall() if user.pw_name.startswith("lesson-") and user.pw_name.endswith(f"-{ADA}"))
    running = lambda: subprocess.run(["pgrep", "-a", "-u", user], capture_output=True, text=True).stdout
    check("sleep 3000" in running(), "ada leaves a program running")
    token = next(cookie.value for cookie in ada.jar if cookie.name == "_xsrf" and cookie.path == "/hub/")
    status, said = ada.get(f"/hub/api/users/{ADA}/server", method="DELETE", **{"X-XSRFToken": token.strip('"'), "Sec-Fetch-Mode": "cors"})
    check(status in (202, 204), f"ada stops her server: {status} {said[:200]}")
    deadline = time.monotonic() + 60
    while running():
        check(time.monotonic() < deadline, f"nothing of hers runs: {running()}")
        await asyncio.sleep(0.5)
    check("2" in await run(bob, BOB, kernels[BOB], "1 + 1"), "bob's kernel lives")


def clean():
    """Takes the test's own learners away again."""
    place = Path(sys.argv[4], "class")
    mine = [ADA, BOB]
    if {path.name for path in (place / "learners").iterdir()} <= {*mine, "teacher"}:
        mine.append("teacher")  # no class was held here
    names = tuple(f"-{name}" for name in mine)
    for user in [user.pw_name for user in pwd.getpwall() if user.pw_name.startswith("lesson-") and user.pw_name.endswith(names)]:
        subprocess.run(["pkill", "-KILL", "-u", user])  # bob is still there
        time.sleep(1)
        subprocess.run(["userdel", user])
    for name in mine:
        shutil.rmtree(place / "learners" / name, ignore_errors=True)
    names = place / "hub/names.json"
    names.write_text(json.dumps({name: word for name, word in json.loads(names.read_text()).items() if name not in (ADA, BOB)}))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    finally:
        clean()
