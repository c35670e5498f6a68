"""The command line: a thin shell over `simmerge_core` and `simmerge_pipeline`.

Importing it imports typer and nothing else that is heavy; each command imports what it needs when it runs.
"""
