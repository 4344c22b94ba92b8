// Shared by every load script: where the server is, what it must keep to, how long a run takes.

export const base = __ENV.BASE_URL || 'http://localhost:8051';

// 1 is the full run; 0.1 makes every stage ten times shorter.
const scale = Number(__ENV.SCALE || 1);

export const contract = {
  http_req_duration: ['p(95)<500'],
  http_req_failed: ['rate<0.001'],
  checks: ['rate==1.0'],
};

// Stages from [seconds, users] pairs.
export function ramp(...steps) {
  return steps.map(([seconds, users]) => ({ duration: `${Math.max(1, Math.round(seconds * scale))}s`, target: users }));
}
