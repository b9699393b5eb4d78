"""Runs ``ssrl`` as ``python -m ssrl_core``."""

from .cli import main

main()
