"""Admits runs, publishes events, and moves whatever no message moved. It touches neither Git nor the model."""
