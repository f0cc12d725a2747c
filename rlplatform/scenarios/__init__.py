"""Scenario models: laws of the assets' joint daily returns, fitted on training rows, from which further histories are drawn."""
