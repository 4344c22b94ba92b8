# Shared by the scripts in this folder: where things are, how progress is told, how a wheel is fetched.
# shellcheck shell=bash

set -euo pipefail
shopt -s inherit_errexit # A failure inside $(…) ends the script too.
umask 022 # What root sets up, the unprivileged Postgres user must be able to read.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck disable=SC2034 # Read by the scripts that source this file.
tools=$root/.tools

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

# The server's data directory; src/config.rs resolves it the same way.
data_dir() {
    if [[ -n ${DOC_SERVER_DATA_DIR:-} ]]; then
        printf '%s\n' "$DOC_SERVER_DATA_DIR"
    elif ((EUID == 0)); then
        printf '/var/lib/doc-server\n'
    else
        printf '%s\n' "${XDG_DATA_HOME:-$HOME/.local/share}/doc-server"
    fi
}

# A Python that has pip, as an absolute path: the one on PATH first, then the system's.
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
        if "$candidate" -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "set-up downloads through pip: install Python 3.10 or later with pip (Debian: apt-get install python3-pip)," \
        "or name one in PYTHON"
}

# fetch_wheel PART FOLDER: download the wheel pinned in requirements/PART.txt into FOLDER and print its path.
# The wheels are opened, never imported, so one Python's build of them serves every Python.
fetch_wheel() {
    local arch python
    arch=$(uname -m)
    python=$(find_python)
    "$python" -m pip download --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
        --only-binary :all: --ignore-requires-python --python-version 3.12 --implementation cp --abi cp312 --abi none \
        --platform "manylinux_2_28_$arch" --platform "manylinux_2_24_$arch" \
        --platform "manylinux_2_17_$arch" --platform "manylinux2014_$arch" \
        --dest "$2" --requirement "$here/requirements/$1.txt" >&2 ||
        die "cannot download what scripts/requirements/$1.txt pins ($arch); see pip's message above"
    printf '%s\n' "$2"/*.whl
}

# unpack WHEEL FOLDER PREFIX…: extract the entries that begin with one of the prefixes, keeping their modes.
unpack() {
    "$(find_python)" - "$@" <<'PYTHON'
import os, sys, zipfile
wheel, target, prefixes = sys.argv[1], sys.argv[2], tuple(sys.argv[3:])
with zipfile.ZipFile(wheel) as archive:
    for entry in archive.infolist():
        if entry.filename.startswith(prefixes) and not entry.is_dir():
            path = archive.extract(entry, target)
            os.chmod(path, 0o755 if entry.external_attr >> 16 & 0o100 else 0o644)
PYTHON
}

# install_part NAME FOLDER PINS… -- COMMAND…: unless FOLDER was made from the same pins, run COMMAND with an empty
# folder as last argument and put that in FOLDER's place. An interrupted run leaves FOLDER as it was.
unfinished=()
install_part() {
    local name=$1 folder=$2 pins=() stamp new began=$SECONDS
    shift 2
    while [[ $1 != -- ]]; do
        pins+=("$1")
        shift
    done
    shift
    stamp=$(cat "${pins[@]}" | sha256sum)
    [[ -f $folder/.stamp && $(<"$folder/.stamp") == "$stamp" ]] && return
    say "$name: setting up in $folder …"
    new=$(dirname "$folder")/.new-$(basename "$folder")
    unfinished+=("$new" "$new.old")
    trap 'rm -rf "${unfinished[@]}"' EXIT
    rm -rf "$new" "$new.old"
    mkdir -p "$new"
    "$@" "$new"
    printf '%s\n' "$stamp" >"$new/.stamp"
    chmod -R u+rwX,go+rX,go-w "$new"
    [[ ! -e $folder ]] || mv "$folder" "$new.old"
    mv "$new" "$folder"
    rm -rf "$new.old"
    say "$name: ready ($((SECONDS - began)) s)"
}

# The folder cargo builds into.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"; }

# wait_until_healthy BASE_URL PROCESS: until the server answers; fails when the process ends first.
wait_until_healthy() {
    until "${PYTHON:-python3}" "$here/ask.py" healthy "$1"; do
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.2
    done
}

# wait_until_whole BASE_URL: until a search has all its parts: the first loads the model. Fails after two minutes.
wait_until_whole() {
    local began=$SECONDS
    until "${PYTHON:-python3}" "$here/ask.py" whole "$1"; do
        ((SECONDS - began < 120)) || return 1
        sleep 0.2
    done
}

# ingest_missing SERVER [LIMIT]: index what documents.py lists, at most LIMIT sources. One that fails is
# reported and does not stop the others.
ingest_missing() {
    local list path source version address number=0 total
    list=$("${PYTHON:-python3}" "$here/documents.py" "$@") ||
        die "cannot list the documentation to index; see above"
    [[ -n $list ]] || return 0
    total=$(wc -l <<<"$list")
    while IFS=$'\t' read -r path source version address; do
        number=$((number + 1))
        say "indexing $source $version ($number of $total)"
        "$1" ingest "$path" --source "$source" --version "$version" ${address:+--url "$address"} </dev/null ||
            say "warning: $source $version was not indexed"
    done <<<"$list"
}
