// How much is too much? Searches arrive at a rate that grows by a quarter every half minute, whether or not the ones
// before were answered, until the SLO breaks. Prints the highest rate that was kept.
//
//   START_RATE=20 MAX_RATE=2000   searches a second of the first and the last step
//
// k6 ends with 99 here, since crossing a threshold is how the run ends; `make load` takes that for success when the
// number it found is at least the least rate of thresholds.js.
import { scale, seconds, time, trend } from '../lib/config.js';
import { search, server } from '../lib/client.js';
import { summary, table, values } from '../lib/summary.js';
import { always, each, failed, leastRate, slo, step } from '../lib/thresholds.js';
import { query } from '../lib/users.js';

const length = 30;
const rates = [];
for (let rate = Number(__ENV.START_RATE || 20); rate <= Number(__ENV.MAX_RATE || 2000); rate *= 1.25) rates.push(Math.round(rate));
const steps = rates.map((rate) => ({ name: `rate_${rate}`, rate, requests: rate * seconds(length) }));

// Who keeps the SLO needs half a second of arrivals at most for 95 of 100; the rest is room for the slow five.
const users = (rate) => 20 + Math.ceil(rate * 0.8);

const arrivals = ({ rate }, n) => ({
  executor: 'constant-arrival-rate', exec: 'ask', rate, startTime: `${n * seconds(length)}s`, duration: time(length),
  preAllocatedVUs: users(rate), gracefulStop: '1s',
});

export const options = {
  ...trend,
  scenarios: Object.fromEntries(steps.map((each, n) => [each.name, arrivals(each, n)])),
  thresholds: Object.assign({}, always, each(rates.map((rate) => `rate_${rate}`)), ...steps.map(({ name, requests }) => step(name, requests))),
};

export const setup = server;

export function ask() {
  search(query(), { mayRefuse: true });
}

function found(data) {
  return steps
    .map(({ name, rate, requests }) => {
      const count = (metric) => values(data, `${metric}{scenario:${name}}`).count || 0;
      const time = values(data, `search_duration{scenario:${name}}`);
      const sent = count('search_answers') + count('search_not_answered');
      const unsent = count('dropped_iterations');
      const kept = sent >= (1 - slo.unsent) * requests && count('search_late') <= slo.late * requests &&
        count('search_not_answered') <= slo.refused * requests;
      return { rate, sent, unsent, late: count('search_late'), notAnswered: count('search_not_answered'), p95: time['p(95)'], p99: time['p(99)'], kept };
    })
    .filter((each) => each.sent + each.unsent > 0);
}

function verdict(kept, broken) {
  if (!broken) return `the SLO held at every rate up to ${kept}/s: raise MAX_RATE`;
  const what = broken.notAnswered > slo.refused * broken.sent ? `${broken.notAnswered} searches were not answered`
    : broken.unsent > 0 ? `the generator had no user free for ${broken.unsent} searches`
      : `${broken.late} searches took longer than ${slo.p95} ms`;
  return `breakpoint: ${kept} searches a second keep p95 < ${slo.p95} ms and errors < ${100 * slo.refused} %; at ${broken.rate}/s ${what}`;
}

export const handleSummary = summary('breakpoint', (data) => {
  const parts = found(data);
  const broken = parts.find((part) => !part.kept);
  const kept = Math.max(0, ...parts.slice(0, broken ? parts.indexOf(broken) : parts.length).map((part) => part.rate));
  const rows = parts.map((part) => [`${part.rate}/s`, part.sent, part.late, part.notAnswered, part.unsent, part.p95, part.p99, part.kept ? 'kept' : 'broken']);
  return {
    text: `${table(['arrivals', 'sent', 'late', 'not answered', 'not sent', 'p95 ms', 'p99', 'SLO'], rows)}\n\n  ${verdict(kept, broken)}`,
    json: { breakpoint: { searches_per_second: kept, least: leastRate, seconds_per_step: seconds(length), scale, steps: parts } },
  };
});
