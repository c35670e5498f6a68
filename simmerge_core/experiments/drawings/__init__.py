"""The experiments' figures: one file per subject, each from results to PNG or SVG bytes; equal input, equal bytes.

No function depends on the order of keys in a result: it differs between one just computed and one read from the store.
"""
