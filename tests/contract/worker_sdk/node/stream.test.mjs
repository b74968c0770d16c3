/** Sessions with a server that breaks their connections: no event is lost, and none comes twice. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { ClaudeCodeWorker, WorkerError } from '@quarterdeck/worker-sdk';

const ADDRESS = process.env.WORKER_ADDRESS;
const expected = await (await fetch(`${ADDRESS}/expected`)).json();
const seen = async (id) => (await fetch(`${ADDRESS}/seen/${id}`)).json();
const to = (wish, options) => new ClaudeCodeWorker({ baseUrl: `${ADDRESS}/${wish}`, ...options });
const started = (wish, more, options) =>
  to(wish, options).interactive.start({ prompt: 'Refactor this function', repository: 'owner/repo', ...more });

async function all(items) {
  const taken = [];
  for await (const item of items) taken.push(item);
  return taken;
}

const toBytes = (text) => new TextEncoder().encode(text);

/** An answer whose body breaks behind that many bytes. */
function cut(bytes, size = bytes.length) {
  const body = new ReadableStream({
    pull(controller) {
      controller.enqueue(bytes.subarray(0, size));
      controller.error(new TypeError('terminated'));
    },
  }, { highWaterMark: 0 });
  return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
}

const eachTenth = (work) =>
  Promise.all(Array.from({ length: Math.ceil(expected.size / 10) }, (_, tenth) => work(tenth * 10)));

describe('a session', { concurrency: true }, () => {
  test('a connection that breaks at any byte, whatever ends its lines', async () => {
    const broken = Array.from({ length: expected.size }, async (_, size) => {
      const recorded = expected.recorded[size % expected.recorded.length];
      const fetch = async (_url, { method, headers }) =>
        method === 'POST' ? cut(toBytes(recorded[0]), size) : cut(toBytes(recorded[headers['Last-Event-ID'] ?? 0]));
      const worker = new ClaudeCodeWorker({ baseUrl: ADDRESS, fetch });
      const session = await worker.interactive.start({ prompt: 'p' });
      assert.deepEqual(await all(session.events()), expected.events, `cut at ${size}`);
    });
    await Promise.all(broken);
  });

  test('an id alone moves the place, once its blank line is there', async () => {
    const bodies = ['retry: 1\nid: 5\n\nid: 6\n', 'id: 7\n\n: ping\n', ''];
    const asked = [];
    const fetch = async (_url, { headers }) => {
      asked.push(headers['Last-Event-ID']);
      const body = bodies[asked.length - 1];
      return body === undefined ? new Response(null, { status: 204 }) : cut(toBytes(body));
    };
    const worker = new ClaudeCodeWorker({ baseUrl: ADDRESS, fetch });
    assert.deepEqual(await all(worker.interactive.attach({ sessionId: 's' }).events()), []);
    assert.deepEqual(asked, [undefined, '5', '7', '7']);
  });

  test('a server that hangs up', async () => {
    await eachTenth(async (size) => {
      const session = await started(`cut/${size}`);
      assert.deepEqual(await all(session.events()), expected.events, `cut at ${size}`);
    });
  });

  test('a connection that is closed in good order before the session ends', async () => {
    await eachTenth(async (size) => {
      const session = await started(`end/${size}`);
      assert.deepEqual(await all(session.events()), expected.events, `end at ${size}`);
    });
  });

  test('a server that brings one event with each connection', async () => {
    const session = await started('each/0', {}, { tries: 2 });
    assert.deepEqual(await all(session.events()), expected.events);
    const attached = (await seen(session.sessionId)).attached;
    assert.deepEqual(attached, expected.events.slice(0, -1).map((event) => event.id));
  });

  test('the stream is what the model writes', async () => {
    const session = await started('whole/0');
    const chunks = await all(session.stream());
    assert.deepEqual(chunks.map((chunk) => chunk.content), expected.contents);
    assert.deepEqual(await all(session.stream()), []);
  });

  test('a stream that ends with an error event throws it; events() tells it', async () => {
    const failed = { name: 'WorkerError', code: 'SESSION_ERROR', message: 'The model is gone' };
    await assert.rejects(all((await started('fail/0')).stream()), failed);
    const events = await all((await started('fail/0')).events());
    assert.equal(events.at(-1).event, 'error');
  });

  test('a connection that breaks again and again is given up', async () => {
    let connections = 0;
    const fetch = async () => {
      connections += 1;
      throw new TypeError('no network');
    };
    const worker = new ClaudeCodeWorker({ baseUrl: ADDRESS, tries: 3, fetch });
    const error = await all(worker.interactive.attach({ sessionId: 's' }).events()).catch((caught) => caught);
    assert.ok(error instanceof WorkerError);
    assert.deepEqual([error.code, connections], ['UNAVAILABLE', 3]);
    assert.match(error.message, /no network/);
  });

  test('a server that says "not now" is asked again, up to a number of times', async () => {
    const session = await started('busy/2');
    assert.deepEqual(await all(session.events()), expected.events);
    const busy = await started('busy/1000', {}, { tries: 3 });
    await assert.rejects(all(busy.events()), { code: 'INTERNAL_ERROR', status: 503, retryAfter: 0 });
    assert.equal((await seen(busy.sessionId)).attached.length, 2);
  });

  test('a start whose answer was lost is found again, and one that did not arrive is sent again', async () => {
    for (const wish of ['lost', 'unarrived']) {
      const session = await started(`${wish}/0`);
      assert.deepEqual(await all(session.events()), expected.events);
      assert.equal((await seen(session.sessionId)).posts, 1);
    }
  });

  test('a silent connection is made anew, whether or not fetch looks at its signal', async () => {
    let connections = 0;
    const fetch = async () => {
      connections += 1;
      return new Response(new ReadableStream(), { headers: { 'Content-Type': 'text/event-stream' } });
    };
    const worker = new ClaudeCodeWorker({ baseUrl: ADDRESS, timeoutMs: 20, tries: 2, fetch });
    const session = worker.interactive.attach({ sessionId: 's' });
    await assert.rejects(all(session.events()), { code: 'UNAVAILABLE', message: /20 ms/ });
    assert.equal(connections, 2);
  });

  test('who attaches behind the last event has nothing to read', async () => {
    const fetch = async () => new Response(null, { status: 204 });
    const worker = new ClaudeCodeWorker({ baseUrl: ADDRESS, fetch });
    const session = worker.interactive.attach({ sessionId: 's', lastEventId: '8' });
    assert.deepEqual(await all(session.events()), []);
  });

  test('a loop that was left goes on behind the last event it had', async () => {
    const session = await started('whole/0');
    const first = [];
    for await (const event of session.events()) {
      first.push(event);
      if (first.length === 3) break;
    }
    assert.equal(session.lastEventId, '3');
    assert.deepEqual([...first, ...(await all(session.events()))], expected.events);
  });

  test('another client goes on where one has stopped', async () => {
    const { sessionId } = await started('whole/0');
    const events = to('whole/0').interactive.attach({ sessionId, lastEventId: '5' }).events();
    assert.deepEqual(await all(events), expected.events.slice(5));
  });

  test('two loops at once are refused', async () => {
    const session = await started('whole/0');
    const reading = session.events();
    await reading.next();
    await assert.rejects(session.events().next(), { code: 'ALREADY_READING' });
    await reading.return();
    assert.equal((await all(session.events())).length, expected.events.length - 1);
  });

  test('an AbortSignal ends the reading with its reason, and closes the connection', async () => {
    const aborting = new AbortController();
    const session = await started('silent/400', { signal: aborting.signal });
    const reason = new Error('enough');
    const reading = assert.rejects(all(session.events()), reason);
    aborting.abort(reason);
    await reading;
    await assert.rejects(session.events().next(), reason);
    await assert.rejects(started('whole/0', { signal: aborting.signal }), reason);
    while (!(await seen(session.sessionId)).isGone) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  test('an AbortSignal ends a pause between two connections', async () => {
    const aborting = new AbortController();
    const fetch = async () => {
      queueMicrotask(() => setTimeout(() => aborting.abort(), 1));
      throw new TypeError('no network');
    };
    const worker = new ClaudeCodeWorker({ baseUrl: ADDRESS, tries: 1000, fetch });
    const session = worker.interactive.attach({ sessionId: 's', signal: aborting.signal });
    await assert.rejects(all(session.events()), { name: 'AbortError' });
  });

  test('end() stops the work, and the loop that reads it', async () => {
    const session = await started('silent/900');
    const taken = [];
    for await (const event of session.events()) {
      taken.push(event);
      if (taken.length === 2) await session.end();
    }
    assert.equal(taken.length, 2);
    await assert.rejects(session.status(), { code: 'NOT_FOUND', status: 404 });
  });

  test('close() lets go of a stream that nobody reads', async () => {
    const session = await started('silent/0');
    session.close();
    assert.deepEqual(await all(session.events()), []);
    while (!(await seen(session.sessionId)).isGone) await new Promise((resolve) => setTimeout(resolve, 10));
  });
});
