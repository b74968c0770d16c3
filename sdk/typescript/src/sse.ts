/** Server-sent events out of bytes, as the HTML standard (9.2.6) reads them. It does no I/O. */

import { WorkerError } from './errors.js';

/** One event. `id`: of the last event that had one, this one included; empty where none had. */
export interface Frame {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

/** How long one event may be, in UTF-16 code units, before the stream is given up. */
export const MAX_FRAME_LENGTH = 16 * 1024 * 1024;

const LINE_END = /\r\n|\n|\r/g;

/** Reads one connection, which may be cut into pieces anywhere. */
export class FrameParser {
  /** What the server asked to wait before the next connection, if it did. */
  retryMs: number | undefined;

  /** The last id that was told, be it without an event: where to go on behind once all events here were taken. */
  lastId: string;

  /** UTF-8 with a byte order mark taken away; a character cut in two waits for its rest. */
  readonly #decoder = new TextDecoder();
  #line = '';
  #event = '';
  #data: string[] = [];
  #length = 0;
  #id: string;
  #skipLineFeed = false;

  /** `lastId`: what events without an id of their own have, from the connection before. */
  constructor(lastId = '') {
    this.lastId = this.#id = lastId;
  }

  /** The events that these bytes complete. What never gets its blank line is never told. */
  feed(bytes: Uint8Array): Frame[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#skipLineFeed && text !== '') {
      this.#skipLineFeed = false;
      if (text.startsWith('\n')) text = text.slice(1);
    }
    const frames: Frame[] = [];
    let from = 0;
    for (const end of text.matchAll(LINE_END)) {
      const frame = this.#take(this.#line + text.slice(from, end.index));
      if (frame !== undefined) frames.push(frame);
      this.#line = '';
      from = end.index + end[0].length;
    }
    this.#line += text.slice(from);
    // A CR ends its line at once; whether an LF belongs to it is seen in the next piece.
    this.#skipLineFeed ||= text.endsWith('\r');
    this.#bound(this.#line.length);
    return frames;
  }

  #take(line: string): Frame | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    this.#field(name, value);
    return undefined;
  }

  #field(name: string, value: string): void {
    if (name === 'data') {
      this.#length += value.length + 1;
      this.#bound(0);
      this.#data.push(value);
    } else if (name === 'event') {
      this.#event = value;
    } else if (name === 'id') {
      if (!value.includes('\0')) this.#id = value;
    } else if (name === 'retry' && /^[0-9]+$/.test(value)) {
      this.retryMs = Number(value);
    }
  }

  #dispatch(): Frame | undefined {
    const frame = { id: this.#id, event: this.#event || 'message', data: this.#data.join('\n') };
    const hasData = this.#data.length > 0;
    this.lastId = this.#id;
    this.#event = '';
    this.#data = [];
    this.#length = 0;
    return hasData ? frame : undefined;
  }

  #bound(more: number): void {
    if (this.#length + more > MAX_FRAME_LENGTH) {
      throw new WorkerError('PROTOCOL_ERROR', `An event is longer than ${MAX_FRAME_LENGTH} characters.`);
    }
  }
}
