"""Benchmarks: our paths beside plain SQL, interleaved on the same server."""
