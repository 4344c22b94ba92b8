// The contract of the three endpoints that every client uses: health, sources and search answer correctly and fast
// while the number of users grows to 50.
//
//   make load                                               this and scenarios/smoke.js, against a server of its own
//   BASE_URL=http://localhost:8051 SHORT=1 make load        short, against a running one
import { sleep } from 'k6';
import { ramp, trend } from './lib/config.js';
import { health, search, server, sources } from './lib/client.js';
import { summary } from './lib/summary.js';
import { always, contract } from './lib/thresholds.js';
import { query } from './lib/users.js';

export const options = {
  ...trend,
  stages: ramp([30, 10], [60, 10], [30, 50], [60, 50], [30, 0]),
  thresholds: { ...always, ...contract },
};

export const setup = server;
export const handleSummary = summary('api-contract');

export default function () {
  health();
  sources();
  search(query());
  sleep(1);
}
