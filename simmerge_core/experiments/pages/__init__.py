"""Tables and pictures of each experiment, generated from its figures."""
