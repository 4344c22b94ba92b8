// The full ramp, 1 to 100 users and back in 21 minutes, with k6 alone: k6 run scripts/load_test_comprehensive.js
// BASE_URL and SCALE as in k6/lib/config.js; `make load SCENARIO=ramp` keeps a report, metrics and a profile as well.
export { default, handleSummary, options, setup, watch } from '../k6/scenarios/ramp.js';
