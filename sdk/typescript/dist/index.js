/** What a user of the package imports. */
export { ClaudeCodeWorker, Interactive } from './client.js';
export { WorkerError } from './errors.js';
export { Session } from './session.js';
