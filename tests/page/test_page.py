"""The search page in a real browser: test_page.py BASE_URL CHROMIUM

The server at BASE_URL holds tests/page/corpus as source `guide`, version `1.0`, imported with an address (`--url`), and
nothing else. Exits 0 when all is well; else says what is wrong, with what the page showed.
"""

import base64
import json
import sys
from urllib.parse import urlsplit

sys.dont_write_bytecode = True
from chromium import Browser, Failed  # noqa: E402

RESULTS = "document.querySelectorAll('#results > .result')"
TITLE = "document.querySelectorAll('#results h2 button')"
BOX_HAS_FOCUS = "document.activeElement.id == 'query'"
ALERT = "document.querySelector('[role=alert]')"
IS_IDLE = "document.getElementById('results').ariaBusy == 'false'"
STATUS = "document.getElementById('status').textContent"


def check(what, holds, *facts):
    if not holds:
        raise Failed(f"{what}: {' | '.join(map(str, facts))}")


def wait_for_results(page, query):
    """The title changes with the search, the list is busy until its answer is there."""
    title = json.dumps(f"{query} · doc-server")
    page.wait(f"results for {query!r}", f"document.title == {title} && {IS_IDLE} && {RESULTS}.length > 0")


def marks(page):
    return page.run("[...document.querySelectorAll('#results mark')].map(mark => mark.textContent.toLowerCase())")


def typing_searches(page, base):
    page.open(base + "/")
    page.wait("the welcome lists the source", "document.querySelector('.sources a[href=\"?source=guide\"]')")
    page.wait("the box has the focus", BOX_HAS_FOCUS)
    page.type("connection pool timeout")
    wait_for_results(page, "connection pool timeout")
    check("the URL follows", page.run("location.search") == "?query=connection+pool+timeout", page.run("location.href"))
    found = marks(page)
    stems = ("connect", "pool", "timeout")
    check("marks are words of the query", found and all(mark.startswith(stems) for mark in found), found)
    first = page.run(f"{RESULTS}[0].innerText")
    check("the first result is the right one", "Connection pool" in first and "guide 1.0" in first, first)
    links = "[...document.querySelectorAll('.place a')]"
    lead = page.run(f"{links}.length == 10 && {links}.every(a => a.href.endsWith(a.textContent))")
    check("addresses are links", lead, page.run(f"{links}.map(a => a.href)"))
    check("the status tells the count", page.run(STATUS).startswith("10 passages"), page.run(STATUS))


def keys_move_and_open(page):
    page.press("ArrowDown")
    page.wait("down leads to the first result", f"document.activeElement == {TITLE}[0]")
    page.press("j")
    page.wait("j leads to the second", f"document.activeElement == {TITLE}[1]")
    page.press("ArrowUp")
    page.wait("up leads back", f"document.activeElement == {TITLE}[0]")
    page.press("Enter")
    opened = f"{RESULTS}[0].querySelector('.full:not([hidden]) section')"
    page.wait("Enter opens the passage", f"{opened}?.innerText.length > 50")
    check("opened is announced", page.run(f"{TITLE}[0].getAttribute('aria-expanded')") == "true")
    check("code keeps its lines", page.run(f"{opened}.querySelector('pre').textContent.includes('\\n')"))
    page.press("Enter")
    page.wait("Enter closes it", f"!{opened} && !{RESULTS}[0].querySelector('.snippet').hidden")
    page.press("Escape")
    page.wait("Escape leads to the box", BOX_HAS_FOCUS)
    page.run("document.activeElement.blur()")
    page.press("/")
    page.wait("/ leads to the box", BOX_HAS_FOCUS)
    check("/ is not typed", page.run("document.getElementById('query').value") == "connection pool timeout")


def back_leads_to_the_search_before(page):
    page.type("graceful shutdown")  # The box's text is selected, so this replaces it.
    wait_for_results(page, "graceful shutdown")
    page.press("Enter")
    first = page.run(f"{RESULTS}[0].innerText")
    check("the right page comes first", first.startswith("Graceful shutdown"), first)
    page.run("history.back()")
    wait_for_results(page, "connection pool timeout")
    check("Back fills the box", page.run("document.getElementById('query').value") == "connection pool timeout")
    page.run("history.back()")
    page.wait("Back again leads to the welcome", "location.search == '' && document.querySelector('.sources')")
    page.run("history.forward()")
    wait_for_results(page, "connection pool timeout")


def choose(page, name, value):
    page.run(f"""(() => {{ const select = document.querySelector('select[name={name}]'); select.value = '{value}';
        select.dispatchEvent(new Event('change', {{ bubbles: true }})) }})()""")


def filters_reach_the_server(page):
    label = page.run("document.querySelector('option[value=guide]').textContent")
    check("the filter shows the version", label == "guide 1.0", label)
    choose(page, "source", "guide")
    page.wait("the URL has the source", "new URLSearchParams(location.search).get('source') == 'guide'")
    wait_for_results(page, "connection pool timeout")
    asked = [url for url in requests(page) if "/api/search?" in url][-1]
    check("the server is asked for the source", "source=guide" in asked, asked)
    sources = page.run("[...new Set([...document.querySelectorAll('.source')].map(node => node.textContent))]")
    check("all results are of the source", sources == ["guide 1.0"], sources)
    choose(page, "mode", "keyword")
    page.wait("the URL has the mode", "new URLSearchParams(location.search).get('mode') == 'keyword'")


def more_goes_on(page, base):
    page.open(base + "/?query=gateway&source=guide&mode=keyword")
    wait_for_results(page, "gateway")
    check("ten at first", page.run(f"{RESULTS}.length") == 10, page.run(STATUS))
    page.run("document.getElementById('more').click()")
    page.wait("more results follow", f"{RESULTS}.length > 10 && document.activeElement == {TITLE}[10]")
    chunks = page.run(f"[...{RESULTS}].map(item => item.dataset.chunk)")
    check("none comes twice", len(chunks) == len(set(chunks)), chunks)


def text_stays_text(page, base):
    page.open(base + "/?query=kingfisher&source=guide&mode=keyword")
    wait_for_results(page, "kingfisher")
    check("marks are right behind astral characters", marks(page) == ["kingfisher"] * 3, marks(page))
    page.open(base + "/?query=heron&source=guide&mode=keyword")
    wait_for_results(page, "heron")
    page.run(f"{TITLE}[0].click()")
    page.wait("the markup is shown", "document.querySelector('.full section')?.textContent.includes('<script>')")
    check("and is no markup", page.run("!document.querySelector('#results img, #results script')"))
    check("nor ran", page.run("document.title") == "heron · doc-server", page.run("document.title"))


def nothing_found_and_refused(page, base):
    page.open(base + "/?query=zzqxv&mode=keyword")
    page.wait("no results is said", "document.getElementById('notice').innerText.includes('No passage matches')")
    page.open(base + "/?query=pool&mode=fuzzy")
    page.wait("what the server refuses is said", f"{ALERT}?.innerText.includes('must be one of')")
    check("with the request id", page.run(f"/Request id [0-9a-f]{{32}}/.test({ALERT}.innerText)"))
    page.open(base + "/?query=pool&source=no-such-source")
    page.wait("an unknown source is said", f"{ALERT}?.innerText.includes('no-such-source')")


def answer_as(page, rules):
    """Answers requests in the server's place: part of the URL -> (status, JSON); an absent status fails the request."""

    def handle(event):
        url, about = event["request"]["url"], {"requestId": event["requestId"]}
        status, body = next((answer for part, answer in rules.items() if part in url), (0, "pass on"))
        if body == "pass on":
            page.send("Fetch.continueRequest", **about)
        elif body == "hold":
            held.append(about)
        elif status is None:
            page.send("Fetch.failRequest", errorReason="ConnectionRefused", **about)
        else:
            text = base64.b64encode(json.dumps(body).encode()).decode()
            page.send("Fetch.fulfillRequest", responseCode=status, body=text, **about)

    held = []
    page.handlers["Fetch.requestPaused"] = handle
    page.call("Fetch.enable", patterns=[{"urlPattern": "*/api/*"}])
    return held


def states_that_a_sound_server_does_not_show(page, base):
    empty = {"results": [], "count": 0, "next_cursor": None, "degraded": False, "index": {"generations": []}}
    answer_as(page, {"/api/sources": (200, {"sources": []}), "/api/search": (200, empty)})
    for address in ("/", "/?query=pool"):
        page.open(base + address)
        command = "document.querySelector('#notice pre')?.innerText"
        page.wait("an empty index says what to do", f"{command}?.startsWith('doc-server ingest ')")
    degraded = {**empty, "degraded": True, "degraded_reason": "the model is away", "index": {"generations": [1]}}
    answer_as(page, {"/api/search": (200, degraded)})
    page.open(base + "/?query=pool")
    page.wait("a degraded answer says why", "document.querySelector('.warn')?.innerText.includes('the model is away')")
    answer_as(page, {"/api/search": (None, None)})
    page.open(base + "/?query=pool")
    page.wait("no answer is said", f"{ALERT}?.innerText.includes('cannot be reached')")
    held = answer_as(page, {"query=pool&": (200, "hold")})
    page.open(base + "/?query=pool")
    page.wait("a slow search is said", f"{STATUS}.startsWith('Searching')")
    page.type(" timeout")
    wait_for_results(page, "pool timeout")
    check("the old search was held back", len(held) == 1, held)
    gave_up = [event for event in page.events if event["params"].get("canceled")]
    check("the page gave it up", gave_up and page.run(f"{RESULTS}.length") == 10, gave_up, page.run(STATUS))
    page.call("Fetch.disable")


def narrow_screens_do_not_scroll_sideways(page, base):
    for width in (390, 320):
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=2, mobile=True)
        page.open(base + "/?query=gateway&source=guide")
        wait_for_results(page, "gateway")
        page.run(f"{TITLE}[1].click()")
        page.wait("the passage opens", "document.querySelector('.full section')")
        wide = page.run("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        check(f"the page fits {width} px", wide <= width, wide)


def requests(page):
    sent = [event["params"] for event in page.events if event["method"] == "Network.requestWillBeSent"]
    return [about["request"]["url"] for about in sent]


def nothing_else_happened(page, base):
    """No error in the console but the refusals asked for above, and no word to another server."""
    for event in page.events:
        method, about = event["method"], event["params"]
        check("the script threw", method != "Runtime.exceptionThrown", about)
        if method == "Runtime.consoleAPICalled":
            check("the console holds an error", about["type"] not in ("error", "warning", "assert"), about)
        if method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            check("the browser complains", "/api/search?query=pool&" in about["entry"].get("url", ""), about["entry"])
    origins = {urlsplit(url)[:2] for url in requests(page) if not url.startswith("about:")}
    check("the page talks to its own server only", origins == {urlsplit(base)[:2]}, origins)


def main(base, chromium):
    try:
        page = Browser(chromium)
    except (Failed, OSError) as failure:
        sys.exit(f"search page: no browser: {failure}")
    try:
        typing_searches(page, base)
        keys_move_and_open(page)
        back_leads_to_the_search_before(page)
        filters_reach_the_server(page)
        more_goes_on(page, base)
        text_stays_text(page, base)
        nothing_found_and_refused(page, base)
        states_that_a_sound_server_does_not_show(page, base)
        narrow_screens_do_not_scroll_sideways(page, base)
        nothing_else_happened(page, base)
    except Failed as failure:
        sys.exit(f"search page: {failure}")
    finally:
        page.close()
    print("search page: all is well")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1].rstrip("/"), sys.argv[2])
