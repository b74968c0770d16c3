/** The client: one Worker API, its health, and its interactive sessions. */

import type { Health, Repository, StartOptions } from './answers.js';
import { WorkerError } from './errors.js';
import { Requests, type Connecting } from './requests.js';
import { Session } from './session.js';

const TRIES = 8;
const UNHEALTHY = 503;

export interface WorkerOptions extends Connecting {
  /** Such as `https://worker.example.com`, or with a path. */
  readonly baseUrl: string;
  /** Sent as a bearer token, where the server wants one. */
  readonly apiKey?: string | undefined;
  /** In place of the platform's. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** The longest wait for an answer, and between two pieces of a stream (the server sends comments); 60,000. */
  readonly timeoutMs?: number | undefined;
  /** How many connections of a session in a row may bring nothing new before its stream is given up; 8. */
  readonly tries?: number | undefined;
}

export interface AttachOptions {
  readonly sessionId: string;
  /** The events behind this one; all of them where it is not given. */
  readonly lastEventId?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class ClaudeCodeWorker {
  readonly interactive: Interactive;
  readonly #requests: Requests;

  /** Throws WorkerError where an option cannot be used. */
  constructor(options: WorkerOptions) {
    const { tries = TRIES } = options;
    if (!Number.isInteger(tries) || tries < 1) {
      throw new WorkerError('INVALID_ARGUMENT', 'tries must be a whole number from 1 on.');
    }
    this.#requests = new Requests(options);
    this.interactive = new Interactive(this.#requests, tries);
  }

  /** Also where the server is unhealthy: look at `status`. */
  async health({ signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<Health> {
    return this.#requests.json('GET', '/health', { signal }, [UNHEALTHY]);
  }
}

export class Interactive {
  readonly #requests: Requests;
  readonly #tries: number;

  constructor(requests: Requests, tries: number) {
    this.#requests = requests;
    this.#tries = tries;
  }

  /** Start a session: the promise is fulfilled once the server has taken it. */
  async start({ signal, repository, sessionId, ...rest }: StartOptions): Promise<Session> {
    const id = sessionId ?? (await randomId());
    const body = { ...rest, sessionId: id, repository: repositoryOf(repository) };
    return Session.start(this.#requests, { sessionId: id, tries: this.#tries, signal }, body);
  }

  /** A session that was started before, by whomever. Nothing is asked before it is read. */
  attach(options: AttachOptions): Session {
    return new Session(this.#requests, { ...options, tries: this.#tries });
  }
}

function repositoryOf(repository: string | Repository | undefined): Repository | undefined {
  if (typeof repository !== 'string') return repository;
  return /^\/|:/.test(repository) ? { url: repository } : { name: repository };
}

/** The client chooses it, so that it can look for a session whose start was not answered. */
async function randomId(): Promise<string> {
  const bytes = (globalThis.crypto ?? (await cryptoOfNode18())).getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Bundlers for browsers must not see the module's name. */
async function cryptoOfNode18(): Promise<Crypto> {
  const name = 'node:crypto';
  return ((await import(name)) as { readonly webcrypto: Crypto }).webcrypto;
}
