"""Drive headless Chromium over its debugging pipe, with nothing but the standard library.

Chromium reads JSON messages ended by NUL from file descriptor 3 and writes them to 4: no port, no WebSocket.
"""

import fcntl
import json
import os
import queue
import subprocess
import tempfile
import threading
import time

FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe""".split()

# Generous, since a loaded machine is slow; a test that passes never waits for it.
DEADLINE = 60


class Failed(Exception):
    """A condition did not come true, or the page threw."""


def pipe():
    """The two ends of a pipe, both above 9."""
    low = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return ends


class Browser:
    """One Chromium with one page. `events` holds what the page reported, in order."""

    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(prefix="doc-server-page.", ignore_cleanup_errors=True)
        # The ends for Chromium must be 3 and 4; the others must not be, whatever was open here before.
        (their_in, our_out), (our_in, their_out) = pipe(), pipe()
        os.dup2(their_in, 3)
        os.dup2(their_out, 4)
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"],
            pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for end in (3, 4, their_in, their_out):
            os.close(end)
        self.output = os.fdopen(our_out, "wb", buffering=0)
        self.replies, self.handlers, self.events = queue.Queue(), {}, []
        self.sending, self.last_id = threading.Lock(), 0
        threading.Thread(target=self._read, args=(os.fdopen(our_in, "rb"),), daemon=True).start()
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _read(self, stream):
        rest = b""
        while data := stream.read1(1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.replies.put(message)
                else:
                    self.events.append(message)
                    if handler := self.handlers.get(message["method"]):
                        handler(message["params"])
        self.replies.put(None)

    def send(self, method, **params):
        """Sends a command without waiting for its reply; handlers use it."""
        with self.sending:
            self.last_id += 1
            message = {"id": self.last_id, "method": method, "params": params}
            if self.session:
                message["sessionId"] = self.session
            self.output.write(json.dumps(message).encode() + b"\0")
            return self.last_id

    def call(self, method, **params):
        """Sends a command and returns its result."""
        wanted, end = self.send(method, **params), time.monotonic() + DEADLINE
        while True:
            try:
                reply = self.replies.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                raise Failed(f"Chromium did not answer {method}") from None
            if reply is None:
                raise Failed("Chromium ended; does it start by hand?")
            if reply["id"] == wanted:
                if "error" in reply:
                    raise Failed(f"{method}: {reply['error']['message']}")
                return reply["result"]

    def run(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise Failed(f"{script}: {result['exceptionDetails']['exception'].get('description')}")
        return result["result"].get("value")

    def wait(self, what, script):
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + DEADLINE
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                page = self.run("document.body.innerText.slice(0, 600)")
                raise Failed(f"{what}: never came true: {script}\n--- {self.run('location.href')} shows\n{page}")
            time.sleep(0.02)

    def open(self, url):
        self.run("window.isLeft = true")
        self.call("Page.navigate", url=url)
        self.wait(f"loading {url}", "!window.isLeft && document.readyState == 'complete'")

    def press(self, key, text=None):
        """One key, as a keyboard sends it."""
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}
        text = "\r" if key == "Enter" else text or (key if len(key) == 1 else "")
        about = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key.upper()[0]) if len(key) == 1 else 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        for character in text:
            self.press(character)

    def close(self):
        try:
            self.session = None
            self.send("Browser.close")
            self.process.wait(DEADLINE)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.profile.cleanup()
