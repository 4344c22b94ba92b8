// Beyond what it is made for: 100, 200, 400, 800 users, two minutes each, then 50. Shows whether throughput stays when
// users pile up, how refusals set in, and whether the server comes back.
import { seconds, time, trend } from '../lib/config.js';
import { server } from '../lib/client.js';
import { perScenario, summary } from '../lib/summary.js';
import { always, each, overloaded, recovered } from '../lib/thresholds.js';
import { think, visit } from '../lib/users.js';
import { watcher, watching } from '../lib/watch.js';

const crowds = [100, 200, 400, 800];
const each_s = 120;
const rest = 120;
const pause = 5; // Not shortened: what the server has to recover.
const length = crowds.length * each_s + pause + rest;
const steps = [...crowds.map((users) => ({ name: `users_${users}`, length: seconds(each_s) })), { name: 'after', length: seconds(rest) }];

const crowd = (vus, n) => ({
  executor: 'constant-vus', exec: 'user', vus, startTime: `${n * seconds(each_s)}s`, duration: time(each_s), gracefulStop: '2s',
});

export const options = {
  ...trend,
  scenarios: {
    ...Object.fromEntries(crowds.map((users, n) => [`users_${users}`, crowd(users, n)])),
    after: {
      executor: 'constant-vus', exec: 'user', vus: 50, startTime: `${crowds.length * seconds(each_s) + pause}s`, duration: time(rest),
    },
    ...watching(length),
  },
  thresholds: { ...always, ...each(steps.map(({ name }) => name)), ...overloaded, ...recovered('after') },
};

export const setup = server;
export const watch = watcher(length);
export const handleSummary = summary('stress', (data) => perScenario(data, steps));

export function user() {
  visit({ mayRefuse: true });
  think();
}
