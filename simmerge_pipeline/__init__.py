"""The Dagster project: assets, partitions, sensors and checks over `simmerge_core`; no mathematics lives here."""
