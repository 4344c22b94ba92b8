// A crowd at once: 10 users, 300 more within ten seconds for a minute, 10 again. Refusals are right meanwhile; five
// seconds after the crowd has left, everything must be as before.
import { ramp, seconds, time, trend } from '../lib/config.js';
import { server } from '../lib/client.js';
import { perScenario, summary } from '../lib/summary.js';
import { always, each, overloaded, recovered } from '../lib/thresholds.js';
import { think, visit } from '../lib/users.js';
import { watcher, watching } from '../lib/watch.js';

const [calm, rise, crowd, fall, pause, rest] = [60, 10, 60, 5, 5, 120];
const length = calm + rise + crowd + fall + pause + rest;
const peak = seconds(rise) + seconds(crowd) + seconds(fall);
const steps = [
  { name: 'before', length: seconds(calm) },
  { name: 'peak', length: peak },
  { name: 'after', length: seconds(rest) },
];

export const options = {
  ...trend,
  scenarios: {
    before: { executor: 'constant-vus', vus: 10, duration: time(calm), exec: 'user', gracefulStop: '5s' },
    peak: {
      executor: 'ramping-vus', startTime: time(calm), startVUs: 10, exec: 'user', gracefulRampDown: '2s', gracefulStop: '2s',
      stages: ramp([rise, 310], [crowd, 310], [fall, 0]),
    },
    // The five seconds are what the server has to recover, so they are not shortened.
    after: { executor: 'constant-vus', vus: 10, startTime: `${seconds(calm) + peak + pause}s`, duration: time(rest), exec: 'user' },
    ...watching(length),
  },
  thresholds: {
    ...always, ...each(steps.map(({ name }) => name)), ...overloaded, ...recovered('before'), ...recovered('after'),
  },
};

export const setup = server;
export const watch = watcher(length);
export const handleSummary = summary('spike', (data) => perScenario(data, steps));

export function user() {
  visit({ mayRefuse: true });
  think();
}
