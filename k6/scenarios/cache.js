// What the caches are worth: searches at a fixed rate whose questions repeat not at all by design (Zipf exponent 0), as
// people's do (0.85), and more (1.0); each for two minutes that begin with none of them asked before (cold) and two more
// over the same questions (warm). Prints hit rates, the highest that any cache could have, and latencies by X-Cache.
//
//   RATE=50   searches a second; the first phase is all misses, so a small machine may want fewer
//   SEED=…    other questions; without it they are new in every run, so that cold is cold
import exec from 'k6/execution';
import { seconds, scale, time, trend } from '../lib/config.js';
import { search, server } from '../lib/client.js';
import { queries } from '../lib/queries.js';
import { seedOf, uniform, zipf } from '../lib/random.js';
import { summary, table, values } from '../lib/summary.js';
import { always, cached, each, eachOutcome, outcomes } from '../lib/thresholds.js';

const rate = Number(__ENV.RATE || 50);
const length = 120;
const exponents = [0, 0.85, 1];
// Nearly as many as one phase sends, so that a uniform draw repeats some in the first and most in the second.
const keys = Math.max(200, Math.round(100 * rate * scale));

const phases = exponents.flatMap((exponent, n) =>
  ['cold', 'warm'].map((state) => ({ name: `zipf_${exponent.toFixed(2).replace('.', '')}_${state}`, exponent, n, state })));
const phaseOf = Object.fromEntries(phases.map((phase) => [phase.name, phase]));
const requests = rate * seconds(length);

export const options = {
  ...trend,
  scenarios: Object.fromEntries(phases.map(({ name }, n) => [name, {
    executor: 'constant-arrival-rate', exec: 'ask', rate, duration: time(length), preAllocatedVUs: 100, gracefulStop: '1s',
    startTime: `${n * (seconds(length) + 1)}s`, // A second later, so that the next does not meet the last ones of this.
  }])),
  thresholds: {
    ...always, ...each(phases.map(({ name }) => name)), ...eachOutcome(phases.map(({ name }) => name)), ...cached('zipf_100_warm'),
  },
};

const samplers = exponents.map((exponent) => zipf(keys, exponent));

// The n-th rank of a phase; the warm phase goes on where the cold one ended.
function rankOf({ n, state }, iteration, seed) {
  return samplers[n](uniform(seedOf(seed + n, iteration + (state === 'warm' ? requests : 0))));
}

// Two phrases of the documents: a question that nobody asked before this run, unless with the same seed.
function question(phase, rank, seed) {
  const random = uniform(seedOf(seed + 17 * (phase.n + 1), rank));
  const pick = () => queries[Math.floor(random() * queries.length)];
  return `${pick()} ${pick()} ${pick().split(' ')[0]}`;
}

export function setup() {
  return { ...server(), seed: Number(__ENV.SEED || Date.now() % 2 ** 31) };
}

export function ask({ seed }) {
  const phase = phaseOf[exec.scenario.name];
  search(question(phase, rankOf(phase, exec.scenario.iterationInTest, seed), seed));
}

// The share of a phase's draws that were drawn before: the hit rate of a cache that loses nothing.
function possible(seed) {
  const seen = exponents.map(() => new Set());
  return Object.fromEntries(phases.map((phase) => {
    let repeated = 0;
    for (let n = 0; n < requests; n++) {
      const rank = rankOf(phase, n, seed);
      if (seen[phase.n].has(rank)) repeated++;
      seen[phase.n].add(rank);
    }
    return [phase.name, repeated / requests];
  }));
}

export const handleSummary = summary('cache', (data) => {
  const best = possible(data.setup_data.seed);
  const parts = phases.map(({ name, exponent, state }) => {
    const by = Object.fromEntries(outcomes.map((outcome) => {
      const found = values(data, `search_duration{scenario:${name},cache:${outcome}}`);
      return [outcome, { answers: found.count || 0, median: found.med, p95: found['p(95)'], p99: found['p(99)'] }];
    }).filter(([, found]) => found.answers > 0));
    const total = Object.values(by).reduce((sum, { answers }) => sum + answers, 0);
    const hits = ['hit-l1', 'hit-l2', 'stale', 'coalesced'].reduce((sum, outcome) => sum + (by[outcome] ? by[outcome].answers : 0), 0);
    return { exponent, state, answers: total, hit_rate: total ? hits / total : 0, possible: best[name], by };
  });
  const head = table(['exponent', 'caches', 'answers', 'hit %', 'possible %'],
    parts.map((part) => [String(part.exponent), part.state, part.answers, 100 * part.hit_rate, 100 * part.possible]));
  const detail = table(['exponent', 'caches', 'X-Cache', 'answers', 'median ms', 'p95', 'p99'],
    parts.flatMap((part) => Object.entries(part.by).map(([outcome, found]) =>
      [String(part.exponent), part.state, outcome, String(found.answers), found.median, found.p95, found.p99])));
  return { text: `  ${keys} questions, seed ${data.setup_data.seed}\n${head}\n\n${detail}`, json: { cache: { keys, parts } } };
});
