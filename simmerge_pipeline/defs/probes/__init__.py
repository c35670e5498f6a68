"""What each checkpoint does on each task's probes."""
