"""Training steps measured each in a process of its own; `lit_t6.bench.train` is the command."""
