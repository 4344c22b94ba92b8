"""One replica with a Redis beside it, and Prometheus, on loopback and gone afterwards: for the scripts that look at a real run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TOOLS = ROOT / ".tools" / "bin"
SERVER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "doc-server"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url):
    with DIRECT.open(url, timeout=10) as answer:
        return answer.read()


def wait_for(url, process, name):
    began = time.monotonic()
    while time.monotonic() - began < 120:
        if process.poll() is not None:
            sys.exit(f"error: {name} ended with exit code {process.returncode}")
        try:
            return fetch(url)
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    sys.exit(f"error: {name} does not answer at {url}")


class Run:
    """The processes of one check, ended in reverse order."""

    def __init__(self, folder):
        if "DOC_SERVER_TEST_DATABASE_URL" not in os.environ:
            sys.exit("error: run this through scripts/with-postgres")
        self.folder, self.processes = folder, []
        ports = subprocess.run([HERE / "free_ports", "4"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        self.api, self.admin, self.redis, self.prometheus = (f"127.0.0.1:{port}" for port in ports)

    def start(self, name, command, **settings):
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, env={**os.environ, **settings})
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()

    def settings(self):
        return {
            "DOC_SERVER_DATABASE_URL": os.environ["DOC_SERVER_TEST_DATABASE_URL"],
            "DOC_SERVER_REDIS_URL": f"redis://{self.redis}",
            "DOC_SERVER_BIND": self.api,
            "DOC_SERVER_ADMIN_BIND": self.admin,
            # A busy machine is slow, not faulty.
            "DOC_SERVER_DATABASE_ACQUIRE_TIMEOUT_MS": "5000",
            "DOC_SERVER_EMBED_TIMEOUT_MS": "20000",
        }

    def serve(self, **more):
        host, port = self.redis.split(":")
        if not SERVER.exists():
            sys.exit(f"error: no {SERVER}: run cargo build --release --locked")
        self.start("redis", [TOOLS / "redis-server", "--bind", host, "--port", port, "--save", "", "--dir", self.folder])
        server = self.start("server", [SERVER, "serve"], **self.settings(), **more)
        wait_for(f"http://{self.api}/api/health", server, f"the server ({self.folder}/server.log)")
        command = [SERVER, "ingest", ROOT / "docs", "--source", "doc-server", "--version", "1.0.0"]
        subprocess.run(command, check=True, env={**os.environ, **self.settings()}, stdout=subprocess.DEVNULL)
        return server

    def load_model(self):
        """The first search does; until then answers lack a part."""
        began = time.monotonic()
        while json.loads(fetch(f"http://{self.api}/api/search?query=pool&cache=bypass"))["degraded"]:
            if time.monotonic() - began > 120:
                sys.exit(f"error: searches stay incomplete ({self.folder}/server.log)")
            time.sleep(0.1)

    def watch(self):
        """Prometheus, with the names that a cluster's labels give, scraping each second so that the check is short."""
        job = {
            "job_name": "doc-server",
            "static_configs": [{"targets": [self.admin], "labels": {"namespace": "doc-server", "pod": "doc-server-0"}}],
        }
        pace = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": pace, "rule_files": [str(ROOT / "monitoring" / "alerts.yaml")], "scrape_configs": [job]}
        path = self.folder / "prometheus.yml"
        path.write_text(json.dumps(config))  # JSON is YAML.
        command = [TOOLS / "prometheus", f"--config.file={path}", f"--storage.tsdb.path={self.folder}/data"]
        prometheus = self.start("prometheus", [*command, f"--web.listen-address={self.prometheus}"])
        wait_for(f"http://{self.prometheus}/-/ready", prometheus, "Prometheus")

    def query(self, expression):
        url = f"http://{self.prometheus}/api/v1/query?" + urlencode({"query": expression})
        try:
            return json.loads(fetch(url))["data"]["result"]
        except urllib.error.HTTPError as error:
            sys.exit(f"error: Prometheus refuses {expression}: {error.read().decode()}")


def hold(name, check):
    """Runs `check` with a replica; its logs stay when it returns false or fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"doc-server-{name}."))
    run = Run(folder)
    try:
        well = check(run)
    finally:
        run.stop()
    if not well:
        sys.exit(f"error: see above; the logs are in {folder}")
    shutil.rmtree(folder)
