"""Schedules that keep a growing catalog in order: a nightly backfill with a budget, and retention of caches."""
