// The queries of a run: tens of thousands, shared by all users, drawn by Zipf's law.
//
// They come from the file QUERIES (`make load` makes one from the documents that the server has), else from this
// repository's own documentation, which a first `make run` indexes.
import { SharedArray } from 'k6/data';
import { seed } from './config.js';
import { phrases } from './phrases.js';
import { seedOf, uniform, zipf } from './random.js';

// Enough that the rare ones are asked once, as strangers' questions are.
export const wanted = 30000;
// With fewer the caches answer nearly all, and the run says nothing of searching.
const least = 1000;

const own = [
  ...['README', 'CONTRIBUTING', 'CHANGELOG', 'docs/api', 'docs/architecture', 'docs/observability', 'docs/operations',
    'docs/settings', 'docs/performance/benchmarks', 'docs/performance/load-testing', 'docs/performance/optimization-guide',
    ...['README', '0001-validity-ranges', '0002-narrow-tables', '0003-words-and-fusion', '0004-int8-per-channel',
      '0005-onnx-runtime-directly', '0006-parked-connections', '0007-keys-not-invalidation', '0008-flights-are-tasks',
    ].map((name) => `docs/decisions/${name}`),
  ].map((name) => `${name}.md`),
  'docs/openapi.json',
];

function openIfThere(path) {
  try {
    return open(path);
  } catch (_) {
    return '';
  }
}

function load() {
  const lines = __ENV.QUERIES
    ? open(__ENV.QUERIES).split('\n').filter((line) => line)
    : phrases(own.map((name) => openIfThere(import.meta.resolve(`../../${name}`))), wanted, seed);
  if (lines.length < least) throw new Error(`${lines.length} different queries, at least ${least} are needed`);
  return lines;
}

export const queries = new SharedArray('queries', load);

// A function that gives the n-th query of the run, whoever asks it.
export function drawn(exponent, own = seed) {
  const draw = zipf(queries.length, exponent);
  return (n) => queries[draw(uniform(seedOf(own, n)))];
}
