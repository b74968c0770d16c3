"""What the model may call, over one run's workspace. Knows nothing of the model, the queue or the database."""

from services.agent.tools.calls import Completion, ToolCall, ToolResult, ToolSpec
from services.agent.tools.toolbox import Toolbox
from services.agent.workspace import FileChange, Workspace

__all__ = ["Completion", "FileChange", "ToolCall", "ToolResult", "ToolSpec", "Toolbox", "Workspace"]
