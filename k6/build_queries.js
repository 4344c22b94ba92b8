// Makes the file of queries: reads passages of every source from the running server and cuts phrases out of them.
//
//   k6 run -e BASE_URL=http://localhost:8051 -e QUERIES_OUT=queries.txt k6/build_queries.js
//
// Only reads. The same documents and SEED give the same file. At most 1,000 passages of a source are read, spread by
// what is nearest to the source's name and to words found on the way.
import http from 'k6/http';
import { fail } from 'k6';
import { base, headers, seed } from './lib/config.js';
import { phrases } from './lib/phrases.js';

export const options = { vus: 1, iterations: 1, setupTimeout: '5m' };

const count = Number(__ENV.QUERY_COUNT || 30000);
const perSource = 1000;
const page = 100; // The most results of one answer.

function get(path, parameters) {
  const query = Object.entries(parameters).filter(([, value]) => value).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
  const answer = http.get(`${base}${path}?${query}`, { headers, tags: { name: path } });
  if (answer.status !== 200) fail(`${path} answers ${answer.status || answer.error}: ${String(answer.body).slice(0, 200)}`);
  return answer.json();
}

function sources() {
  const found = [];
  let cursor = null;
  do {
    const answer = get('/api/sources', { limit: 100, cursor });
    found.push(...answer.sources);
    cursor = answer.next_cursor;
  } while (cursor);
  return found.filter((source) => source.chunk_count > 0).sort((a, b) => (a.source_id < b.source_id ? -1 : 1));
}

// The passages nearest to one question, by chunk id.
function read(source, question, passages) {
  let cursor = null;
  do {
    const answer = get('/api/search', { query: question, source: source.source_id, match_count: page, cache: 'bypass', cursor });
    for (const { chunk_id, content } of answer.results) passages.set(chunk_id, content);
    cursor = answer.next_cursor;
  } while (cursor && passages.size < perSource);
}

function passagesOf(source) {
  const passages = new Map();
  const most = Math.min(perSource, source.chunk_count);
  let question = source.title || source.source_id;
  // Each round looks for a phrase of what was found; ten rounds reach nearly everything of a small source.
  for (let round = 0; round < 10 && passages.size < most; round++) {
    read(source, question, passages);
    question = phrases([...passages.values()], 10, seed + round)[0] || source.source_id;
  }
  return [...passages.entries()].sort(([a], [b]) => a - b).map(([, content]) => content);
}

export function setup() {
  const texts = sources().flatMap(passagesOf);
  return { passages: texts.length, queries: phrases(texts, count, seed) };
}

export default function () {}

export function handleSummary({ setup_data: made }) {
  if (!made) return { stdout: '' };
  return {
    [__ENV.QUERIES_OUT || 'queries.txt']: `${made.queries.join('\n')}\n`,
    stdout: `${made.queries.length} different queries from ${made.passages} passages\n`,
  };
}
