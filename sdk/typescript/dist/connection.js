/** One open stream: the pieces of its body as frames, until it ends or breaks. */
import { WorkerError } from './errors.js';
const NO_CONTENT = 204;
export class Connection {
    openedAt = Date.now();
    /** Whether the server said that there is nothing more to tell. */
    isOver;
    #body;
    #watch;
    /** Throws WorkerError where the answer is no stream of events. */
    constructor(response, watch) {
        const type = response.headers.get('Content-Type') ?? 'none';
        this.isOver = response.status === NO_CONTENT;
        if (!this.isOver && !type.startsWith('text/event-stream')) {
            throw new WorkerError('PROTOCOL_ERROR', `The answer is no event stream (its type: ${type}). Is it a Worker API?`);
        }
        this.#body = response.body;
        this.#watch = watch;
    }
    /** Throws WorkerError `UNAVAILABLE` where it breaks; returns where the server closes it. */
    async *frames(parser) {
        if (this.#body === null)
            return;
        const reader = this.#body.getReader();
        for (;;) {
            const { done, value } = await this.#watch.over(reader.read());
            if (done)
                return;
            yield* parser.feed(value);
        }
    }
    /** Also what is being read breaks off. */
    end() {
        this.#watch.end();
    }
}
