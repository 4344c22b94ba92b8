// Checks the parts of the suite that no server is needed for; `make lint` runs it. k6 exits 99 when one is wrong.
import { check } from 'k6';
import { seconds, scale } from './lib/config.js';
import { timings } from './lib/client.js';
import { phrases } from './lib/phrases.js';
import { drawn, queries } from './lib/queries.js';
import { seedOf, uniform, zipf } from './lib/random.js';

export const options = { vus: 1, iterations: 1, thresholds: { checks: ['rate==1.0'] } };

// How far off a frequency may be: five standard deviations, which chance passes once in two million.
const within = (hits, draws, probability) =>
  Math.abs(hits - draws * probability) <= 5 * Math.sqrt(draws * probability * (1 - probability));

// Draws as the scenarios do it: a generator of its own for each, seeded by its number.
function frequencies(count, exponent, draws) {
  const found = new Array(count).fill(0);
  const draw = zipf(count, exponent);
  for (let n = 0; n < draws; n++) found[draw(uniform(seedOf(7, n)))]++;
  return found;
}

function zipfIsExact(exponent) {
  const [count, draws] = [500, 50000];
  const found = frequencies(count, exponent, draws);
  const weights = found.map((_, rank) => Math.pow(rank + 1, -exponent));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const tail = (list) => list.slice(100).reduce((sum, each) => sum + each, 0);
  return [0, 1, 2, 9, 99, 499].every((rank) => within(found[rank], draws, weights[rank] / total)) &&
    within(tail(found), draws, tail(weights) / total);
}

const text = 'The pool opens a connection. Use tokio::spawn for the task!\nNaïve résumé of a.b.c and snake_case';
const made = phrases([text, text], 50, 3);

export default function () {
  check(null, {
    'Zipf draws have their probabilities': () => [0, 0.85, 1, 1.5].every(zipfIsExact),
    'phrases are the same for the same seed': () => JSON.stringify(phrases([text, text], 50, 3)) === JSON.stringify(made),
    'phrases differ': () => made.length >= 15 && new Set(made.map((each) => each.toLowerCase())).size === made.length,
    'phrases stand in the text': () => made.every((each) => text.includes(each)),
    'technical names stay whole': () => made.some((each) => each.includes('tokio::spawn')) && !made.some((each) => / ::|^spawn/.test(each)),
    'no phrase ends with a word that says nothing': () => !made.some((each) => /(^| )(the|a|for|of|and)$/i.test(each)),
    'there are tens of thousands of queries': () => queries.length >= 10000 && new Set(queries).size === queries.length,
    'a draw depends on its number alone': () => drawn(1)(5) === drawn(1)(5) && drawn(1)(5) !== drawn(1)(6),
    'Server-Timing is read': () =>
      JSON.stringify(timings('embed;dur=1.5, total;dur=20')) === '[["embed",1.5],["total",20]]' && timings('').length === 0,
    'stages shorten but never end': () => scale !== 1 || (seconds(120) === 120 && seconds(0.2) === 1),
  });
}
