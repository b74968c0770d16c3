/** The events of a session, as its stream tells them. */
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
export type SessionEvent = ConnectedEvent | StatusEvent | ClaudeStartEvent | ClaudeDeltaEvent | ClaudeEndEvent | FileChangeEvent | CompleteEvent | ErrorEvent;
/** The event in a frame; undefined where this library does not know its kind, as a later server may have more. */
export declare function decodeEvent(frame: Frame): SessionEvent | undefined;
/** Whether nothing comes behind it. */
export declare function isLast(event: SessionEvent): event is CompleteEvent | ErrorEvent;
export {};
