"""The `andersonn` command: one file a group of commands, thin over the rooms below."""

from .main import app, main

__all__ = ["app", "main"]
