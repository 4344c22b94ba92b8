// The end of a run: tables for people on standard output, and everything for programs in OUT/summary.json.
import { out, scale, seed } from './config.js';
import { outcomes, stages } from './thresholds.js';

function round(value) {
  if (value === undefined) return '-';
  return Number.isInteger(value) || value >= 100 ? value.toFixed(0) : value.toFixed(value < 1 ? 4 : 2);
}

// Below that it is the caches that fill, not a leak.
const growthFrom = 300;

export function table(head, rows) {
  if (rows.length === 0) return `  ${head[0]}: none`;
  const cells = [head, ...rows.map((row) => row.map((cell) => (typeof cell === 'string' ? cell : round(cell))))];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => String(row[column]).length)));
  return cells
    .map((row) => row.map((cell, n) => (/^[0-9.-]*$/.test(cells[1] ? cells[1][n] : '') ? String(cell).padStart(widths[n]) : String(cell).padEnd(widths[n]))))
    .map((row) => `  ${row.join('  ')}`.trimEnd())
    .join('\n');
}

export const values = (data, metric) => (data.metrics[metric] || { values: {} }).values;
const latencies = (found) => [found.med, found['p(95)'], found['p(99)'], found.max];

// With more than these, as `breakpoint` has for each of its steps, only the broken ones are listed.
const most = 20;

function judged(data) {
  const all = Object.entries(data.metrics).flatMap(([metric, { thresholds, values: found }]) =>
    Object.entries(thresholds || {}).map(([rule, { ok }]) => {
      const stat = rule.match(/^[a-z]+(\([0-9.]+\))?/)[0];
      return [ok ? 'holds' : 'BROKEN', metric, rule, found[stat]];
    }),
  );
  const rows = all.length > most ? all.filter(([held]) => held === 'BROKEN') : all;
  const left = all.length - rows.length;
  return table(['threshold', 'on', 'rule', 'was'], rows.sort()) + (left > 0 ? `\n  and ${left} more that hold` : '');
}

function rows(data, names, metricOf, countOf) {
  return names
    .map((name) => [name, countOf(name), values(data, metricOf(name))])
    .filter(([, count, found]) => found.count > 0 && count !== 0)
    .map(([name, count, found]) => [name, count === undefined ? found.count : count, ...latencies(found)]);
}

const times = ['median ms', 'p95', 'p99', 'max'];

function text(data, name, more) {
  const about = data.setup_data || {};
  const duration = data.state.testRunDurationMs / 1000;
  const count = (metric) => values(data, metric).count || 0;
  const parts = [
    `\n${name}: ${round(duration)} s (scale ${scale}, seed ${seed}) against doc-server ${about.version || '?'}, ` +
      `${about.sources} sources, ${about.pages} pages, ${about.chunks} chunks`,
    `${count('http_reqs')} requests, ${round(values(data, 'http_reqs').rate)} a second; failed ` +
      `${round(100 * (values(data, 'http_req_failed').rate || 0))} %; refused ${round(100 * (values(data, 'search_refused').rate || 0))} ` +
      `% of searches; ${count('search_degraded')} degraded; ${round(100 * (values(data, 'cache_hits').rate || 0))} % of answers not worked for`,
    table(['endpoint', 'requests', ...times],
      rows(data, ['health', 'sources', 'search'], (each) => `http_req_duration{name:${each}}`, () => undefined)),
    table(['X-Cache', 'answers', ...times],
      rows(data, outcomes, (each) => `search_duration{cache:${each}}`, () => undefined)),
    table(['Server-Timing', 'times', ...times],
      rows(data, stages, (each) => `server_stage{stage:${each}}`, () => undefined)),
  ];
  const process = ['server_resident_mb', 'server_cpu_percent', 'server_open_files'].filter((each) => values(data, each).count);
  if (process.length > 0) {
    parts.push(table(['server process', 'min', 'avg', 'max'],
      process.map((each) => [each, values(data, each).min, values(data, each).avg, values(data, each).max])));
    const growth = values(data, 'server_growth_mb_per_min').value;
    if (growth !== undefined && duration >= growthFrom) parts.push(`  growth of resident memory after the first quarter: ${growth.toFixed(2)} MB/min`);
  }
  if (more) parts.push(more);
  parts.push(judged(data));
  return `${parts.join('\n\n')}\n\n`;
}

// k6's handleSummary of a scenario. `more(data)` adds {text, json}: tables and figures of that scenario alone.
export const summary = (name, more = () => ({})) => (data) => {
  const extra = more(data);
  const files = { stdout: text(data, name, extra.text) };
  if (out) files[`${out}/summary.json`] = JSON.stringify({ scenario: name, scale, seed, ...extra.json, ...data }, null, 1);
  return files;
};

// A row for each k6 scenario that ran: answers and refusals a second of its `length` seconds, latencies of the answers.
export function perScenario(data, steps) {
  const found = steps
    .map(({ name, length }) => {
      const answered = values(data, `search_answers{scenario:${name}}`).count || 0;
      const refused = values(data, `search_refused{scenario:${name}}`);
      const time = values(data, `search_duration{scenario:${name}}`);
      return { name, answered, perSecond: answered / length, refused: refused.rate || 0, p95: time['p(95)'], p99: time['p(99)'], median: time.med };
    })
    .filter((step) => step.answered > 0 || step.refused > 0);
  return {
    text: table(['part', 'answers', 'a second', 'refused %', 'median ms', 'p95', 'p99'],
      found.map((step) => [step.name, step.answered, step.perSecond, 100 * step.refused, step.median, step.p95, step.p99])),
    json: { parts: found },
  };
}
