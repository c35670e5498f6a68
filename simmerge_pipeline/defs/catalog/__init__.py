"""The catalog's checkpoints as manifests, and the sensor that turns entries into partitions."""
