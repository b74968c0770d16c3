/** One open stream: the pieces of its body as frames, until it ends or breaks. */
import type { Frame, FrameParser } from './sse.js';
import type { Watch } from './watch.js';
export declare class Connection {
    #private;
    readonly openedAt: number;
    /** Whether the server said that there is nothing more to tell. */
    readonly isOver: boolean;
    /** Throws WorkerError where the answer is no stream of events. */
    constructor(response: Response, watch: Watch);
    /** Throws WorkerError `UNAVAILABLE` where it breaks; returns where the server closes it. */
    frames(parser: FrameParser): AsyncGenerator<Frame, void, undefined>;
    /** Also what is being read breaks off. */
    end(): void;
}
