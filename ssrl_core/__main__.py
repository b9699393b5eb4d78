"""``python -m ssrl_core`` is ``ssrl``."""

from .cli import main

main()
