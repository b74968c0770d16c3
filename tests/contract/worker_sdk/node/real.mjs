/** A session at a real server, left and taken up again behind each of its events; prints what was told. */

import { ClaudeCodeWorker } from '@quarterdeck/worker-sdk';

const client = new ClaudeCodeWorker({ baseUrl: process.env.WORKER_ADDRESS });
const codeOf = (error) => [error.code, error.status];
const session = client.interactive.attach({
  sessionId: process.env.SESSION_ID,
  lastEventId: process.env.LAST_EVENT_ID,
});

const events = [];
for (let seen = -1; seen < events.length; ) {
  seen = events.length;
  for await (const event of session.events()) {
    events.push(event);
    break;
  }
}
const { status } = await session.status();
const health = await client.health();
const refused = await client.interactive.start({ prompt: ' ', repository: 'owner/repo' }).catch(codeOf);
const ended = await client.interactive.start({
  prompt: 'end at once',
  sessionId: `für später 日本 ${process.env.SESSION_ID}`,
});
await ended.end();
const unknown = await ended.status().catch(codeOf);
console.log(JSON.stringify({ events, status, healthVersion: health.version, refused, unknown }));
