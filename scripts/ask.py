#!/usr/bin/env python3
"""What the scripts ask a running server, without needing curl.

    ask.py healthy BASE_URL            exits 0 when the server answers its health check
    ask.py whole BASE_URL              exits 0 when it answers a search with words and meaning: the model is loaded
    ask.py show BASE_URL QUERY         prints the first results of a search
"""

import json
import sys
import textwrap
import urllib.error
import urllib.request
from urllib.parse import urlencode


# Straight to the server: a proxy of the environment knows nothing of this machine's loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url):
    with DIRECT.open(url, timeout=10) as answer:
        return json.load(answer)


def healthy(base):
    try:
        get(f"{base}/api/health")
    except (OSError, ValueError):
        sys.exit(1)


def whole(base):
    try:
        answer = get(f"{base}/api/search?query=connection+pool&cache=bypass")
    except (OSError, ValueError):
        sys.exit(1)
    if answer["degraded"]:
        sys.exit(1)


def show(base, query):
    try:
        found = get(f"{base}/api/search?" + urlencode({"query": query, "match_count": 3}))
    except urllib.error.HTTPError as error:
        # Such as of a server that asks its callers for a key.
        sys.exit(f"no search to show: {json.load(error)['detail']}")
    print(f'\nThe first of the results for "{query}":\n')
    for number, hit in enumerate(found["results"], 1):
        place = " > ".join(part for part in [hit["source_id"], hit["version"], hit["title"]] if part)
        text = " ".join((hit.get("snippet") or hit.get("content") or "").split())
        print(f"{number}. {place}")
        print(textwrap.indent(textwrap.fill(textwrap.shorten(text, 240, placeholder=" …"), 96), "   "))


if __name__ == "__main__":
    {"healthy": healthy, "whole": whole, "show": show}[sys.argv[1]](*sys.argv[2:])
