"""Show, start and stop the checkout's servers: `python -m config.embedded status`."""

import argparse
import os

from . import postgres


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded", description=__doc__)
    parser.add_argument("command", choices=["start", "stop", "status", "url", "psql"])
    command = parser.parse_args().command
    if command == "start":
        postgres.start()
    if command == "stop":
        print("PostgreSQL is stopped." if postgres.stop() else "PostgreSQL was not running.")
    elif command in ("start", "status"):
        port = postgres.ready_port()
        print(f"PostgreSQL runs on port {port}." if port else "PostgreSQL is not running.")
    elif command == "url":
        print(postgres.url())
    elif command == "psql":
        program = str(postgres.program("psql"))
        os.execv(program, [program, postgres.url()])  # noqa: S606 (takes the terminal over)


if __name__ == "__main__":
    main()
