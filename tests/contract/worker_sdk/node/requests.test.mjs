/** What is sent, and how a refusal and a wrong answer come back. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';

import { ClaudeCodeWorker, WorkerError } from '@quarterdeck/worker-sdk';

const ADDRESS = process.env.WORKER_ADDRESS;
const KEY = 'key-of-a-client';
const to = (wish, options) => new ClaudeCodeWorker({ baseUrl: `${ADDRESS}/${wish}`, ...options });
const start = { prompt: 'Explain', repository: 'owner/repo' };

/** A client whose answers are made here, and what it asked. */
function answered(...answers) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push({ url, ...init });
    return answers[Math.min(asked.length, answers.length) - 1].clone();
  };
  return { worker: new ClaudeCodeWorker({ baseUrl: 'http://worker.test/api/', apiKey: KEY, fetch }), asked };
}

const stream = (text) => new Response(text, { headers: { 'Content-Type': 'text/event-stream; charset=utf-8' } });

test('every field of a start is sent, and the key as a bearer token', async () => {
  const { worker, asked } = answered(stream(''));
  const given = {
    prompt: 'p',
    repository: { url: 'https://github.com/owner/repo', name: 'owner/repo', branch: 'main' },
    sessionId: 'my session',
    anthropicApiKey: 'sk-ant-1',
    anthropicBaseUrl: 'https://api.anthropic.com',
    githubToken: 'ghp_1',
    options: { maxTurns: 3, permissionMode: 'acceptEdits', createPR: true },
  };
  const session = await worker.interactive.start({ ...given, signal: new AbortController().signal });
  assert.equal(session.sessionId, 'my session');
  assert.equal(asked[0].url, 'http://worker.test/api/interactive/start');
  assert.deepEqual(JSON.parse(asked[0].body), given);
  assert.equal(asked[0].headers.Authorization, `Bearer ${KEY}`);
  assert.equal(asked[0].redirect, 'manual');
});

test('a repository is a name, a URL or nothing; a session has an id of its own', async () => {
  const ids = new Set();
  const name = 'o/r';
  const url = 'https://h/o/r';
  for (const [repository, sent] of [
    [name, { name }],
    ...[url, 'git@host:owner/repo', '/srv/owner/repo'].map((each) => [each, { url: each }]),
    [undefined, undefined],
  ]) {
    const { worker, asked } = answered(stream(''));
    const session = await worker.interactive.start({ prompt: 'p', repository });
    assert.deepEqual(JSON.parse(asked[0].body).repository, sent);
    ids.add(session.sessionId);
  }
  assert.equal(ids.size, 5);
  for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/);
});

test('an id is random also where there is no global crypto, as in Node 18', async () => {
  const { crypto } = globalThis;
  Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true });
  try {
    const session = await answered(stream('')).worker.interactive.start({ prompt: 'p' });
    assert.match(session.sessionId, /^(?!0{32})[0-9a-f]{32}$/);
  } finally {
    Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
  }
});

test('a key that is not given is not sent', async () => {
  const session = await to('whole/0', { apiKey: undefined }).interactive.start(start);
  const seen = await (await fetch(`${ADDRESS}/seen/${session.sessionId}`)).json();
  assert.deepEqual(Object.keys(seen.body).sort(), ['prompt', 'repository', 'sessionId']);
  session.close();
});

test('status and health', async () => {
  const session = await to('whole/0').interactive.start(start);
  const status = await session.status();
  assert.deepEqual([status.sessionId, status.status, status.currentTurn], [session.sessionId, 'processing', 2]);
  assert.equal((await to('whole/0').health()).status, 'healthy');
  assert.equal((await to('sick/0').health()).status, 'unhealthy');
  session.close();
});

test('a refusal has the code, words, status and pause of the server, at once', async () => {
  for (const status of [400, 429, 500, 503]) {
    const error = await to(`refuse/${status}`).interactive.start(start).catch((caught) => caught);
    assert.ok(error instanceof WorkerError);
    assert.deepEqual(
      [error.code, error.message, error.status, error.retryAfter],
      ['QUOTA_EXCEEDED', 'POST is refused', status, 17],
    );
  }
});

test('a date in Retry-After', async () => {
  const later = new Date(Date.now() + 3_600_000).toUTCString();
  const { worker } = answered(new Response('{}', { status: 429, headers: { 'Retry-After': later } }));
  const error = await worker.interactive.start(start).catch((caught) => caught);
  assert.ok(error.retryAfter > 3000 && error.retryAfter <= 3600);
});

test('what is no Worker API is said so', async () => {
  const page = new Response('<html>', { headers: { 'Content-Type': 'text/html' } });
  await assert.rejects(answered(page).worker.interactive.start(start), { code: 'PROTOCOL_ERROR' });
  await assert.rejects(answered(page).worker.health(), { code: 'PROTOCOL_ERROR' });
  const proxy = new Response('Bad Gateway', { status: 502 });
  await assert.rejects(answered(proxy).worker.interactive.start(start), { code: 'UNAVAILABLE', status: 502 });
  for (const [event, data] of [['claude_delta', '{"turn": 1}'], ['status', 'nonsense'], ['status', '1']]) {
    const session = await answered(stream(`event: ${event}\ndata: ${data}\n\n`)).worker.interactive.start(start);
    await assert.rejects(session.events().next(), { code: 'PROTOCOL_ERROR' });
  }
});

test('a redirect is not followed: the body may hold keys', async () => {
  const worker = new ClaudeCodeWorker({ baseUrl: `${ADDRESS}/moved` });
  await assert.rejects(worker.interactive.start(start), { code: 'PROTOCOL_ERROR', message: /redirects/ });
});

test('options that cannot be used are refused, and name themselves', () => {
  for (const baseUrl of ['', 'nonsense', 'ftp://h', 'http://u:p@h', 'http://h/?q', 'http://h/#f']) {
    assert.throws(() => new ClaudeCodeWorker({ baseUrl }), { code: 'INVALID_ARGUMENT', message: /^baseUrl/ });
  }
  const good = { baseUrl: 'http://h' };
  for (const timeoutMs of [0, -1, NaN, Infinity, 2 ** 31]) {
    assert.throws(() => new ClaudeCodeWorker({ ...good, timeoutMs }), { message: /^timeoutMs/ });
  }
  for (const tries of [0, 1.5, NaN]) {
    assert.throws(() => new ClaudeCodeWorker({ ...good, tries }), { message: /^tries/ });
  }
});

test('no printed client shows its key', () => {
  const client = new ClaudeCodeWorker({ baseUrl: 'http://h', apiKey: KEY });
  assert.ok(!inspect(client, { depth: 9, showHidden: true }).includes(KEY));
  assert.ok(!JSON.stringify(client).includes(KEY));
});
