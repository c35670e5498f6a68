"""The trained selector and the report on how well it chooses."""
