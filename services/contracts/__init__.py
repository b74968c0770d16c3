"""What crosses a process: generated protobuf, subjects, words, REST models. Imports nothing of ours."""
