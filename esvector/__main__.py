"""``python -m esvector`` is the command line."""

from esvector.cli import main

main()
