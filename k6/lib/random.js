// Draws that are the same in every run: a small generator, and Zipf's law.

// Uniform numbers in [0, 1) from a seed of 32 bits (mulberry32).
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// A seed of its own for the n-th draw, so that the draw does not depend on which user makes it.
export const seedOf = (seed, n) => (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(n + 1, 0x85ebca6b)) >>> 0;

// A function that draws ranks 0 … count-1, rank r with a probability proportional to (r+1)^-exponent, from uniform
// numbers. Rejection-inversion after Hörmann and Derflinger: no table, so thousands of users cost no memory.
export function zipf(count, exponent) {
  if (exponent === 0) return (random) => Math.floor(random() * count);
  const density = (x) => Math.exp(-exponent * Math.log(x));
  const area = exponent === 1 ? Math.log : (x) => (Math.pow(x, 1 - exponent) - 1) / (1 - exponent);
  const inverse = exponent === 1 ? Math.exp : (y) => Math.pow(1 + y * (1 - exponent), 1 / (1 - exponent));
  const low = area(1.5) - 1;
  const high = area(count + 0.5);
  const close = 2 - inverse(area(2.5) - density(2));
  return (random) => {
    for (;;) {
      const y = high + random() * (low - high);
      const x = inverse(y);
      const rank = Math.min(count, Math.max(1, Math.round(x)));
      if (rank - x <= close || y >= area(rank + 0.5) - density(rank)) return rank - 1;
    }
  };
}
