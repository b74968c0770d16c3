/** Server-sent events out of bytes, as the HTML standard (9.2.6) reads them. It does no I/O. */
/** One event. `id`: of the last event that had one, this one included; empty where none had. */
export interface Frame {
    readonly id: string;
    readonly event: string;
    readonly data: string;
}
/** How long one event may be, in UTF-16 code units, before the stream is given up. */
export declare const MAX_FRAME_LENGTH: number;
/** Reads one connection, which may be cut into pieces anywhere. */
export declare class FrameParser {
    #private;
    /** What the server asked to wait before the next connection, if it did. */
    retryMs: number | undefined;
    /** The last id that was told, be it without an event: where to go on behind once all events here were taken. */
    lastId: string;
    /** `lastId`: what events without an id of their own have, from the connection before. */
    constructor(lastId?: string);
    /** The events that these bytes complete. What never gets its blank line is never told. */
    feed(bytes: Uint8Array): Frame[];
}
