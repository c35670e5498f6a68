"""Definitions, one folder per subject; `simmerge_pipeline.definitions` collects what it finds here."""
