// Normal load: 20 requests a second for ten minutes, whatever the answers take. Shows latencies without queueing and
// what the server costs meanwhile.
import { time, trend } from '../lib/config.js';
import { server } from '../lib/client.js';
import { summary } from '../lib/summary.js';
import { always, normal } from '../lib/thresholds.js';
import { visit } from '../lib/users.js';
import { watcher, watching } from '../lib/watch.js';

const length = 600;

export const options = {
  ...trend,
  scenarios: {
    // One iteration sends 1.2 requests on average; 60 users carry it while no answer takes more than 3.5 s.
    average: { executor: 'constant-arrival-rate', rate: 1000, timeUnit: '60s', duration: time(length), preAllocatedVUs: 60 },
    ...watching(length),
  },
  thresholds: { ...always, ...normal },
};

export const setup = server;
export const watch = watcher(length);
export const handleSummary = summary('average');

export default function () {
  visit();
}
