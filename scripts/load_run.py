#!/usr/bin/env python3
"""Run k6 scenarios against the server at BASE_URL and keep what each leaves in a folder of its own.

    load_run.py SCENARIO…              names of k6/scenarios/, or api-contract

Called by scripts/load, which sets K6 and LOAD_FOLDER. A folder LOAD_FOLDER/<time>-<scenario>/ holds

    run.json        what ran against what: command, server, machine, exit code, thresholds that were crossed
    summary.json    every figure of k6              report.html     k6's own report
    queries.txt     what was asked                  console.log     what was printed
    metrics-*.prom  the server's /metrics before, during and after
    profile.pb.gz   processor time of the server in the steady part; `go tool pprof` reads it

Nothing is written to the server. The exit code is k6's of the first scenario that failed.
"""

import json
import os
import platform
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from ask import DIRECT

ROOT = Path(__file__).resolve().parent.parent
K6 = os.environ.get("K6", "k6")
BASE = os.environ.get("BASE_URL", "http://localhost:8051").rstrip("/")

# k6's exit code when a threshold was crossed.
CROSSED = 99

# The admin door profiles for at most a minute; half of one has enough samples.
PROFILE_SECONDS = 30

# Where in a run its steady part begins, as a share of its length. Half is inside the plateau of every scenario but these:
# the crowd of `spike` comes early, and `breakpoint` ends when it has found its number.
STEADY = {"spike": 0.3, "breakpoint": 0.15}


def say(text):
    print(text, file=sys.stderr, flush=True)


def die(text):
    say(f"error: {text}")
    sys.exit(1)


def ask(url, token=None, timeout=10):
    """Status and body; status 0 and the reason when nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with DIRECT.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def ask_api(path):
    status, body = ask(f"{BASE}{path}", os.environ.get("API_KEY"))
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body.decode(errors="replace")


def describe_server():
    """Who answers at BASE_URL; ends the program when it is not worth loading."""
    status, health = ask_api("/api/health")
    if status != 200:
        die(f"no healthy server at {BASE} (status {status}: {health}); start one, or leave BASE_URL out")
    sources, cursor = [], ""
    while cursor is not None:
        status, page = ask_api(f"/api/sources?limit=100{cursor and '&cursor=' + cursor}")
        if status != 200:
            die(f"{BASE}/api/sources answers {status}: {page}")
        sources += page["sources"]
        cursor = page.get("next_cursor")
    server = {
        "address": BASE,
        "version": health["version"],
        "status": health["status"],
        "checks": {name: check["status"] for name, check in health["checks"].items()},
        "sources": len(sources),
        "pages": sum(source["page_count"] for source in sources),
        "chunks": sum(source["chunk_count"] for source in sources),
    }
    if server["chunks"] == 0:
        die(f"the server at {BASE} has no documents: index some first (doc-server ingest)")
    return server


def find_admin():
    """The address of the admin door, or None: ADMIN_URL, else the setting, else port 9051 beside the API."""
    bind = os.environ.get("DOC_SERVER_ADMIN_BIND") or f"{urlsplit(BASE).hostname}:9051"
    address = os.environ.get("ADMIN_URL") or f"http://{bind}"
    status, body = ask(f"{address}/metrics", os.environ.get("ADMIN_TOKEN"))
    if status == 200 and b"doc_server_" in body:
        return address.rstrip("/")
    say(f"no metrics at {address} (status {status}): no snapshots, no profile; ADMIN_URL names the admin door")
    return None


def keep_metrics(admin, folder, when):
    if admin:
        status, body = ask(f"{admin}/metrics", os.environ.get("ADMIN_TOKEN"))
        if status == 200:
            (folder / f"metrics-{when}.prom").write_bytes(body)
        else:
            say(f"metrics {when} the run: status {status}")


def keep_profile(admin, folder, length):
    """Fetch a CPU profile; returns what became of it."""
    seconds = int(min(PROFILE_SECONDS, max(1, length / 4)))
    url = f"{admin}/debug/pprof/profile?seconds={seconds}"
    status, body = ask(url, os.environ.get("ADMIN_TOKEN"), timeout=seconds + 30)
    if status == 200:
        (folder / "profile.pb.gz").write_bytes(body)
        return f"{seconds} s in profile.pb.gz"
    if status == 404:
        return "none: this server has no /debug/pprof/profile (404)"
    return f"none: {url} answers {status}: {body[:200].decode(errors='replace')}"


def script_of(scenario):
    folders = [ROOT / "k6" / "scenarios", ROOT / "k6"]
    path = next((path for path in (folder / f"{scenario}.js" for folder in folders) if path.is_file()), None)
    if not path or scenario == "build_queries":
        die(f"no scenario {scenario}; there are {', '.join(sorted(file.stem for file in folders[0].glob('*.js')))}")
    return path


def build_queries(folder, environment):
    path = folder / "queries.txt"
    command = [K6, "run", "--quiet", str(ROOT / "k6" / "build_queries.js")]
    done = subprocess.run(command, env={**environment, "QUERIES_OUT": str(path)}, check=False)
    if done.returncode != 0 or not path.is_file():
        die("the queries could not be made from the server's documents, see above")
    return path


def in_seconds(text):
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", text or ""))


def length_of(script, environment):
    """Seconds from the first stage to the end of the last."""
    # Without the flag k6 would read the script as if no variable were set.
    command = [K6, "inspect", "--include-system-env-vars", str(script)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        die(f"k6 cannot read {script}, see above")
    options = json.loads(done.stdout)
    plans = (options.get("scenarios") or {"default": options}).values()
    stages = [sum(in_seconds(stage["duration"]) for stage in plan.get("stages") or []) for plan in plans]
    return max(
        in_seconds(plan.get("startTime")) + in_seconds(plan.get("duration")) + staged
        for plan, staged in zip(plans, stages)
    )


class Companion(threading.Thread):
    """Takes metrics and a profile in the steady part, while k6 runs; `stop` gives up what has not begun."""

    def __init__(self, admin, folder, begin, length):
        super().__init__(daemon=True)
        self.admin, self.folder, self.begin, self.length = admin, folder, begin, length
        self.over = threading.Event()
        self.profile = "none: no admin door" if not admin else "none: the run ended before its steady part"

    def run(self):
        if not self.admin or self.over.wait(self.begin):
            return
        keep_metrics(self.admin, self.folder, "during")
        self.profile = keep_profile(self.admin, self.folder, self.length)
        say(f"profile: {self.profile}")

    def stop(self):
        self.over.set()
        self.join(PROFILE_SECONDS + 30)


def run_k6(script, folder, environment):
    """k6's exit code; what it prints goes to the terminal and to console.log."""
    with (folder / "console.log").open("wb") as log:
        process = subprocess.Popen(
            [K6, "run", "--quiet", str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while True:
            try:
                for line in process.stdout:
                    sys.stdout.buffer.write(line)
                    sys.stdout.flush()
                    log.write(line)
                return process.wait()
            except KeyboardInterrupt:  # k6 got it too, and ends with its summary.
                continue


def read_summary(folder):
    """The figures that k6 left, or nothing when it ended before it had any."""
    try:
        return json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}


def crossed(summary):
    """The thresholds that were crossed, as "metric: rule"."""
    return [
        f"{metric}: {rule}"
        for metric, found in summary.get("metrics", {}).items()
        for rule, result in found.get("thresholds", {}).items()
        if not result["ok"]
    ]


def judge(scenario, code, summary):
    """What the run came to, and its exit code: crossing the SLO is how a breakpoint run ends."""
    if scenario == "breakpoint" and code in (0, CROSSED) and "breakpoint" in summary:
        found = summary["breakpoint"]
        if found["searches_per_second"] >= found["least"]:
            return f"held {found['searches_per_second']} searches a second", 0
        return f"held {found['searches_per_second']} searches a second, at least {found['least']:.1f} are asked", CROSSED
    if code == 0:
        return "every threshold held", 0
    if code == CROSSED:
        return f"thresholds crossed: {'; '.join(crossed(summary))}", code
    return f"k6 ended with exit code {code}, see console.log", code


def machine():
    return {"name": platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}


def commit():
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def run_scenario(scenario, server, admin):
    script = script_of(scenario)
    began = datetime.now(timezone.utc)
    folder = Path(os.environ.get("LOAD_FOLDER", ROOT / "target" / "load")) / f"{began:%Y%m%dT%H%M%SZ}-{scenario}"
    folder.mkdir(parents=True)
    environment = {**os.environ, "BASE_URL": BASE, "ADMIN_URL": admin or "", "OUT": str(folder)}
    environment["QUERIES"] = str(build_queries(folder, environment))
    length = length_of(script, environment)
    environment.update(
        K6_WEB_DASHBOARD="true",
        K6_WEB_DASHBOARD_PORT="-1",  # The report alone, no page on a port.
        K6_WEB_DASHBOARD_EXPORT=str(folder / "report.html"),
        K6_WEB_DASHBOARD_PERIOD="1s" if length < 300 else "10s",
    )
    say(f"{scenario}: {length:.0f} s against {server['address']}, results in {folder}")
    before = machine()
    keep_metrics(admin, folder, "before")
    companion = Companion(admin, folder, STEADY.get(scenario, 0.5) * length, length)
    companion.start()
    code = run_k6(script, folder, environment)
    companion.stop()
    keep_metrics(admin, folder, "after")
    summary = read_summary(folder)
    verdict, code = judge(scenario, code, summary)
    record = {
        "scenario": scenario,
        "began": began.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(timezone.utc) - began).total_seconds(), 1),
        "scale": float(os.environ.get("SCALE") or 1),
        "commit": commit(),
        "server": server,
        "machine": {**before, "load_after": os.getloadavg()},
        "profile": companion.profile,
        "verdict": verdict,
        "crossed": crossed(summary),
        "exit_code": code,
    }
    (folder / "run.json").write_text(json.dumps(record, indent=1) + "\n")
    say(f"{'error: ' if code else ''}{scenario}: {verdict}\n{folder}")
    return code


def main():
    scenarios = sys.argv[1:] or die("name a scenario")
    for scenario in scenarios:
        script_of(scenario)
    server = describe_server()
    say(
        f"doc-server {server['version']} at {BASE} is {server['status']}: {server['sources']} sources,"
        f" {server['pages']} pages, {server['chunks']} passages"
    )
    admin = find_admin()
    codes = [run_scenario(scenario, server, admin) for scenario in scenarios]
    sys.exit(next((code for code in codes if code), 0))


if __name__ == "__main__":
    main()
