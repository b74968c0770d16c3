/** One exchange under a deadline that starts anew with each piece that comes, and under the caller's own signal. */
import { WorkerError } from './errors.js';
export class Watch {
    #controller = new AbortController();
    #timeoutMs;
    #outer;
    constructor(timeoutMs, outer) {
        this.#timeoutMs = timeoutMs;
        this.#outer = outer;
        outer?.addEventListener('abort', this.#pass);
        if (outer?.aborted)
            this.#pass();
    }
    /** For `fetch`. */
    get signal() {
        return this.#controller.signal;
    }
    /** What the promise gives. Throws the caller's own reason where that signal came, else a WorkerError. */
    async over(promise) {
        const timer = setTimeout(() => this.#controller.abort(this.#silence()), this.#timeoutMs);
        let stop = () => { };
        const stopped = new Promise((_, reject) => {
            stop = () => reject(this.signal.reason);
        });
        this.signal.addEventListener('abort', stop);
        if (this.signal.aborted)
            stop();
        try {
            // Not every `fetch` that a caller brings along looks at the signal.
            return await Promise.race([promise, stopped]);
        }
        catch (error) {
            throw this.#told(error);
        }
        finally {
            clearTimeout(timer);
            this.signal.removeEventListener('abort', stop);
        }
    }
    /** Close the connection, if it is still open. */
    end() {
        this.#outer?.removeEventListener('abort', this.#pass);
        this.#controller.abort();
    }
    #told(error) {
        if (this.#outer?.aborted)
            return this.#outer.reason;
        const cause = this.signal.aborted ? this.signal.reason : error;
        if (cause instanceof WorkerError)
            return cause;
        return new WorkerError('UNAVAILABLE', `The connection broke: ${wordsOf(cause)}`, { cause });
    }
    #pass = () => this.#controller.abort(this.#outer?.reason);
    #silence() {
        return new WorkerError('UNAVAILABLE', `Nothing came for ${this.#timeoutMs} ms.`);
    }
}
function wordsOf(error) {
    if (!(error instanceof Error))
        return String(error);
    // Node says only "fetch failed", and the reason one step below.
    return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}
