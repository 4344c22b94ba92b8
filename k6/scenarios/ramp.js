// From 1 to 100 users and back, 21 minutes: the run that every change of the search path should survive.
import { ramp, trend } from '../lib/config.js';
import { server } from '../lib/client.js';
import { summary } from '../lib/summary.js';
import { always, hundred } from '../lib/thresholds.js';
import { think, visit } from '../lib/users.js';
import { watcher, watching } from '../lib/watch.js';

const length = 21 * 60;

export const options = {
  ...trend,
  scenarios: {
    ramp: { executor: 'ramping-vus', startVUs: 1, stages: ramp([120, 10], [300, 50], [120, 100], [600, 100], [120, 0]) },
    ...watching(length),
  },
  thresholds: { ...always, ...hundred },
};

export const setup = server;
export const watch = watcher(length);
export const handleSummary = summary('ramp');

export default function () {
  visit();
  think();
}
