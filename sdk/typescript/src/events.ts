/** The events of a session, as its stream tells them. */

import { WorkerError } from './errors.js';
import type { Frame } from './sse.js';

interface Told<Name extends string> {
  readonly event: Name;
  /** The event's id; opaque. */
  readonly id: string;
  /** ISO 8601. */
  readonly timestamp: string;
}

export interface ConnectedEvent extends Told<'connected'> {
  readonly message: string;
}

export interface StatusEvent extends Told<'status'> {
  readonly message: string;
}

export interface ClaudeStartEvent extends Told<'claude_start'> {
  readonly turn: number;
  readonly prompt: string;
}

/** A piece of what the model writes. */
export interface ClaudeDeltaEvent extends Told<'claude_delta'> {
  readonly turn: number;
  readonly content: string;
}

export interface ClaudeEndEvent extends Told<'claude_end'> {
  readonly turn: number;
}

export interface FileChangeEvent extends Told<'file_change'> {
  readonly message: string;
  readonly workspaceDir: string;
}

/** The last event of a session that went well. */
export interface CompleteEvent extends Told<'complete'> {
  readonly sessionId: string;
  readonly turns: number;
  /** What came of it, such as `done` or `no_changes`; the agent's own words; where to review the change. */
  readonly outcome?: string;
  readonly summary?: string;
  readonly pullRequestUrl?: string;
}

/** The last event of a session that did not. */
export interface ErrorEvent extends Told<'error'> {
  readonly message: string;
}

/** Tell them apart by `event`. */
export type SessionEvent =
  | ConnectedEvent
  | StatusEvent
  | ClaudeStartEvent
  | ClaudeDeltaEvent
  | ClaudeEndEvent
  | FileChangeEvent
  | CompleteEvent
  | ErrorEvent;

const FIELDS: Readonly<Record<SessionEvent['event'], Readonly<Record<string, 'string' | 'number'>>>> = {
  connected: { message: 'string' },
  status: { message: 'string' },
  claude_start: { turn: 'number', prompt: 'string' },
  claude_delta: { turn: 'number', content: 'string' },
  claude_end: { turn: 'number' },
  file_change: { message: 'string', workspaceDir: 'string' },
  complete: { sessionId: 'string', turns: 'number' },
  error: { message: 'string' },
};

/** The event in a frame; undefined where this library does not know its kind, as a later server may have more. */
export function decodeEvent(frame: Frame): SessionEvent | undefined {
  if (!Object.hasOwn(FIELDS, frame.event)) return undefined;
  const event = frame.event as SessionEvent['event'];
  const data = parseObject(frame);
  for (const [field, type] of Object.entries(FIELDS[event])) {
    if (typeof data[field] !== type) throw unreadable(frame, `its ${field} is no ${type}`);
  }
  return { ...data, event, id: frame.id } as SessionEvent;
}

/** Whether nothing comes behind it. */
export function isLast(event: SessionEvent): event is CompleteEvent | ErrorEvent {
  return event.event === 'complete' || event.event === 'error';
}

function parseObject(frame: Frame): Record<string, unknown> {
  let data: unknown;
  try {
    data = JSON.parse(frame.data);
  } catch (cause) {
    throw unreadable(frame, 'its data is no JSON', cause);
  }
  if (typeof data !== 'object' || data === null) throw unreadable(frame, 'its data is no object');
  return data as Record<string, unknown>;
}

function unreadable(frame: Frame, why: string, cause?: unknown): WorkerError {
  return new WorkerError('PROTOCOL_ERROR', `The event ${frame.event} cannot be read: ${why}.`, { cause });
}
