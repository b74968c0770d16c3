"""What this node's disk holds, and what goes from it when."""
