"""The command line: few flags, all settings in the recipe, errors that say what to do."""

from understudy.cli.main import main

__all__ = ["main"]
