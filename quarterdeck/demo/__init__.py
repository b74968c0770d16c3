"""The main job on real repositories, from nothing to checked branches: `python -m quarterdeck.demo`, `make demo`."""
