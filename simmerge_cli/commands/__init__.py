"""One file per command: its examples (EPILOG) and `run`, into which heavy imports are deferred."""
