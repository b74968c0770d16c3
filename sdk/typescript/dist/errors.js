/** The one error that this library throws, besides the reason of the caller's own `AbortSignal`. */
/** Tell by `code` what went wrong: codes of later servers may come, too. */
export class WorkerError extends Error {
    code;
    status;
    retryAfter;
    constructor(code, message, details = {}) {
        super(message, details.cause === undefined ? undefined : { cause: details.cause });
        this.name = 'WorkerError';
        this.code = code;
        this.status = details.status;
        this.retryAfter = details.retryAfter;
    }
}
