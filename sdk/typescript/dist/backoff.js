/** How often, and after which pauses, a connection that broke is made again. */
import { WorkerError } from './errors.js';
/** A connection that lasted longer than the server's pause between two comments was a good one. */
const HEALTHY_MS = 20_000;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
/** A server that wants more than that is not waited for: its word is handed on. */
const LONGEST_ASKED_MS = 60_000;
const PASSING_STATUSES = [429, 502, 503, 504];
export class Backoff {
    /** The first pause, where the server has told one. */
    firstMs = FIRST_PAUSE_MS;
    #tries;
    #failures = 0;
    /** `tries`: how many connections in a row may bring nothing new. */
    constructor(tries) {
        this.#tries = tries;
    }
    /** Something new came. */
    forget() {
        this.#failures = 0;
    }
    /** Return when it is time for the next connection. Throws `error` where there is none, or the signal's reason. */
    async pause(error, connectedMs, signal) {
        if (!isPassing(error))
            throw error;
        if (connectedMs > HEALTHY_MS)
            this.forget();
        const asked = (error.retryAfter ?? 0) * 1000;
        this.#failures += 1;
        if (this.#failures >= this.#tries || asked > LONGEST_ASKED_MS)
            throw error;
        const growing = Math.min(this.firstMs * 2 ** (this.#failures - 1), LONGEST_PAUSE_MS);
        await sleep(Math.max(asked, growing * (0.5 + Math.random() / 2)), signal);
    }
}
function isPassing(error) {
    if (!(error instanceof WorkerError))
        return false;
    return error.status === undefined ? error.code === 'UNAVAILABLE' : PASSING_STATUSES.includes(error.status);
}
function sleep(ms, signal) {
    return new Promise((resolve, reject) => {
        const stop = () => {
            clearTimeout(timer);
            reject(signal.reason);
        };
        const timer = setTimeout(() => {
            signal.removeEventListener('abort', stop);
            resolve();
        }, ms);
        signal.addEventListener('abort', stop, { once: true });
        if (signal.aborted)
            stop();
    });
}
