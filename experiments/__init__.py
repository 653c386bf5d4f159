"""Launchers: each reads a config, calls the package, and writes a run directory."""
