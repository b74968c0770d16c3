/** One exchange under a deadline that starts anew with each piece that comes, and under the caller's own signal. */
export declare class Watch {
    #private;
    constructor(timeoutMs: number, outer?: AbortSignal);
    /** For `fetch`. */
    get signal(): AbortSignal;
    /** What the promise gives. Throws the caller's own reason where that signal came, else a WorkerError. */
    over<Value>(promise: Promise<Value>): Promise<Value>;
    /** Close the connection, if it is still open. */
    end(): void;
}
