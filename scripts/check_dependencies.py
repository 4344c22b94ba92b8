#!/usr/bin/env python3
"""Hold the dependencies to deny.toml: licences, banned crates, wildcard versions and where crates come from.

Reads the part of deny.toml that the repository uses, offline, from cargo's own metadata, so that the check needs
nothing installed. Exits 1 and names every crate that breaks a rule.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ImportError:  # Before Python 3.11 the standard library has none; pip brings its own.
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def metadata(targets):
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    for target in targets:
        command += ["--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def licensed(expression, allowed):
    """Whether an SPDX expression can be met with the allowed licences. `/` is the old spelling of OR."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def alternatives():
        met = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = conjunction() or met
        return met

    def conjunction():
        met = term()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = term() and met
        return met

    def term():
        token = tokens.pop(0)
        if token == "(":
            met = alternatives()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in allowed

    return alternatives()


def problems(policy, tree):
    """One line per broken rule."""
    allowed = set(policy["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in policy["licenses"]["exceptions"]}
    banned = {entry["crate"]: entry["reason"] for entry in policy["bans"]["deny"]}
    own = set(tree["workspace_members"])
    # Everything comes from the one registry that serde comes from: no git repositories, no folders, no second registry.
    registry = next(package["source"] for package in tree["packages"] if package["name"] == "serde")
    for package in tree["packages"]:
        crate = f"{package['name']} {package['version']}"
        if package["name"] in banned:
            yield f"{crate} is banned: {banned[package['name']]}"
        if not licensed(package["license"] or "none", allowed | exceptions.get(package["name"], set())):
            yield f"{crate} has the licence {package['license']}, which deny.toml does not allow"
        if package["id"] not in own and package["source"] != registry:
            yield f"{crate} comes from {package['source'] or package['manifest_path']}, not from the public registry"
        if package["id"] in own:
            yield from (
                f"{crate} takes any version of {dependency['name']}"
                for dependency in package["dependencies"]
                if dependency["req"] == "*"
            )


def main():
    policy = tomllib.loads((ROOT / "deny.toml").read_text("utf-8"))
    tree = metadata(policy["graph"]["targets"])
    found = sorted(problems(policy, tree))
    for line in found:
        print(f"error: {line}")
    print(f"{len(tree['packages'])} crates checked against deny.toml: {len(found)} problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
