/** The client: one Worker API, its health, and its interactive sessions. */
import type { Health, StartOptions } from './answers.js';
import { Requests, type Connecting } from './requests.js';
import { Session } from './session.js';
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
export declare class ClaudeCodeWorker {
    #private;
    readonly interactive: Interactive;
    /** Throws WorkerError where an option cannot be used. */
    constructor(options: WorkerOptions);
    /** Also where the server is unhealthy: look at `status`. */
    health({ signal }?: {
        readonly signal?: AbortSignal | undefined;
    }): Promise<Health>;
}
export declare class Interactive {
    #private;
    constructor(requests: Requests, tries: number);
    /** Start a session: the promise is fulfilled once the server has taken it. */
    start({ signal, repository, sessionId, ...rest }: StartOptions): Promise<Session>;
    /** A session that was started before, by whomever. Nothing is asked before it is read. */
    attach(options: AttachOptions): Session;
}
