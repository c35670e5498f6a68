"""Merge requests: ranked plans, the merged model, how it scores."""
