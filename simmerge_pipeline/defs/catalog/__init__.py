"""The checkpoints as manifests, the sensor that turns entries into partitions, the job that submits a request."""
