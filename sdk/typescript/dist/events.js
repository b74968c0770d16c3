/** The events of a session, as its stream tells them. */
import { WorkerError } from './errors.js';
const FIELDS = {
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
export function decodeEvent(frame) {
    if (!Object.hasOwn(FIELDS, frame.event))
        return undefined;
    const event = frame.event;
    const data = parseObject(frame);
    for (const [field, type] of Object.entries(FIELDS[event])) {
        if (typeof data[field] !== type)
            throw unreadable(frame, `its ${field} is no ${type}`);
    }
    return { ...data, event, id: frame.id };
}
/** Whether nothing comes behind it. */
export function isLast(event) {
    return event.event === 'complete' || event.event === 'error';
}
function parseObject(frame) {
    let data;
    try {
        data = JSON.parse(frame.data);
    }
    catch (cause) {
        throw unreadable(frame, 'its data is no JSON', cause);
    }
    if (typeof data !== 'object' || data === null)
        throw unreadable(frame, 'its data is no object');
    return data;
}
function unreadable(frame, why, cause) {
    return new WorkerError('PROTOCOL_ERROR', `The event ${frame.event} cannot be read: ${why}.`, { cause });
}
