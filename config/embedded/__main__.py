"""Show, start and stop the checkout's servers: `python -m config.embedded status`."""

import argparse
import os

from . import postgres, valkey


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded", description=__doc__)
    parser.add_argument("command", choices=["start", "stop", "status", "url", "psql"])
    command = parser.parse_args().command
    if command == "url":
        print(postgres.url())
    elif command == "psql":
        program = str(postgres.program("psql"))
        os.execv(program, [program, postgres.url()])  # noqa: S606 (takes the terminal over)
    else:
        if command == "start":
            postgres.start()
        elif command == "stop":
            postgres.stop()
            valkey.stop()
        print_status()


def print_status() -> None:
    """Say of each server whether it runs."""
    port = postgres.ready_port()
    print(f"PostgreSQL runs on port {port}." if port else "PostgreSQL does not run.")
    # Nobody misses it until django-rq is used, so it is not started by hand.
    print("Valkey runs." if valkey.running() else "Valkey does not run.")


if __name__ == "__main__":
    main()
