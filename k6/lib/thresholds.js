// What a run must keep to: the "must" column of the project's targets, here and nowhere else. k6 exits 99 when one
// is crossed. A submetric with an empty list is only shown, never judged.

// Failed requests under load: fewer than one in a thousand.
export const failed = { http_req_failed: ['rate<0.001'] };

const judged = (stats) => ({
  'http_req_duration{name:health}': stats,
  'http_req_duration{name:sources}': stats,
  'http_req_duration{name:search}': stats,
});

// Health, sources and search with up to 50 users.
export const contract = { ...failed, ...judged(['p(95)<500']), checks: ['rate==1.0'] };

// Normal load is 20 requests a second, and may cost half a processor core (the server's process; an embedded Postgres
// is processes of its own).
export const normal = { ...contract, server_cpu_percent: ['avg<50'] };

// Search with 100 users. Checks follow the failures: a request that failed fails its check too.
export const hundred = {
  ...failed,
  ...judged(['p(95)<500']),
  'http_req_duration{name:search}': ['p(95)<2000', 'p(99)<5000'],
  checks: ['rate>0.999'],
};

// An hour of it: 1,000 requests a minute at least, and at most 400 MB resident, but for the seconds in which the server reads its own symbols for the
// profile that the run asks for.
export const sustained = { ...hundred, http_reqs: [`rate>=${(1000 / 60).toFixed(2)}`], server_resident_mb: ['p(95)<400'] };

// Above capacity a refusal that says when to come back is a right answer (see client.js), all else a failure.
export const overloaded = { ...failed, checks: ['rate>0.999'] };

// Whoever comes after the overload is served as if there had been none.
export const recovered = (scenario) => ({
  [`search_duration{scenario:${scenario}}`]: ['p(95)<500'],
  [`search_refused{scenario:${scenario}}`]: ['rate<0.001'],
});

// Of one step of the breakpoint: p95 below 500 ms, failures and refusals below one in a thousand. As counts of the
// requests that the step sends, they cannot be mistaken early in the step, so the first one crossed ends the run. The
// last says that the generator could not send what it should, so the step proves nothing.
export const slo = { p95: 500, late: 0.05, refused: 0.001, unsent: 0.01 };
export const step = (scenario, requests) => {
  const most = (share) => [{ threshold: `count<=${Math.floor(share * requests)}`, abortOnFail: true }];
  return {
    [`search_late{scenario:${scenario}}`]: most(slo.late),
    [`search_not_answered{scenario:${scenario}}`]: most(slo.refused),
    [`dropped_iterations{scenario:${scenario}}`]: most(slo.unsent),
  };
};
// Fewer than 1,000 requests a minute at the breakpoint is a failure of the run.
export const leastRate = 1000 / 60;

// A connection is still usable after the pause between two requests, and as many are open as were to be opened.
export const connections = (open) => ({
  ...overloaded,
  'http_req_duration{name:search}': ['p(95)<2000', 'p(99)<5000'],
  connection_lost: ['rate<0.001'],
  ...(open > 0 ? { server_open_files: [`max>=${open}`] } : {}),
});

// At most three in ten searches of a Zipf load (exponent 1) reach the database.
export const cached = (scenario) => ({ ...failed, checks: hundred.checks, [`cache_hits{scenario:${scenario}}`]: ['rate>=0.7'] });

// --- only shown -----------------------------------------------------------------------------------------------------

export const outcomes = ['hit-l1', 'hit-l2', 'coalesced', 'stale', 'miss', 'bypass', 'none'];
export const stages = ['embed', 'vector', 'keyword', 'rank', 'fetch', 'total'];
const shown = (metrics) => Object.fromEntries(metrics.map((metric) => [metric, []]));

// What every run shows: searches by X-Cache, stages of Server-Timing.
export const always = shown([
  ...outcomes.flatMap((outcome) => [`search_duration{cache:${outcome}}`, `search_answers{cache:${outcome}}`]),
  ...stages.map((stage) => `server_stage{stage:${stage}}`),
  'http_req_duration{name:health}',
  'http_req_duration{name:sources}',
  'http_req_duration{name:search}',
]);

// The same for each k6 scenario of a run that has several.
export const each = (scenarios) =>
  shown(scenarios.flatMap((scenario) => ['search_duration', 'search_answers', 'search_refused', 'search_late',
    'search_not_answered', 'dropped_iterations'].map((metric) => `${metric}{scenario:${scenario}}`)));

// And by X-Cache within each.
export const eachOutcome = (scenarios) =>
  shown(scenarios.flatMap((scenario) => outcomes.flatMap((outcome) => [
    `search_duration{scenario:${scenario},cache:${outcome}}`, `search_answers{scenario:${scenario},cache:${outcome}}`])));
