"""Logged episodes: who acted, what happened, and what can be said of another policy from them. Works without Ray."""
