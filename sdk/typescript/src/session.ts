/** One session: its events over as many connections as it takes, its status and its end. */

import type { SessionStatus } from './answers.js';
import { Backoff } from './backoff.js';
import { Connection } from './connection.js';
import { WorkerError } from './errors.js';
import { decodeEvent, isLast, type ClaudeDeltaEvent, type SessionEvent } from './events.js';
import type { Asking, Requests } from './requests.js';
import { FrameParser } from './sse.js';
import { Watch } from './watch.js';

const START = '/interactive/start';
const START_TRIES = 3;
const NOT_FOUND = 404;
/** Headers are read as Latin-1: any other id comes out of them as another one. */
const LEGIBLE = /^[\x20-\x7e]+$/;

export interface Reading {
  readonly sessionId: string;
  /** The id of the last event that was seen. */
  readonly lastEventId?: string | undefined;
  /** How many connections in a row may bring nothing new. */
  readonly tries: number;
  readonly signal?: AbortSignal | undefined;
}

/** Read it once, by `stream()` or `events()`; a loop that was left goes on behind the last event it had. */
export class Session {
  #sessionId: string;
  #lastEventId: string;
  #connection: Connection | undefined;
  #isReading = false;
  #isOver = false;
  readonly #requests: Requests;
  readonly #tries: number;
  readonly #leaving = new AbortController();

  constructor(requests: Requests, { sessionId, lastEventId = '', tries, signal }: Reading) {
    this.#requests = requests;
    this.#sessionId = sessionId;
    this.#lastEventId = lastEventId;
    this.#tries = tries;
    if (signal?.aborted) this.#leaving.abort(signal.reason);
    signal?.addEventListener('abort', () => this.#leaving.abort(signal.reason), { signal: this.#leaving.signal });
  }

  /** Ask the server for a new one. */
  static async start(requests: Requests, reading: Reading, body: unknown): Promise<Session> {
    const session = new Session(requests, reading);
    await session.#begin(body);
    return session;
  }

  get sessionId(): string {
    return this.#sessionId;
  }

  /** Of the last event that was read: with it, `interactive.attach` goes on behind that event. */
  get lastEventId(): string {
    return this.#lastEventId;
  }

  /** What the model writes, piece by piece, to the session's end. Throws WorkerError where it ends with an error. */
  async *stream(): AsyncGenerator<ClaudeDeltaEvent, void, undefined> {
    for await (const event of this.events()) {
      if (event.event === 'claude_delta') yield event;
      if (event.event === 'error') throw new WorkerError('SESSION_ERROR', event.message);
    }
  }

  /** Every event once and in order; the last one is `complete` or `error`. */
  async *events(): AsyncGenerator<SessionEvent, void, undefined> {
    if (this.#isReading) throw new WorkerError('ALREADY_READING', 'Another loop reads this session: leave it first.');
    this.#isReading = true;
    const backoff = new Backoff(this.#tries);
    try {
      while (!this.#isOver) yield* this.#read(backoff);
    } finally {
      this.#isReading = false;
      if (this.#isOver) this.close();
    }
  }

  async status(): Promise<SessionStatus> {
    return this.#requests.json('GET', `/interactive/status?sessionId=${encodeURIComponent(this.#sessionId)}`);
  }

  /** Stop the session's work; whoever reads it comes to the end. */
  async end(): Promise<void> {
    await this.#requests.json('DELETE', `/interactive/${encodeURIComponent(this.#sessionId)}`);
    this.close();
  }

  /** Let go of the stream: its work goes on, and nothing more is read here. */
  close(): void {
    this.#isOver = true;
    this.#leaving.abort();
    this.#connection?.end();
  }

  /** An answer is final. Where none came, it is looked whether the session is there before it is asked for again. */
  async #begin(body: unknown): Promise<void> {
    const backoff = new Backoff(START_TRIES);
    do {
      try {
        this.#connection = await this.#connect('POST', START, { body });
        return;
      } catch (error) {
        if (statusOf(error) !== undefined) throw error;
        await backoff.pause(error, 0, this.#leaving.signal);
      }
    } while (!(await this.#isThere(backoff)));
  }

  async #isThere(backoff: Backoff): Promise<boolean> {
    for (;;) {
      try {
        this.#connection = await this.#attach();
        return true;
      } catch (error) {
        if (statusOf(error) === NOT_FOUND) return false;
        await backoff.pause(error, 0, this.#leaving.signal);
      }
    }
  }

  /** One connection's events. A break is no error until there were too many. */
  async *#read(backoff: Backoff): AsyncGenerator<SessionEvent, void, undefined> {
    const parser = new FrameParser(this.#lastEventId);
    let connection: Connection | undefined;
    try {
      connection = this.#connection ?? (await this.#attach());
      this.#connection = undefined;
      this.#isOver ||= connection.isOver;
      for await (const frame of connection.frames(parser)) {
        this.#lastEventId = frame.id;
        const event = decodeEvent(frame);
        if (event === undefined) continue;
        backoff.forget();
        this.#isOver ||= isLast(event);
        yield event;
        if (this.#isOver) return;
      }
      if (!this.#isOver) throw new WorkerError('UNAVAILABLE', 'The stream ended before the session did.');
    } catch (error) {
      if (this.#isOver) return;
      this.#lastEventId = parser.lastId;
      backoff.firstMs = parser.retryMs ?? backoff.firstMs;
      await this.#wait(backoff, error, connection);
    } finally {
      connection?.end();
    }
  }

  async #wait(backoff: Backoff, error: unknown, connection: Connection | undefined): Promise<void> {
    const connectedMs = connection === undefined ? 0 : Date.now() - connection.openedAt;
    try {
      await backoff.pause(error, connectedMs, this.#leaving.signal);
    } catch (final) {
      if (!this.#isOver) throw final;
    }
  }

  #attach(): Promise<Connection> {
    const headers = this.#lastEventId === '' ? {} : { 'Last-Event-ID': this.#lastEventId };
    return this.#connect('GET', `${START}?sessionId=${encodeURIComponent(this.#sessionId)}`, { headers });
  }

  async #connect(method: string, path: string, { body, headers = {} }: Asking): Promise<Connection> {
    const watch = new Watch(this.#requests.timeoutMs, this.#leaving.signal);
    const asking = { body, headers: { ...headers, Accept: 'text/event-stream' } };
    try {
      const response = await this.#requests.open(method, path, watch, asking);
      const connection = new Connection(response, watch);
      const told = response.headers.get('X-Session-Id') ?? '';
      if (LEGIBLE.test(told)) this.#sessionId = told;
      return connection;
    } catch (error) {
      watch.end();
      throw error;
    }
  }
}

function statusOf(error: unknown): number | undefined {
  return error instanceof WorkerError ? error.status : undefined;
}
