"""Suites: each file's `get_config` returns every setting of an experiment. An installed package has them too."""
