"""An offline stand-in for Claude: speaks the Messages API over HTTP and carries out literal replacements only."""
