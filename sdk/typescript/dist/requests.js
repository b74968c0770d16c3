/** HTTP with one Worker API: its address, the key, deadlines, and answers made into errors. */
import { WorkerError } from './errors.js';
import { Watch } from './watch.js';
const TIMEOUT_MS = 60_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const MAX_MESSAGE_LENGTH = 500;
export class Requests {
    baseUrl;
    timeoutMs;
    #apiKey;
    #fetch;
    constructor({ baseUrl, apiKey, fetch = globalThis.fetch, timeoutMs = TIMEOUT_MS }) {
        if (!(timeoutMs > 0 && timeoutMs <= LONGEST_TIMER_MS)) {
            throw new WorkerError('INVALID_ARGUMENT', `timeoutMs must be milliseconds from 1 to ${LONGEST_TIMER_MS}.`);
        }
        this.baseUrl = checkedAddress(baseUrl);
        this.timeoutMs = timeoutMs;
        this.#apiKey = apiKey || undefined;
        // Browsers' own fetch must not be called as a method of something else.
        this.#fetch = (input, init) => fetch(input, init);
    }
    /** The answer, once its head is there; its body is read under `watch`. Throws WorkerError for any but a 2xx. */
    async open(method, path, watch, asking = {}) {
        const response = await this.#send(method, path, watch, asking);
        if (!response.ok)
            throw await errorOf(response, watch);
        return response;
    }
    /** The JSON of an answer with a 2xx, or one of the statuses in `also`. */
    async json(method, path, asking = {}, also = []) {
        const watch = new Watch(this.timeoutMs, asking.signal);
        try {
            const response = await this.#send(method, path, watch, asking);
            if (!response.ok && !also.includes(response.status))
                throw await errorOf(response, watch);
            return parsed(await watch.over(response.text()), response.status);
        }
        finally {
            watch.end();
        }
    }
    async #send(method, path, watch, { body, headers }) {
        const init = {
            method,
            headers: this.#headers(body, headers),
            body: body === undefined ? null : JSON.stringify(body),
            signal: watch.signal,
            cache: 'no-store',
            credentials: 'omit',
            // A body with keys in it goes to the address that was given, and nowhere else.
            redirect: 'manual',
        };
        const response = await watch.over(this.#fetch(this.baseUrl + path, init));
        if (response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)) {
            throw new WorkerError('PROTOCOL_ERROR', `${this.baseUrl} redirects elsewhere: set baseUrl to that address.`);
        }
        return response;
    }
    #headers(body, more = {}) {
        const headers = { ...more };
        if (body !== undefined)
            headers['Content-Type'] = 'application/json';
        if (this.#apiKey !== undefined)
            headers['Authorization'] = `Bearer ${this.#apiKey}`;
        return headers;
    }
}
function checkedAddress(address) {
    let url;
    try {
        url = new URL(address);
    }
    catch (cause) {
        throw new WorkerError('INVALID_ARGUMENT', 'baseUrl must be a URL such as http://127.0.0.1:8787.', { cause });
    }
    if (!/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
        throw new WorkerError('INVALID_ARGUMENT', 'baseUrl must be an http or https URL without user, query and fragment.');
    }
    return url.href.replace(/\/+$/, '');
}
function parsed(text, status) {
    try {
        return JSON.parse(text);
    }
    catch (cause) {
        throw new WorkerError('PROTOCOL_ERROR', 'The answer is no JSON: is it a Worker API?', { status, cause });
    }
}
async function errorOf(response, watch) {
    const text = await watch.over(response.text());
    const details = { status: response.status, retryAfter: retryAfter(response) };
    let told;
    try {
        told = JSON.parse(text);
    }
    catch {
        told = null; // a proxy's page, say
    }
    if (typeof told?.error === 'string' && typeof told.message === 'string') {
        return new WorkerError(told.error, told.message, details);
    }
    const code = response.status >= 500 ? 'UNAVAILABLE' : 'PROTOCOL_ERROR';
    const words = text.trim().slice(0, MAX_MESSAGE_LENGTH) || response.statusText;
    return new WorkerError(code, `HTTP ${response.status}: ${words}`, details);
}
/** `Retry-After` in seconds, as RFC 9110 (10.2.3) has it: a number or a date. */
function retryAfter(response) {
    const value = response.headers.get('Retry-After');
    if (value === null)
        return undefined;
    const seconds = /^[0-9]+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
    return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}
