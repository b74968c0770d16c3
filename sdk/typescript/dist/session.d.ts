/** One session: its events over as many connections as it takes, its status and its end. */
import type { SessionStatus } from './answers.js';
import { type ClaudeDeltaEvent, type SessionEvent } from './events.js';
import type { Requests } from './requests.js';
export interface Reading {
    readonly sessionId: string;
    /** The id of the last event that was seen. */
    readonly lastEventId?: string | undefined;
    /** How many connections in a row may bring nothing new. */
    readonly tries: number;
    readonly signal?: AbortSignal | undefined;
}
/** Read it once, by `stream()` or `events()`; a loop that was left goes on behind the last event it had. */
export declare class Session {
    #private;
    constructor(requests: Requests, { sessionId, lastEventId, tries, signal }: Reading);
    /** Ask the server for a new one. */
    static start(requests: Requests, reading: Reading, body: unknown): Promise<Session>;
    get sessionId(): string;
    /** Of the last event that was read: with it, `interactive.attach` goes on behind that event. */
    get lastEventId(): string;
    /** What the model writes, piece by piece, to the session's end. Throws WorkerError where it ends with an error. */
    stream(): AsyncGenerator<ClaudeDeltaEvent, void, undefined>;
    /** Every event once and in order; the last one is `complete` or `error`. */
    events(): AsyncGenerator<SessionEvent, void, undefined>;
    status(): Promise<SessionStatus>;
    /** Stop the session's work; whoever reads it comes to the end. */
    end(): Promise<void>;
    /** Let go of the stream: its work goes on, and nothing more is read here. */
    close(): void;
}
