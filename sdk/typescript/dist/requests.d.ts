/** HTTP with one Worker API: its address, the key, deadlines, and answers made into errors. */
import { Watch } from './watch.js';
export interface Connecting {
    readonly baseUrl: string;
    readonly apiKey?: string | undefined;
    readonly fetch?: typeof globalThis.fetch | undefined;
    readonly timeoutMs?: number | undefined;
}
export interface Asking {
    readonly body?: unknown;
    readonly headers?: Readonly<Record<string, string>>;
    readonly signal?: AbortSignal | undefined;
}
export declare class Requests {
    #private;
    readonly baseUrl: string;
    readonly timeoutMs: number;
    constructor({ baseUrl, apiKey, fetch, timeoutMs }: Connecting);
    /** The answer, once its head is there; its body is read under `watch`. Throws WorkerError for any but a 2xx. */
    open(method: string, path: string, watch: Watch, asking?: Asking): Promise<Response>;
    /** The JSON of an answer with a 2xx, or one of the statuses in `also`. */
    json<Body>(method: string, path: string, asking?: Asking, also?: readonly number[]): Promise<Body>;
}
