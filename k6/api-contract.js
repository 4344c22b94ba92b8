// The contract of the three endpoints that every client uses: health, sources and search answer correctly and fast
// while the number of users grows to 50.
//
//   make load                                               full length, against a server of its own
//   BASE_URL=http://localhost:8051 SHORT=1 make load        short, against a running one
import http from 'k6/http';
import { check, sleep } from 'k6';
import { base, contract, ramp } from './lib/config.js';

export const options = {
  stages: ramp([30, 10], [60, 10], [30, 50], [60, 50], [30, 0]),
  thresholds: contract,
};

const words = ['timeout', 'pool', 'runtime', 'serialize', 'router', 'async task', 'error handling', 'how to parse json'];

// Fetches one endpoint under a name of its own and checks the status and one property of the body.
function expect(name, path, property, holds) {
  const answer = http.get(`${base}${path}`, { tags: { name } });
  check(answer, {
    [`${name} answers 200`]: (r) => r.status === 200,
    [`${name} has ${property}`]: (r) => r.status === 200 && holds(r.json(property)),
  });
}

export default function () {
  const query = encodeURIComponent(words[Math.floor(Math.random() * words.length)]);
  expect('health', '/api/health', 'status', (status) => status === 'healthy');
  expect('sources', '/api/sources', 'sources', Array.isArray);
  expect('search', `/api/search?query=${query}&match_count=5`, 'results', Array.isArray);
  sleep(1);
}
