// Does everything answer, and rightly? Two users for half a minute; the first thing to run after a deploy.
import { trend, time } from '../lib/config.js';
import { health, server, sources } from '../lib/client.js';
import { summary } from '../lib/summary.js';
import { always, contract } from '../lib/thresholds.js';
import { think, visit } from '../lib/users.js';

export const options = { ...trend, vus: 2, duration: time(30), thresholds: { ...always, ...contract } };

export const setup = server;

export default function () {
  health();
  sources();
  visit();
  think();
}

export const handleSummary = summary('smoke');
