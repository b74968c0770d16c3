"""The library's example as the published document prints it."""

from typing import Final

PRINTED_NAME: Final = "@cloud-code/worker-sdk"
PRINTED_ADDRESS: Final = "https://your-worker.workers.dev"

EXAMPLE: Final = """import { ClaudeCodeWorker } from '@cloud-code/worker-sdk';

const client = new ClaudeCodeWorker({
  baseUrl: 'https://your-worker.workers.dev',
  apiKey: process.env.CLOUD_CODE_KEY
});

// Start interactive session
const session = await client.interactive.start({
  prompt: 'Refactor this function',
  repository: 'owner/repo'
});

for await (const chunk of session.stream()) {
  console.log(chunk.content);
}
"""


def example(name: str, address: str) -> str:
    """But for the package's name and the server's address."""
    return EXAMPLE.replace(PRINTED_NAME, name).replace(PRINTED_ADDRESS, address)
