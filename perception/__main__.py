"""`python -m perception` is the `perception` command."""

from perception.cli.main import run

run()
