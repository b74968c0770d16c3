/** The one error that this library throws, besides the reason of the caller's own `AbortSignal`. */
/** What the Worker API answers (the first six), and what happens on the way to it. */
export type WorkerErrorCode = 'VALIDATION_ERROR' | 'RATE_LIMIT_EXCEEDED' | 'QUOTA_EXCEEDED' | 'UNAUTHORIZED' | 'NOT_FOUND' | 'INTERNAL_ERROR'
/** Nothing answered, or the connection broke more often than it is made again. */
 | 'UNAVAILABLE'
/** What answered does not speak the Worker API. */
 | 'PROTOCOL_ERROR'
/** The session ended with an `error` event; the message is the event's. */
 | 'SESSION_ERROR'
/** The session is being read by another loop. */
 | 'ALREADY_READING'
/** An argument cannot be used. */
 | 'INVALID_ARGUMENT';
export interface WorkerErrorDetails {
    /** The HTTP status, where there was an answer. */
    readonly status?: number | undefined;
    /** Seconds to wait before asking again, where the server said so. */
    readonly retryAfter?: number | undefined;
    readonly cause?: unknown;
}
/** Tell by `code` what went wrong: codes of later servers may come, too. */
export declare class WorkerError extends Error {
    readonly code: WorkerErrorCode | (string & {});
    readonly status: number | undefined;
    readonly retryAfter: number | undefined;
    constructor(code: WorkerError['code'], message: string, details?: WorkerErrorDetails);
}
