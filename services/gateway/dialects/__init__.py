"""The published APIs that are served unchanged: each translates to the use cases of `/v1`, and has no state."""
