// Many who ask little: 1,000 connections that stay open, then 5,000, each asking once in twenty seconds. Shows what an
// open connection costs and whether the server closes those that are in use.
//
//   OPEN=5000   the most connections; this machine and the server need as many open files (ulimit -n)
import { sleep } from 'k6';
import exec from 'k6/execution';
import { Counter, Rate } from 'k6/metrics';
import { admin, ramp, seed, trend } from '../lib/config.js';
import { health, search, server } from '../lib/client.js';
import { drawn } from '../lib/queries.js';
import { seedOf, uniform } from '../lib/random.js';
import { summary, values } from '../lib/summary.js';
import { always, connections } from '../lib/thresholds.js';
import { watcher, watching } from '../lib/watch.js';

const open = Number(__ENV.OPEN || 5000);
const few = Math.ceil(open / 5);
const length = 60 + 120 + 120 + 180;
const pause = 20; // Seconds, less than any sensible idle deadline of a proxy or server; not shortened.

const opened = new Counter('connections_opened');
const lost = new Rate('connection_lost');

export const options = {
  ...trend,
  scenarios: {
    hold: {
      executor: 'ramping-vus', exec: 'hold', startVUs: 0, gracefulRampDown: '2s', gracefulStop: '2s',
      stages: ramp([60, few], [120, few], [120, open], [180, open]),
    },
    ...watching(length),
  },
  thresholds: { ...always, ...connections(admin ? open : 0) },
};

// The most asked queries only: what is measured is the connections, not the model.
const query = drawn(1.5);
let before = false;

export function hold() {
  const answer = before ? search(query(exec.scenario.iterationInTest), { mayRefuse: true }) : health();
  const connected = answer.timings.connecting > 0;
  if (connected) opened.add(1);
  if (before) lost.add(connected);
  before = true;
  // The first pause is a part of it, or all who came together would ask together for ever; not too small a part, since
  // k6 itself opens a second connection when it has not yet put the first one back.
  sleep(pause * (exec.vu.iterationInScenario === 0 ? 0.2 + 0.8 * uniform(seedOf(seed, exec.vu.idInTest))() : 1));
}

export const setup = server;
export const watch = watcher(length);
export const handleSummary = summary('connections', (data) => ({
  text: `  ${values(data, 'connections_opened').count} connections opened; ` +
    `${(100 * (values(data, 'connection_lost').rate || 0)).toFixed(2)} % of later requests had to open another`,
}));
