/** What a user of the package imports. */

export type { Health, Repository, SessionOptions, SessionStatus, StartOptions } from './answers.js';
export { ClaudeCodeWorker, Interactive, type AttachOptions, type WorkerOptions } from './client.js';
export { WorkerError, type WorkerErrorCode, type WorkerErrorDetails } from './errors.js';
export type * from './events.js';
export { Session } from './session.js';
