"""The command line: a command is a method of the library. ``main`` is what the installed ``esvector`` runs."""

from esvector.cli.app import app, main

__all__ = ["app", "main"]
