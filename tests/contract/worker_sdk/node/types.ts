/** What the types promise, held by the compiler; it is never run. */

import { ClaudeCodeWorker, WorkerError, type SessionEvent, type SessionStatus } from '@quarterdeck/worker-sdk';

export async function use(client: ClaudeCodeWorker): Promise<void> {
  const repository = { url: 'https://github.com/owner/repo', branch: 'main' };
  const session = await client.interactive.start({ prompt: 'p', repository, options: { maxTurns: 3, createPR: true } });
  for await (const chunk of session.stream()) {
    const content: string = chunk.content;
    // @ts-expect-error: it is no number
    const wrong: number = chunk.content;
    void [content, wrong];
  }
  for await (const event of session.events()) told(event);
  const status: SessionStatus = await session.status();
  // @ts-expect-error: no session is `running`
  void (status.status === 'running');
  // @ts-expect-error: a prompt is needed
  await client.interactive.start({ repository: 'owner/repo' });
  await session.end();
}

/** Without a `default`: the compiler sees that these are all. */
function told(event: SessionEvent): string | number {
  switch (event.event) {
    case 'connected':
    case 'status':
    case 'error':
    case 'file_change':
      return event.message;
    case 'claude_start':
      return event.prompt;
    case 'claude_delta':
      return event.content;
    case 'claude_end':
      return event.turn;
    case 'complete':
      return event.turns;
  }
}

export function pauseOf(error: unknown): number | undefined {
  return error instanceof WorkerError && error.code === 'RATE_LIMIT_EXCEEDED' ? error.retryAfter : undefined;
}
