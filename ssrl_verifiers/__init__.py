"""The environment of ``ssrl_core.verifiers`` under the name by which verifiers loads it."""

from ssrl_core.verifiers import MixEnv, MixHarness, MixTaskset

__all__ = ["MixEnv", "MixHarness", "MixTaskset"]
