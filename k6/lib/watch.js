// What the server's process uses while it is loaded, read from its metrics on the admin door. Without ADMIN_URL there
// is nothing to read, and the thresholds on these metrics find no sample and hold.
//
//   server_resident_mb   server_cpu_percent (100 is one core)   server_open_files   server_growth_mb_per_min
import http from 'k6/http';
import { sleep } from 'k6';
import { Gauge, Trend } from 'k6/metrics';
import { admin, adminHeaders, seconds } from './config.js';

const resident = new Trend('server_resident_mb');
const cpu = new Trend('server_cpu_percent');
const files = new Trend('server_open_files');
const growth = new Gauge('server_growth_mb_per_min');

const series = (text, name) => Number((text.match(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm')) || [])[1]);

let last = null; // The reading before, for the processor time between the two.
let first = null; // The first after a quarter of the run, when the caches have filled.
let began = 0;

function read() {
  const answer = http.get(`${admin}/metrics`, { headers: adminHeaders, tags: { name: 'metrics' } });
  if (answer.status !== 200) return null;
  return {
    at: Date.now() / 1000,
    cpu: series(answer.body, 'process_cpu_seconds_total'),
    mb: series(answer.body, 'process_resident_memory_bytes') / 2 ** 20,
    files: series(answer.body, 'process_open_fds'),
  };
}

// The body of the scenario: one reading and a pause.
export function watchFor(total, every) {
  const now = read();
  if (now) {
    began = began || now.at;
    resident.add(now.mb);
    files.add(now.files);
    if (last) cpu.add((100 * (now.cpu - last.cpu)) / (now.at - last.at));
    last = now;
    if (!first && now.at - began >= total / 4) first = now;
    else if (first) growth.add((now.mb - first.mb) / ((now.at - first.at) / 60));
  }
  sleep(every);
}

// The k6 scenario that watches a run of `full` seconds; the script exports `watch` made by `watcher(full)`.
export const watching = (full) =>
  admin
    ? { watch: { executor: 'constant-vus', exec: 'watch', vus: 1, duration: `${seconds(full)}s`, gracefulStop: '2s' } }
    : {};
export const watcher = (full) => () => watchFor(seconds(full), Math.min(5, Math.max(0.5, seconds(full) / 20)));
