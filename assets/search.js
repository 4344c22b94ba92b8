// The search page. The form is the state and the URL mirrors it, so a search can be linked, reloaded and gone back to.
// Text from the server only ever becomes text nodes: documents are strangers' words and may hold markup.

const PAGE_SIZE = 10;
const TYPING_PAUSE_MS = 250; // Rarely reached between two keys, hardly felt after the last.
const LOADING_AFTER_MS = 150; // Most answers are there sooner, and a flash of "Searching…" would be unrest.
const IMPORT_POLL_MS = 3000;
const UNNAMED_VERSION = "unversioned"; // What an import without --version is called: no news to a reader.

const form = document.getElementById("search");
const { query: box, source: sourceSelect, mode: modeSelect } = form.elements;
const [status, notice, results, more, template] =
  ["status", "notice", "results", "more", "result"].map((id) => document.getElementById(id));

let sources = []; // As the server lists them.
let running = new AbortController(); // Of the search that is awaited; the next one aborts it.
let onward = new URLSearchParams(); // The search for what comes after the list.
let typing, poll; // Timers: of the typing pause, of the wait for a first import.
let settled = true; // Whether Back should lead to the search in the URL: then the next one gets an entry of its own.

// --- building nodes -------------------------------------------------------------------------------------------------

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Text with its highlights marked. Offsets count Unicode characters, JavaScript's strings UTF-16 units. */
function marked(text, highlights) {
  const characters = Array.from(text);
  const slice = (start, end) => characters.slice(start, end).join("");
  const ends = [0, ...highlights.map(({ end }) => end)];
  const mark = ({ start, end }, i) => [slice(ends[i], start), element("mark", {}, slice(start, end))];
  return [...highlights.flatMap(mark), slice(ends.at(-1))];
}

/** Headings and `code` in a text; all other Markdown stays as it is. */
const inline = (text) => text.split(/(^#{1,6} .+$|`[^`\n]+`)/m).map((part, i) => {
  if (i % 2 === 0) return part;
  return part[0] === "#" ? element("strong", {}, part.replace(/^#+ /, "")) : element("code", {}, part.slice(1, -1));
});

/** A passage's Markdown, lightly: fenced blocks become code, the rest is text. */
function passage(markdown) {
  const nodes = [];
  let lines = [];
  let fence = "";
  const flush = () => {
    const text = lines.splice(0).join("\n");
    if (fence) nodes.push(element("pre", { tabIndex: 0 }, element("code", {}, text)));
    else if (text.trim()) nodes.push(element("div", { className: "text" }, ...inline(text.trim())));
  };
  for (const line of markdown.split("\n")) {
    const ticks = line.match(/^\s*(`{3,}|~{3,})/)?.[1] ?? "";
    const closes = fence && ticks.startsWith(fence) && line.trim() === ticks;
    if (closes || (ticks && !fence)) {
      flush();
      fence = closes ? "" : ticks;
    } else lines.push(line);
  }
  flush();
  return nodes;
}

/** A page's address: a link only where it surely is one, since documents may bring `javascript:` too. */
const place = (url) => (/^https?:\/\//i.test(url) ? element("a", { href: url }, url.replace(/^\w+:\/\//, "")) : url);
const named = (source, version) => (version && version !== UNNAMED_VERSION ? `${source} ${version}` : source);
const headings = (title, section) => section.filter((heading, i) => i > 0 || heading !== title).join(" › ");
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function resultNode(result) {
  const node = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => node.querySelector(selector);
  const section = headings(result.title, result.section_path);
  find("button").append(...inline(result.title));
  if (section) find("button").append(element("span", { className: "section" }, " › ", ...inline(section)));
  find(".source").textContent = named(result.source_id, result.version);
  find(".place").append(place(result.url));
  find(".score").textContent = result.score.toFixed(2);
  find(".snippet").append(...marked(result.snippet ?? "", result.highlights ?? []));
  find(".snippet").classList.toggle("code", result.language !== null); // Mostly code.
  node.dataset.chunk = result.chunk_id;
  return node;
}

/** An opened result: its passage, with the one before and the one after folded up around it. */
function fullNodes(body) {
  const at = body.chunks.findIndex((chunk) => chunk.chunk_id === body.chunk_id);
  return body.chunks.map((chunk, i) => {
    const nodes = passage(chunk.content);
    if (i === at) return element("section", {}, ...nodes);
    const section = headings(body.title, chunk.section_path) || body.title;
    const summary = element("summary", {}, i < at ? "Before: " : "After: ", ...inline(section));
    return element("details", {}, summary, ...nodes);
  });
}

function problemNode(problem) {
  const node = element("div", { className: "notice bad", role: "alert" });
  node.append(element("p", {}, element("strong", {}, problem.title), `: ${problem.detail}`));
  // The detail is the first field's message already.
  node.append(...(problem.errors ?? []).slice(1).map(({ field, message }) => element("p", {}, `${field}: ${message}`)));
  if (problem.request_id) node.append(element("small", {}, "Request id ", element("code", {}, problem.request_id)));
  return node;
}

// --- what is said when there is no list, or beside it ---------------------------------------------------------------

const say = (kind, ...nodes) => notice.replaceChildren(element("div", { className: `notice ${kind}` }, ...nodes));
const isPublished = (source) => source.default_version !== null;

function sayNothingIndexed() {
  const building = sources.find((source) => source.versions.some((version) => version.status === "building"));
  if (building) {
    say("", element("p", {}, `${building.source_id} is being imported and can be searched when that is done.`));
    clearTimeout(poll);
    poll = setTimeout(start, IMPORT_POLL_MS);
  } else {
    const command = "doc-server ingest PATH --source NAME --version VERSION";
    say("", element("p", {}, "Nothing is indexed yet. Import a folder of Markdown, HTML or text:"),
      element("pre", { tabIndex: 0 }, command));
  }
}

function sayNoResults(parameters) {
  const text = element("p", {}, "No passage matches. Try other words");
  const wider = `?${new URLSearchParams({ query: parameters.get("query") })}`;
  if (parameters.size > 1) text.append(", or ", element("a", { href: wider }, "search everything in hybrid mode"));
  text.append(".");
  say("", text);
}

function sayWelcome() {
  if (!sources.some(isPublished)) return sayNothingIndexed();
  const items = sources.filter(isPublished).map((source) => element("li", {},
    element("a", { href: `?${new URLSearchParams({ source: source.source_id })}` },
      named(source.title, source.default_version)),
    element("small", {}, `${count(source.page_count, "page")}, ${count(source.chunk_count, "passage")}`)));
  notice.replaceChildren(element("ul", { className: "sources" }, ...items));
}

function sayAnswer(answer, parameters) {
  const reason = answer.degraded_reason ?? "a part of the search failed";
  if (!answer.index.generations.length) sayNothingIndexed();
  else if (answer.degraded) say("warn", element("p", {}, element("strong", {}, "Results may be missing: "), reason));
  else if (!results.hasChildNodes()) sayNoResults(parameters);
  else notice.replaceChildren();
}

/** Failing to go on leaves the list; failing to search does not leave the old one under the new words. */
function sayProblem(problem, parameters) {
  if (!parameters?.has("cursor")) list([], null);
  status.textContent = "Failed";
  notice.replaceChildren(problemNode(problem));
  notice.firstChild.append(element("p", {}, element("button", { type: "button", onclick: start }, "Try again")));
  notice.scrollIntoView({ block: "nearest" });
}

// --- the form and the URL -------------------------------------------------------------------------------------------

const readUrl = () => new URLSearchParams(location.search);

/** The search that the form asks for. Defaults are left out, so that links stay short. */
function readForm() {
  const [source, version] = sourceSelect.value.split(/ (.*)/);
  const mode = modeSelect.value === "hybrid" ? "" : modeSelect.value;
  const parameters = Object.entries({ query: box.value.trim(), source, version, mode });
  return new URLSearchParams(parameters.filter(([, value]) => value));
}

function fillForm() {
  box.value = readUrl().get("query") ?? "";
  fillSelects();
}

/** Offers the sources, each in its default version and by name in its others, and selects what the URL names. */
function fillSelects() {
  const option = (source, version, label) => element("option", { value: `${source} ${version}`.trimEnd() }, label);
  const options = sources.filter(isPublished).flatMap((source) => [
    option(source.source_id, "", named(source.source_id, source.default_version)),
    ...source.versions
      .filter(({ version, status }) => status === "published" && version !== source.default_version)
      .map(({ version }) => option(source.source_id, version, `${source.source_id} ${version}`)),
  ]);
  sourceSelect.replaceChildren(option("", "", "all"), ...options);
  choose(sourceSelect, `${readUrl().get("source") ?? ""} ${readUrl().get("version") ?? ""}`.trimEnd());
  choose(modeSelect, readUrl().get("mode") ?? "hybrid");
}

/** Selects a value. One that is not offered is added: the server says what is wrong with it, and what there is. */
function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(element("option", { value }, value));
  select.value = value;
}

// --- searching ------------------------------------------------------------------------------------------------------

/** Calls the API. What goes wrong comes back as `{ problem }` (RFC 9457), never as an exception. */
async function call(path, parameters, signal) {
  const response = await fetch(`api/${path}?${parameters}`, { signal }).catch(() => null);
  if (!response) return { problem: { title: "No answer", detail: "The server cannot be reached. Is it running?" } };
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  const other = { title: `Status ${response.status}`, detail: "Something between this page and the server answered." };
  return { problem: body?.detail ? body : other };
}

/** Reads the sources and runs the search in the form, if there is one. */
async function start() {
  const answer = await call("sources", "limit=1000");
  if (answer.problem && !box.value) return sayProblem(answer.problem);
  sources = answer.sources ?? [];
  fillSelects();
  search("keep");
}

/** Runs the form's search. `entry` tells what becomes of the history: "push", "replace" or "keep". */
function search(entry) {
  clearTimeout(typing);
  running.abort();
  const parameters = readForm();
  if (entry !== "keep" && String(parameters) !== String(readUrl())) {
    history[`${entry}State`](null, "", parameters.size ? `?${parameters}` : location.pathname);
  }
  const query = parameters.get("query");
  document.title = query ? `${query} · doc-server` : "doc-server";
  if (query) return load(parameters);
  list([], null);
  status.textContent = "";
  sayWelcome();
}

/** Shows what `parameters` finds: after the list when they hold its cursor, else in its place. */
async function load(parameters) {
  running.abort();
  const { signal } = (running = new AbortController());
  results.ariaBusy = "true";
  const loading = setTimeout(() => (status.textContent = "Searching…"), LOADING_AFTER_MS);
  const wanted = `${parameters}&content=snippet&highlight=true&match_count=${PAGE_SIZE}`;
  const answer = await call("search", wanted, signal);
  clearTimeout(loading);
  if (signal.aborted) return; // A newer search owns the page.
  if (answer.problem) return sayProblem(answer.problem, parameters);
  const follows = parameters.has("cursor");
  const nodes = answer.results.map(resultNode);
  list(follows ? [...results.children, ...nodes] : nodes, answer.next_cursor);
  status.textContent = count(results.children.length, "passage") + (answer.next_cursor ? ", more below" : "");
  sayAnswer(answer, parameters);
  if (follows) nodes[0]?.querySelector("button").focus();
  onward = new URLSearchParams(parameters);
  onward.set("cursor", answer.next_cursor);
}

function list(nodes, cursor) {
  results.replaceChildren(...nodes);
  results.ariaBusy = "false";
  more.hidden = !cursor;
}

/** Opens or closes a result. Its passage is read once. */
async function toggle(item) {
  const [snippet, full] = item.querySelectorAll(".snippet, .full");
  const isOpen = () => item.classList.contains("open");
  item.querySelector("button").ariaExpanded = item.classList.toggle("open");
  settled = true;
  if (isOpen() && !full.querySelector("section")) {
    const body = await call(`chunks/${item.dataset.chunk}`, "before=1&after=1");
    full.replaceChildren(...(body.problem ? [problemNode(body.problem)] : fullNodes(body)));
  }
  full.hidden = !isOpen(); // It may have been closed meanwhile.
  snippet.hidden = isOpen();
}

// --- what people do -------------------------------------------------------------------------------------------------

/** While someone types, one entry of the history follows the text. */
function searchSoon(event) {
  clearTimeout(typing);
  if (event.isComposing) return;
  typing = setTimeout(() => {
    if (String(readForm()) === String(readUrl())) return; // Only a blank more.
    search(settled ? "push" : "replace");
    settled = false;
  }, TYPING_PAUSE_MS);
}
box.addEventListener("input", searchSoon);
box.addEventListener("compositionend", searchSoon);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  search(settled ? "push" : "replace");
  settled = true;
});

form.addEventListener("change", ({ target }) => {
  if (target === box) return;
  search("push");
  settled = true;
});

window.addEventListener("popstate", () => {
  if (String(readForm()) === String(readUrl())) return; // Only the fragment changed: the skip link.
  settled = true;
  fillForm();
  search("keep");
});

more.addEventListener("click", () => load(onward));

results.addEventListener("click", ({ target }) => {
  const item = target.closest(".result");
  if (!item || target.closest("a")) return;
  // The text of a closed result opens it. In an open one, or while selecting, a click is for the text.
  const isForText = item.classList.contains("open") || !getSelection().isCollapsed;
  if (target.closest("h2 button") || !isForText) toggle(item);
});

/** Moves the focus along the box, the results and "more". */
function move(step) {
  const stops = [box, ...results.querySelectorAll("h2 button"), ...(more.hidden ? [] : [more])];
  const here = document.activeElement.closest(".result")?.querySelector("h2 button") ?? document.activeElement;
  stops[Math.max(stops.indexOf(here), 0) + step]?.focus();
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || target.matches("select")) return;
  const step = { ArrowDown: 1, ArrowUp: -1, ...(target === box ? {} : { j: 1, k: -1 }) }[key];
  const goesToBox = target !== box && (key === "/" || key === "Escape");
  if (!step && !goesToBox) return;
  event.preventDefault();
  if (step) return move(step);
  box.focus();
  box.select();
});

fillForm();
start();
