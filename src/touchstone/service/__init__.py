"""Frozen models over HTTP: the answers of the command line, to programs and to a page."""
