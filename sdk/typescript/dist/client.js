/** The client: one Worker API, its health, and its interactive sessions. */
import { WorkerError } from './errors.js';
import { Requests } from './requests.js';
import { Session } from './session.js';
const TRIES = 8;
const UNHEALTHY = 503;
export class ClaudeCodeWorker {
    interactive;
    #requests;
    /** Throws WorkerError where an option cannot be used. */
    constructor(options) {
        const { tries = TRIES } = options;
        if (!Number.isInteger(tries) || tries < 1) {
            throw new WorkerError('INVALID_ARGUMENT', 'tries must be a whole number from 1 on.');
        }
        this.#requests = new Requests(options);
        this.interactive = new Interactive(this.#requests, tries);
    }
    /** Also where the server is unhealthy: look at `status`. */
    async health({ signal } = {}) {
        return this.#requests.json('GET', '/health', { signal }, [UNHEALTHY]);
    }
}
export class Interactive {
    #requests;
    #tries;
    constructor(requests, tries) {
        this.#requests = requests;
        this.#tries = tries;
    }
    /** Start a session: the promise is fulfilled once the server has taken it. */
    async start({ signal, repository, sessionId, ...rest }) {
        const id = sessionId ?? (await randomId());
        const body = { ...rest, sessionId: id, repository: repositoryOf(repository) };
        return Session.start(this.#requests, { sessionId: id, tries: this.#tries, signal }, body);
    }
    /** A session that was started before, by whomever. Nothing is asked before it is read. */
    attach(options) {
        return new Session(this.#requests, { ...options, tries: this.#tries });
    }
}
function repositoryOf(repository) {
    if (typeof repository !== 'string')
        return repository;
    return /^\/|:/.test(repository) ? { url: repository } : { name: repository };
}
/** The client chooses it, so that it can look for a session whose start was not answered. */
async function randomId() {
    const bytes = (globalThis.crypto ?? (await cryptoOfNode18())).getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
/** Bundlers for browsers must not see the module's name. */
async function cryptoOfNode18() {
    const name = 'node:crypto';
    return (await import(name)).webcrypto;
}
