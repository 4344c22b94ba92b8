#!/usr/bin/env python3
"""List the documentation that the first run indexes and the server does not have yet.

    documents.py SERVER [LIMIT]        one line per source, at most LIMIT: path, id, version and address, with tabs

SERVER is the program: asked on the command line, it needs no key.

This repository's docs/ is one source, the README of every direct dependency is one of its own, at the version that
Cargo.lock names. The crates are read from cargo's local copies; nothing is downloaded.
"""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def metadata():
    # Set-up fetched the crates of this machine's platform; those of others may be missing.
    host = next(line[6:] for line in run("rustc", "--version", "--verbose").splitlines() if line.startswith("host: "))
    options = ["--format-version", "1", "--locked", "--offline", "--filter-platform", host]
    return json.loads(run("cargo", "metadata", *options))


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def readme(package):
    """The README that the crate names, else one that lies beside its manifest."""
    folder = Path(package["manifest_path"]).parent
    named = [folder / package["readme"]] if package["readme"] else []
    return next((path for path in [*named, *sorted(folder.glob("README*"))] if path.is_file()), None)


def wanted():
    """(path, source id, version, address) of everything the first run indexes."""
    tree = metadata()
    packages = {package["id"]: package for package in tree["packages"]}
    own = tree["resolve"]["root"]
    if (ROOT / "docs").is_dir():
        yield ROOT / "docs", packages[own]["name"], packages[own]["version"], ""
    node = next(node for node in tree["resolve"]["nodes"] if node["id"] == own)
    for package in (packages[dependency["pkg"]] for dependency in node["deps"]):
        path = readme(package)
        if path:
            # A name of their own: documents that people import as `tokio` must not stand behind its README.
            yield path, f"crate-{package['name']}", package["version"], package["repository"] or ""


def present(server):
    """(source id, version) of everything that is published; an import that was stopped is not, and goes on."""
    sources = json.loads(run(server, "sources", "list", "--json"))
    versions = ((source["source_id"], version) for source in sources for version in source["versions"])
    return {(source_id, version["version"]) for source_id, version in versions if version["status"] == "published"}


def main():
    there = present(sys.argv[1])
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else None
    missing = (entry for entry in wanted() if entry[1:3] not in there)
    for entry in islice(missing, limit):
        print(*entry, sep="\t")


if __name__ == "__main__":
    main()
