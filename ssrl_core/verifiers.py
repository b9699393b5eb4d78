"""A mix as an environment of verifiers 0.4 (``verifiers.v1``), for its evaluation and for trainers that use it.

    vf-eval ssrl_verifiers --env.taskset.mix mix.yaml -n 100 -m MODEL --client.base-url http://HOST:8000/v1 --no-push

The package ``ssrl_verifiers`` exports the classes of this module, because verifiers takes the name of a package for the
id of an environment. A sample is made when its task is loaded. Its images are PNG files in the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult

from .form import CLOSING, OPENING
from .mix import SplitName, load_mix
from .models.tokens import user_message
from .pages import data_url
from .reward import Key, score

__all__ = ["MixEnv", "MixHarness", "MixTaskset"]


class MixData(vf.TaskData):
    """A sample: its prompt with images, and as JSON ``key`` (see ``reward.Key``) and ``recipe``, which rebuilds it."""

    key: str
    recipe: str


class MixTask(vf.Task[MixData]):
    """The reward of training; accuracy, form and failures of the verifier as metrics. See ``reward.score_all``."""

    @vf.reward
    async def reward(self, trace: vf.Trace) -> float:
        """The score of the last reply, in [0, 1]."""
        return float(_verdict(self.data.key, _reply(trace))["score"])

    @vf.metric
    async def verdict(self, trace: vf.Trace) -> dict[str, float]:
        """``acc``, ``format`` and ``error``, each 0 or 1."""
        verdict = _verdict(self.data.key, _reply(trace))
        return {name: float(verdict[name]) for name in ("acc", "format", "error")}


class MixTasksetConfig(vf.TasksetConfig):
    """Which samples.

    Attributes:
        mix: path of a mix file.
        split: ``train``, ``validation`` or ``heldout``.
    """

    mix: str = ""
    split: SplitName = "train"


class MixTaskset(vf.Taskset[MixTask, MixTasksetConfig]):
    """The samples of a mix, in its order."""

    def load(self) -> Iterator[MixTask]:
        """One task after the other. Raises MixError, PluginError or SourceError; see ``load_mix``."""
        if not self.config.mix:
            raise ValueError("no mix: name a mix file with --env.taskset.mix FILE")
        mix = load_mix(self.config.mix, split=self.config.split)
        for example in map(mix.__getitem__, range(len(mix))):
            urls = [data_url(image, lossless=True) for image in example.images]
            parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            message = user_message(example.prompt, parts.__getitem__)
            config, recipe = mix.config, example.recipe
            key = Key.of(example, format_weight=config.format_weight, thinking=config.thinking)
            data = MixData(
                name=f"{recipe.task}@{recipe.level}",
                prompt=[vf.UserMessage.model_validate(message)],
                key=key.to_json(),
                recipe=recipe.to_json(),
            )
            yield MixTask(data, self.config.task)


class MixEnvConfig(vf.EnvConfig):
    """The model runs in this process: an answer to a puzzle needs no sandbox."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class MixEnv(vf.Env[MixEnvConfig]):
    """One model answers one sample."""

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        """One episode."""
        await agents.agent.run(task)


class MixHarness(vf.Harness[vf.HarnessConfig]):
    """One request for each sample, from this process: there are no tools, and no program runs."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: Any, data: vf.TaskData
    ) -> ProgramResult:
        """Ask for the completion; verifiers records it on its way."""
        from openai import AsyncOpenAI

        system, prompt = self.resolve_prompt(data)
        messages = prompt if isinstance(prompt, list) else [vf.UserMessage(content=prompt or "")]
        if system:
            messages = [vf.SystemMessage(content=system), *messages]
        wire: Any = [message_to_wire(message) for message in messages]
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, timeout=None, max_retries=0) as client:
            await client.chat.completions.create(model=ctx.model, messages=wire)
        return ProgramResult(0, "", "")


def _reply(trace: vf.Trace) -> str:
    """The completion: what the model said, after the thinking that its server took out of it."""
    messages = trace.assistant_messages
    if not messages:
        return ""
    thought, said = messages[-1].reasoning_content, messages[-1].content or ""
    return f"{OPENING}{thought}{CLOSING}{said}" if thought and CLOSING not in said else said


@lru_cache(maxsize=256)
def _verdict(key: str, completion: str) -> dict[str, Any]:
    return score(Key.from_json(key), completion)
