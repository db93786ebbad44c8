"""The checks. Every module here that has a `GROUP` is run, in a process of its own."""
