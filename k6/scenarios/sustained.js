// 100 users for an hour, after two minutes to get there: what only time shows, memory above all.
import { ramp, trend } from '../lib/config.js';
import { server } from '../lib/client.js';
import { summary } from '../lib/summary.js';
import { always, sustained } from '../lib/thresholds.js';
import { think, visit } from '../lib/users.js';
import { watcher, watching } from '../lib/watch.js';

const length = 120 + 3600;

export const options = {
  ...trend,
  scenarios: {
    sustained: { executor: 'ramping-vus', startVUs: 1, stages: ramp([120, 100], [3600, 100]) },
    ...watching(length),
  },
  thresholds: { ...always, ...sustained },
};

export const setup = server;
export const watch = watcher(length);
export const handleSummary = summary('sustained');

export default function () {
  visit();
  think();
}
