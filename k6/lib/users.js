// What a user does: searches, now and then looks which sources there are, and thinks in between.
import { sleep } from 'k6';
import exec from 'k6/execution';
import { health, search, sources } from './client.js';
import { alpha, seed } from './config.js';
import { drawn } from './queries.js';
import { seedOf, uniform } from './random.js';

// A different query for the iterations of each scenario, or the second would find everything in the cache.
const mark = (name) => [...name].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0, seed);
const byScenario = {};

export function query() {
  const { name, iterationInTest } = exec.scenario;
  byScenario[name] = byScenario[name] || drawn(alpha, mark(name));
  return byScenario[name](iterationInTest);
}

// Searches, and of twenty iterations three list the sources and one asks for health too.
export function visit(options) {
  const n = exec.scenario.iterationInTest % 20;
  if (n % 7 === 3) sources();
  if (n === 9) health();
  search(query(), options);
}

// Half a second to one and a half, so that 100 users ask about 100 times a second.
export function think() {
  sleep(0.5 + uniform(seedOf(seed + exec.vu.idInTest, exec.vu.iterationInInstance))());
}
