// Queries out of text: runs of one to five words as they stand in the documents. The same text and seed give the same
// queries.
import { uniform } from './random.js';

// Words that say nothing of what is looked for; no phrase begins or ends with one.
const empty = new Set(('a an and are as at be but by can do for from has have if in into is it its may no not of on or ' +
  'so such than that the their then there these they this to was we when which will with you your').split(' '));

// How often a query has one, two, … five words, of twenty.
const lengths = [1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5];

// A pass over the text begins a phrase at one word in four. After 24 of them few new ones come, however small the text.
const passes = 24;
const apart = 4;

// Letters of any language; k6 knows no \p{L}, so all but the blocks of marks, arrows and boxes count as letters.
const letter = 'A-Za-z\\u00c0-\\u1fff\\u2c00-\\u2dff\\u3040-\\ud7ff';
// Words keep the marks that technical names have inside: snake_case, a::b, a.b.c; --flag is `flag`.
const word = new RegExp(`[${letter}0-9_]+(?:(?:::|[.'’-])[${letter}0-9_]+)*`, 'g');
const spoken = new RegExp(`[${letter}]{2}`);

function sentences(text) {
  return text
    .split(/\n|[.!?;]\s/)
    .map((line) => line.match(word) || [])
    .filter((words) => words.length > 0);
}

const says = (each) => spoken.test(each) && !empty.has(each.toLowerCase());

// Without the words at both ends that say nothing; none when none says anything.
function trimmed(words) {
  const first = words.findIndex(says);
  return first < 0 ? [] : words.slice(first, words.length - [...words].reverse().findIndex(says));
}

function shuffle(list, random) {
  for (let last = list.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [list[last], list[other]] = [list[other], list[last]];
  }
  return list;
}

// At most `count` different queries from the texts, in random order.
export function phrases(texts, count, seed) {
  const random = uniform(seed);
  const lines = shuffle(texts.flatMap(sentences), random);
  const found = new Map();
  for (let pass = 0; pass < passes && found.size < count; pass++) {
    for (const words of lines) {
      for (let taken = 0; taken < words.length; taken += apart) {
        const length = Math.min(words.length, lengths[Math.floor(random() * lengths.length)]);
        const start = Math.floor(random() * (words.length - length + 1));
        const query = trimmed(words.slice(start, start + length)).join(' ');
        // The server takes queries that differ in case alone for one.
        const key = query.toLowerCase();
        if (query && query.length <= 200 && !found.has(key)) found.set(key, query);
      }
      if (found.size >= count) break;
    }
  }
  return shuffle([...found.values()], random).slice(0, count);
}
