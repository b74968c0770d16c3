/** How often, and after which pauses, a connection that broke is made again. */
export declare class Backoff {
    #private;
    /** The first pause, where the server has told one. */
    firstMs: number;
    /** `tries`: how many connections in a row may bring nothing new. */
    constructor(tries: number);
    /** Something new came. */
    forget(): void;
    /** Return when it is time for the next connection. Throws `error` where there is none, or the signal's reason. */
    pause(error: unknown, connectedMs: number, signal: AbortSignal): Promise<void>;
}
