"""A machine without torch, as far as the package can tell."""

import importlib

import pytest


def hide_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the package's import of torch fail; transformers and the tests keep theirs."""
    import_module = importlib.import_module

    def without_torch(name, *args):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return import_module(name, *args)

    monkeypatch.setattr(importlib, "import_module", without_torch)
