"""The worker: a supervisor, and processes that deliver, handle and acknowledge."""
