// One function for each endpoint: asks, checks the answer, and turns its headers into metrics.
//
//   search_duration{cache}   ms of answered searches, by X-Cache       search_answers{cache}   their number
//   server_stage{stage}      ms of each stage of Server-Timing         cache_hits              share not worked for
//   search_refused           share of 429 and 503 with Retry-After     refused_duration        ms of such a refusal
//   search_late              answers later than the SLO                search_not_answered     all that was not 200
//   search_degraded          answers that miss a part
import http from 'k6/http';
import { check, fail } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';
import { base, headers } from './config.js';
import { slo } from './thresholds.js';

const duration = new Trend('search_duration', true);
const answers = new Counter('search_answers');
const stage = new Trend('server_stage', true);
const hits = new Rate('cache_hits');
const refused = new Rate('search_refused');
const refusal = new Trend('refused_duration', true);
const late = new Counter('search_late');
const notAnswered = new Counter('search_not_answered');
const degraded = new Counter('search_degraded');

const free = new Set(['hit-l1', 'hit-l2', 'stale', 'coalesced']);
const strict = http.expectedStatuses(200);
const lenient = http.expectedStatuses(200, 429, 503);

// [stage, milliseconds] pairs of a Server-Timing header.
export function timings(header) {
  return (header || '')
    .split(',')
    .map((entry) => entry.match(/^\s*([^;\s]+)\s*;\s*dur=([0-9.]+)/))
    .filter((match) => match)
    .map((match) => [match[1], Number(match[2])]);
}

const get = (name, path, responseCallback = strict) => http.get(`${base}${path}`, { headers, tags: { name }, responseCallback });

// The property of the body begins so: reading 5 kB of JSON a thousand times a second would slow the generator.
const has = (answer, text) => typeof answer.body === 'string' && answer.body.includes(text);

export function health() {
  const answer = get('health', '/api/health');
  check(answer, { 'health answers 200': (r) => r.status === 200, 'health is healthy': (r) => has(r, '"status":"healthy"') });
  return answer;
}

export function sources() {
  const answer = get('sources', '/api/sources');
  check(answer, { 'sources answers 200': (r) => r.status === 200, 'sources has sources': (r) => has(r, '"sources":[') });
  return answer;
}

function record(answer) {
  const outcome = answer.headers['X-Cache'] || 'none';
  duration.add(answer.timings.duration, { cache: outcome });
  answers.add(1, { cache: outcome });
  hits.add(free.has(outcome));
  for (const [name, ms] of timings(answer.headers['Server-Timing'])) stage.add(ms, { stage: name });
  if (has(answer, '"degraded":true')) degraded.add(1);
}

// Asks for five passages. With `mayRefuse`, 429 and 503 that say when to come back are right answers.
export function search(query, { mayRefuse = false } = {}) {
  const path = `/api/search?query=${encodeURIComponent(query)}&match_count=5`;
  const answer = get('search', path, mayRefuse ? lenient : strict);
  const turnedAway = (answer.status === 429 || answer.status === 503) && Boolean(answer.headers['Retry-After']);
  refused.add(turnedAway);
  if (answer.status === 200) record(answer);
  else notAnswered.add(1);
  if (answer.status !== 200 || answer.timings.duration > slo.p95) late.add(1);
  if (turnedAway) refusal.add(answer.timings.duration);
  if (turnedAway && mayRefuse) {
    check(answer, { 'a refusal says when to come back': () => turnedAway });
  } else {
    check(answer, { 'search answers 200': (r) => r.status === 200, 'search has results': (r) => has(r, '"results":[') });
  }
  return answer;
}

// For setup(): who answers, or the end of the run.
export function server() {
  const answer = http.get(`${base}/api/health`, { headers, tags: { name: 'setup' } });
  if (answer.status !== 200) fail(`no healthy server at ${base}: ${answer.error || `status ${answer.status}`}`);
  const listed = http.get(`${base}/api/sources?limit=100`, { headers, tags: { name: 'setup' } });
  if (listed.status !== 200) fail(`${base}/api/sources answers ${listed.status}`);
  const all = listed.json('sources');
  const sum = (field) => all.reduce((total, each) => total + each[field], 0);
  if (sum('chunk_count') === 0) fail(`the server at ${base} has no documents: index some first`);
  return { version: answer.json('version'), sources: all.length, pages: sum('page_count'), chunks: sum('chunk_count') };
}
