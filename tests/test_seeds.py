"""Every rollout has a seed of its own, so completions depend on neither batches nor the order of arrival."""

import asyncio
import logging
from types import SimpleNamespace
from uuid import uuid4

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

import numpy as np
import torch
import transfer_queue
import verl.experimental.agent_loop.agent_loop as verl_loop
from omegaconf import OmegaConf
from tensordict import NonTensorData, NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from ssrl_core.evaluate.models import Sampling, Transformers
from ssrl_core.models.completions import _sampler, complete
from ssrl_core.models.tokens import token_ids
from ssrl_core.verl import agent, sampler
from ssrl_core.verl.agent import TRAJECTORY, TimedAgentLoop, rollout_seed
from ssrl_core.verl.recipe import SAMPLER
from ssrl_core.verl.rollout import Batcher, Place, Request, TransformersServer, forms_waves
from ssrl_core.verl.sampler import PromptReplayBuffer, fixed_order

MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 12}
tasks: {flipped_patch: , cropped_patch: }
"""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model_and_mix(tiny_model):
    return tiny_model(MIX)


# Evaluation: batches and resumption


def texts(folder, mix, indices, *, batch, seed=0):
    """The texts that a model writes at temperature 1 to the samples at some indices of a mix."""
    model = Transformers(str(folder), batch=batch)
    examples = [(index, mix[index]) for index in indices]
    sampling = Sampling(temperature=1.0, max_tokens=6, seed=seed)
    return {index: outcome.text for (index, _), outcome in model.answer(examples, sampling)}


def test_an_evaluation_with_sampling_depends_on_neither_batch_size_order_nor_resumption(model_and_mix):
    _, _, mix, folder = model_and_mix
    whole = texts(folder, mix, range(10), batch=32)
    assert len(set(whole.values())) > 5
    assert texts(folder, mix, range(10), batch=1) == whole
    assert texts(folder, mix, range(10), batch=3) == whole
    assert texts(folder, mix, [7, 2, 9, 0, 4, 1, 8, 3, 6, 5], batch=4) == whole
    interrupted = texts(folder, mix, range(4), batch=4) | texts(folder, mix, range(4, 10), batch=4)
    assert interrupted == whole
    assert texts(folder, mix, range(10), batch=32, seed=1) != whole


def test_sampling_without_a_seed_for_each_prompt_is_refused(model_and_mix):
    model, processor, mix, _ = model_and_mix
    prompt, images = token_ids(processor, mix[0]), list(mix[0].sample.images)
    for seeds in (None, [1]):
        with pytest.raises(ValueError, match="needs one seed per prompt: 2 prompts"):
            complete(model, processor, [prompt] * 2, [images] * 2, max_new_tokens=1, temperature=1.0, seeds=seeds)


# The distribution of samples

DRAWS = 20_000
LOGITS = torch.linspace(-2, 2, 24)


def chi_square(counts, expected):
    """Pearson's statistic over the cells with a positive expectation, in standard deviations from its mean.

    Its mean is the number of degrees of freedom, df, and its variance 2 df. Draws outside of these cells make it
    infinite.
    """
    inside = expected > 0
    if counts[~inside].sum() > 0:
        return float("inf")
    freedom = int(inside.sum()) - 1
    statistic = ((counts[inside] - expected[inside]) ** 2 / expected[inside]).sum()
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


SIGMAS = 6.0
"""Bound of ``chi_square``: a correct sampler exceeds it in less than one of 10,000 tests of this size."""


def draws(*, steps=1, seeds=None, **settings):
    """Tokens that ``complete`` would sample from LOGITS: one row per seed, one column per step."""
    seeds = seeds or [rollout_seed(42, source="t@1", index=k, number=0, step=1) for k in range(DRAWS)]
    sample = _sampler(seeds, **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "device": "cpu"} | settings)
    scores = LOGITS.expand(len(seeds), -1)
    return torch.stack([sample(torch.zeros(len(seeds), 1).long(), scores).argmax(-1) for _ in range(steps)], dim=1)


def distance(tokens, probabilities):
    """How far the frequencies of tokens are from their probabilities; see ``chi_square``."""
    counts = torch.bincount(tokens.flatten(), minlength=len(probabilities))
    return chi_square(counts.double(), probabilities.double() * tokens.numel())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_with_the_probabilities_of_the_policy(temperature):
    expected = (LOGITS / temperature).softmax(-1)
    assert distance(draws(temperature=temperature), expected) < SIGMAS
    assert distance(draws(temperature=temperature * 1.15), expected) > SIGMAS  # a planted fault


def test_the_noise_of_another_distribution_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda row, generator: row.uniform_(generator=generator))
    assert distance(draws(), LOGITS.softmax(-1)) > SIGMAS


def test_top_k_and_top_p_keep_the_most_likely_tokens_and_the_proportions_between_them():
    probabilities = LOGITS.softmax(-1)
    kept = torch.where(torch.arange(24) >= 19, probabilities, 0)
    assert distance(draws(top_k=5), kept / kept.sum()) < SIGMAS
    assert distance(draws(top_k=6), kept / kept.sum()) > SIGMAS  # a planted fault
    tail = probabilities.cumsum(0) <= 1 - 0.7  # top-p drops the least likely tokens while their sum is at most 0.3
    kept = torch.where(tail, 0, probabilities)
    assert distance(draws(top_p=0.7), kept / kept.sum()) < SIGMAS
    assert distance(draws(), kept / kept.sum()) > SIGMAS  # a planted fault


def test_draws_of_two_rows_and_of_two_steps_are_independent():
    probabilities = LOGITS.softmax(-1)
    pairs = torch.outer(probabilities, probabilities).flatten()
    steps = draws(steps=2)
    assert distance(steps[:, 0] * 24 + steps[:, 1], pairs) < SIGMAS
    assert distance(steps[0::2, 0] * 24 + steps[1::2, 0], pairs) < SIGMAS
    twice = [k // 2 for k in range(DRAWS)]  # a planted fault: two rows share a seed
    steps = draws(seeds=twice)
    assert distance(steps[0::2, 0] * 24 + steps[1::2, 0], pairs) > SIGMAS


def test_the_log_probabilities_of_samples_are_those_of_the_unfiltered_policy(model_and_mix):
    model, processor, mix, _ = model_and_mix
    prompts = [token_ids(processor, mix[index]) for index in range(4)]
    images = [list(mix[index].sample.images) for index in range(4)]
    written = complete(
        model, processor, prompts, images, max_new_tokens=5, temperature=0.7, top_p=0.8, top_k=20, seeds=range(4)
    )
    for prompt, pictures, completion in zip(prompts, images, written, strict=True):
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        inputs = dict(processor.image_processor(images=pictures, return_tensors="pt"))
        inputs["mm_token_type_ids"] = (ids == processor.image_token_id).long()
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0, len(prompt) - 1 : -1]
        expected = (logits / 0.7).log_softmax(-1).gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert completion.log_probs == pytest.approx(expected.tolist(), abs=1e-4)


# Seeds


def test_a_seed_depends_on_the_run_the_prompt_the_ordinal_and_the_step():
    seeds = [
        rollout_seed(run, source=source, index=index, number=number, step=step)
        for run in (42, 43)
        for source in ("a@1", "b@1")
        for index in (0, 1, "x")
        for number in range(3)
        for step in (None, 0, 1)
    ]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    # Another value would mean that a run does not repeat one of an earlier version.
    assert rollout_seed(42, source="a@1", index=0, number=0, step=None) == 8322893529341203868


def loop(*, engine="transformers", **trainer):
    """An agent loop with the part of verl's configuration that decides about seeds and waves."""
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": {"name": engine, "seed": 42, "n": 8, "val_kwargs": {"n": 2}}},
            "trainer": {"n_gpus_per_node": 1, "nnodes": 1, "v1": {"trainer_mode": "sync", "sampler": {}}} | trainer,
        }
    )
    config.trainer.v1.sampler.custom_sampler = SAMPLER
    made = object.__new__(TimedAgentLoop)
    made.config, made.rollout_config, made._data = config, config.actor_rollout_ref.rollout, (1.0, 2.0)
    return made


def sent(made, monkeypatch, *, validate=False, step=3, number=1, fail=False):
    """The sampling parameters that an agent loop passes on for a rollout."""
    seen = []

    async def run(self, sampling_params, **_):
        seen.append(sampling_params)
        if fail:
            raise ValueError("too long")
        return SimpleNamespace(extra_fields={}, metrics=SimpleNamespace(generate_sequences=1.0))

    async def rollout():
        TRAJECTORY.set({"validate": validate})
        given = {"temperature": 1.0}
        row = {"data_source": "a@1", "index": 5, "uid": "u", "session_id": number, "global_steps": step}
        await made.run(given, **row)
        assert given == {"temperature": 1.0}  # verl passes the same mapping to all rollouts of a prompt

    monkeypatch.setattr(SingleTurnAgentLoop, "run", run)
    asyncio.run(rollout())
    return seen[0]


def test_a_prompt_is_explored_anew_in_every_step_and_every_validation_uses_the_same_numbers(monkeypatch):
    training = [sent(loop(), monkeypatch, step=step)["seed"] for step in (3, 4)]
    validation = [sent(loop(), monkeypatch, step=step, validate=True)["seed"] for step in (3, 4)]
    assert training[0] != training[1] and validation[0] == validation[1] != training[0]
    assert sent(loop(), monkeypatch, number=2)["seed"] != training[0]


def test_vllm_gets_the_seed_and_the_server_on_transformers_its_place_in_the_wave_too(monkeypatch):
    seed = rollout_seed(42, source="a@1", index=5, number=1, step=3)
    assert sent(loop(engine="vllm"), monkeypatch) == {"temperature": 1.0, "seed": seed}
    assert sent(loop(engine="sglang"), monkeypatch) == {"temperature": 1.0}  # it has no such parameter
    place = Place("u", ("a@1", "5"), 1, 8)
    assert sent(loop(), monkeypatch) == {"temperature": 1.0, "seed": seed, "place": place}
    assert sent(loop(), monkeypatch, validate=True)["place"].rollouts == 2
    assert "place" not in sent(loop(n_gpus_per_node=2), monkeypatch)  # two servers share a wave


def test_a_rollout_that_fails_is_withdrawn(monkeypatch):
    withdrawn = []
    server = SimpleNamespace(withdraw=SimpleNamespace(remote=withdrawn.append))
    monkeypatch.setattr(agent.ray, "get_actor", lambda name: server)
    with pytest.raises(ValueError, match="too long"):
        sent(loop(), monkeypatch, fail=True)
    assert withdrawn == [Place("u", ("a@1", "5"), 1, 8)]


def test_an_agent_loop_is_told_whether_it_validates(monkeypatch):
    import ssrl_core.verl.workers  # noqa: F401 (changes verl)

    class Loop:
        async def run(self, sampling_params, **_):
            return dict(TRAJECTORY.get())

    async def processed(output, validate, **_):
        return output

    monkeypatch.setitem(verl_loop._agent_loop_registry, "told", {})
    monkeypatch.setattr(verl_loop.hydra.utils, "instantiate", lambda **_: Loop())
    worker = object.__new__(verl_loop.AgentLoopWorker)
    worker.config = SimpleNamespace(data=None)
    worker.llm_client = worker.tokenizer = worker.processor = worker.hf_model_type = worker.dataset_cls = None
    worker.tools, worker._agent_loop_postprocess = [], processed
    trajectories = [{"step": 1, "sample_index": k, "rollout_n": 0, "validate": k % 2 == 1} for k in range(4)]

    async def rollouts():
        return await asyncio.gather(
            *(
                worker._run_agent_loop({}, trajectory=trajectory, agent_name="told", trace=False)
                for trajectory in trajectories
            )
        )

    assert asyncio.run(rollouts()) == trajectories


# The server: batches do not depend on when requests arrive


@pytest.fixture(scope="module")
def server(model_and_mix):
    """A function that makes the server of a run, in this process, with batches of at most five."""
    folder = model_and_mix[3]
    config = OmegaConf.create({"max_num_seqs": 5, "response_length": 6, "seed": 42})
    model_config = OmegaConf.create({"_target_": "verl.workers.config.HFModelConfig", "path": str(folder)})
    made = TransformersServer(config, model_config)
    torch.set_num_threads(1)

    def fresh():
        made._batcher = Batcher(made._complete, size=5)
        return made

    return fresh


def served(server, mix, processor, arrivals, *, announced=4, lost=(), announce_at=0.0):
    """(prompt, ordinal) -> (token ids, log-probabilities), where requests arrive at the given seconds.

    Four prompts have two rollouts each. The rollouts in ``lost`` are withdrawn when they should arrive.
    """
    results, wave_id = {}, uuid4().hex

    async def rollout(index, number, at):
        await asyncio.sleep(at)
        place = Place(f"{wave_id}{index}", ("a@1", str(index)), number, 2)
        if (index, number) in lost:
            await server.withdraw(place)
            return
        output = await server.generate(
            "id",
            token_ids(processor, mix[index]),
            {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": True, "seed": 7 * index + number}
            | {"place": place},
            image_data=list(mix[index].sample.images),
        )
        results[index, number] = output.token_ids, output.log_probs

    async def announce():
        await asyncio.sleep(announce_at)
        await server.announce(announced)

    async def wave():
        await asyncio.gather(announce(), *(rollout(*one, at) for one, at in arrivals.items()))

    asyncio.run(asyncio.wait_for(wave(), 60))
    return results


ROLLOUTS = [(index, number) for index in range(4) for number in range(2)]


def test_the_server_gives_the_same_bits_whatever_the_order_and_the_times_of_arrival(server, model_and_mix):
    _, processor, mix, _ = model_and_mix
    calm = served(server(), mix, processor, dict.fromkeys(ROLLOUTS, 0.0))
    assert len({tuple(ids) for ids, _ in calm.values()}) > 4
    rng = np.random.default_rng(0)
    for announce_at in (0.0, 0.2, 0.5):
        times = rng.uniform(0, 0.4, len(ROLLOUTS))  # with pauses that are longer than a lull
        busy = {ROLLOUTS[k]: times[k] for k in rng.permutation(len(ROLLOUTS))}
        assert served(server(), mix, processor, busy, announce_at=announce_at) == calm


def test_waves_follow_each_other_and_a_failed_rollout_holds_none_of_them_up(server, model_and_mix):
    _, processor, mix, _ = model_and_mix
    one = server()
    calm = served(one, mix, processor, dict.fromkeys(ROLLOUTS, 0.0))
    for lost in ([(1, 0)], [(1, 0), (1, 1)], ROLLOUTS):
        rest = served(one, mix, processor, dict.fromkeys(ROLLOUTS, 0.0), lost=lost)
        assert rest.keys() == calm.keys() - set(lost)
    assert served(one, mix, processor, dict.fromkeys(ROLLOUTS, 0.0)) == calm


class Recorder:
    """Stands in for a model: keeps the batches that it got."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append([(request.place.order, request.place.number) for request in batch if request.place])
        return [SimpleNamespace() for _ in batch]


def submit(batcher, *places, sampling=None):
    return asyncio.gather(*(batcher.submit(Request([1], [], sampling or {}, 0, place)) for place in places))


def test_a_wave_that_stays_incomplete_is_completed_after_a_while_and_the_log_says_so(caplog):
    async def run():
        record = Recorder()
        batcher = Batcher(record, size=10, patience=0.2)
        batcher.announce(2)
        with caplog.at_level(logging.WARNING):
            await submit(batcher, Place("p", ("p",), 1, 2), Place("p", ("p",), 0, 2))  # the second prompt never comes
        assert "A wave of rollouts is incomplete" in caplog.text
        caplog.clear()
        batcher.announce(1)
        await submit(batcher, Place("q", ("q",), 0, 1))
        batcher.withdraw(Place("q", ("q",), 0, 1))  # an agent loop that fails after its request
        batcher.announce(1)
        await submit(batcher, Place("r", ("r",), 0, 1))
        assert not caplog.text
        return record.batches

    assert asyncio.run(run()) == [[(("p",), 0), (("p",), 1)], [(("q",), 0)], [(("r",), 0)]]


def test_requests_outside_of_waves_wait_for_no_wave():
    async def run():
        record = Recorder()
        batcher = Batcher(record, size=10, lull=0.05)
        waiting = submit(batcher, Place("p", ("p",), 0, 1))
        await asyncio.wait_for(submit(batcher, None, None), 5)
        assert not waiting.done()
        batcher.announce(1)
        await waiting
        return record.batches

    assert asyncio.run(run()) == [[], [(("p",), 0)]]


def test_rollouts_with_other_sampling_parameters_are_batches_of_their_own():
    async def run():
        record = Recorder()
        batcher = Batcher(record, size=2)
        batcher.announce(6)
        places = [Place(name, (name,), 0, 1) for name in "fedcba"]
        greedy = submit(batcher, *places[::2], sampling={"temperature": 0})
        await submit(batcher, *places[1::2], sampling={"temperature": 1})
        await greedy
        return [[order[0] for order, _ in batch] for batch in record.batches]

    assert asyncio.run(run()) == [["a", "c"], ["e"], ["b", "d"], ["f"]]


# The trainer's batches


def test_training_rollouts_are_sorted_as_the_dataloader_yielded_them_and_validation_by_index(monkeypatch):
    keys = ["00000002-000000010_10_0", "00000002-000000009_0_0", "00000002-000000010_9_0", "00000002-000000009_0_1"]
    train = KVBatchMeta(keys=keys, tags=[{}] * 4, partition_id="train")
    assert [keys[at] for at in fixed_order(train)] == [keys[1], keys[3], keys[2], keys[0]]

    rows = {"b_0_0": (7, "t@1"), "a_1_0": (12, "t@1"), "a_0_0": (12, "t@1"), "c_0_0": (7, "s@1")}

    def stored(*, keys, partition_id, select_fields):
        columns = zip(*(rows[key] for key in keys), strict=True)
        stacks = (NonTensorStack(*map(NonTensorData, column)) for column in columns)
        return TensorDict(dict(zip(("index", "data_source"), stacks, strict=True)), batch_size=len(keys))

    monkeypatch.setattr(transfer_queue, "kv_batch_get", stored)
    keys = list(rows)
    val = KVBatchMeta(keys=keys, tags=[{}] * 4, partition_id="val")
    assert [keys[at] for at in fixed_order(val)] == ["c_0_0", "b_0_0", "a_0_0", "a_1_0"]


class Trainer:
    """The part of verl's trainer that the replay buffer uses."""

    global_steps = 3

    def __init__(self, engine):
        self.config = loop(engine=engine).config

    def _next_train_batch(self, prompts):
        ids = NonTensorStack(*(NonTensorData("random") for _ in range(prompts)))
        return TensorDict({"uid": ids}, batch_size=prompts)

    def refill(self, prompts):
        raise NotImplementedError


def replay_buffer(trainer):
    settings = {"max_off_policy_threshold": None, "max_off_policy_strategy": "drop", "sampler_kwargs": {}}
    return PromptReplayBuffer(trainer_mode="sync", trainer_config={}, refill_fn=trainer.refill, **settings)


def test_prompts_are_numbered_as_the_dataloader_yields_them():
    trainer = Trainer("vllm")
    replay_buffer(trainer)
    batches = [trainer._next_train_batch(2), trainer._next_train_batch(3)]
    ids = [prompt for batch in batches for prompt in batch["uid"]]
    assert ids == sorted(set(ids)) and len(ids) == 5 and not any("_" in prompt for prompt in ids)


@pytest.mark.parametrize(("engine", "announced"), [("transformers", [4]), ("vllm", [])])
def test_the_buffer_announces_a_wave_to_the_server_on_transformers(monkeypatch, engine, announced):
    heard = []
    server = SimpleNamespace(announce=SimpleNamespace(remote=heard.append))
    monkeypatch.setattr(sampler.ray, "get_actor", lambda name: server)
    monkeypatch.setattr(sampler.ray, "get", lambda reference: reference)
    batch = KVBatchMeta(keys=[], tags=[], partition_id="val")
    monkeypatch.setattr(sampler.ReplayBuffer, "sample", lambda *_: (batch, {}))
    trainer = Trainer(engine)
    assert forms_waves(trainer.config) == (engine == "transformers")
    replay_buffer(trainer).sample(3, "val", 4)
    assert heard == announced
