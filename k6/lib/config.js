// Where the server is and how long a run takes: everything that a run reads from its environment, in one place.
//
//   BASE_URL    the server's public address            ADMIN_URL   its admin door; absent, nothing is read from there
//   SCALE       1 is the full run; 0.1 makes every stage ten times shorter, think time and rates stay
//   SEED        of all draws                           ALPHA       of the Zipf law that searches are drawn by
//   API_KEY, ADMIN_TOKEN                               for servers that ask for them
//   QUERIES     file of queries, one on a line         OUT         folder for summary.json

const number = (name, fallback) => {
  const value = Number(__ENV[name] || fallback);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name}=${__ENV[name]} is not a number of 0 or more`);
  return value;
};

export const base = (__ENV.BASE_URL || 'http://localhost:8051').replace(/\/+$/, '');
export const admin = (__ENV.ADMIN_URL || '').replace(/\/+$/, '');
export const out = __ENV.OUT || '';
export const seed = number('SEED', 1);
// Questions of people repeat about so: the exponent that the cache benchmarks use too.
export const alpha = number('ALPHA', 1);
export const scale = number('SCALE', 1);

const bearer = (token) => (token ? { Authorization: `Bearer ${token}` } : {});
export const headers = bearer(__ENV.API_KEY);
export const adminHeaders = bearer(__ENV.ADMIN_TOKEN);

// A stage below one second would end before its users have started.
export const seconds = (full) => Math.max(1, Math.round(full * scale));
export const time = (full) => `${seconds(full)}s`;

// Stages from [seconds, users] pairs.
export const ramp = (...steps) => steps.map(([full, target]) => ({ duration: time(full), target }));

// Percentiles that the thresholds and the tables need; k6 leaves out p(99) and count by itself.
export const trend = { summaryTrendStats: ['count', 'min', 'avg', 'med', 'p(95)', 'p(99)', 'max'] };
