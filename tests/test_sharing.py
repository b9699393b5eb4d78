"""Computing a prompt once for all its rollouts gives the outputs and the gradients of verl's own engine."""

from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

import torch
from PIL import Image
from tensordict import NonTensorData, NonTensorStack, TensorDict
from transformers import BatchFeature
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling
from verl.models.transformers.qwen2_vl import forward_with_normal_backend, qwen2_vl_base_forward
from verl.utils import tensordict_utils
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as Verl

from ssrl_core.models.completions import complete
from ssrl_core.models.tokens import token_ids
from ssrl_core.verl.agent import SharedProcessing
from ssrl_core.verl.sharing import outputs, share

MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 12}
tasks: {flipped_patch: , cropped_patch: }
"""
ENGINE = SimpleNamespace(
    pad_to_length=False, use_ulysses_sp=False, engine_config=SimpleNamespace(entropy_checkpointing=False)
)


@pytest.fixture(scope="module")
def model_and_batch(tiny_model):
    """A model, and a micro-batch as verl makes it: five prompts with up to three rollouts each, in mixed order."""
    model, processor, mix, _ = tiny_model(MIX)
    order = [0, 2, 1, 0, 3, 1, 0, 2, 4]  # 0, 2 and 4 have one task and equal texts
    prompts = [token_ids(processor, mix[k]) for k in order]
    images = [list(mix[k].sample.images) for k in order]
    assert prompts[0] == prompts[1] and images[0] != images[1]
    written = complete(model, processor, prompts, images, max_new_tokens=7, temperature=1.0, seeds=range(len(order)))
    rows = []
    for number, (prompt, pictures, completion) in enumerate(zip(prompts, images, written, strict=True)):
        answer = torch.tensor(completion.token_ids[: 1 + number % 7])  # lengths from 1 to 7 tokens
        ids = torch.cat([torch.tensor(prompt), answer])[None]
        inputs = dict(processor.image_processor(images=pictures, return_tensors="pt"))
        kinds = (ids == processor.image_token_id).long()
        positions, _ = model.model.get_rope_index(
            ids, image_grid_thw=inputs["image_grid_thw"], attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds
        )
        positions = torch.cat([torch.arange(ids.shape[1])[None], positions[:, 0]])
        rows.append((torch.tensor(prompt), ids[0], positions, inputs))
    prompts, sequences, positions, inputs = zip(*rows, strict=True)
    batch = TensorDict(
        {
            "prompts": torch.nested.as_nested_tensor(list(prompts), layout=torch.jagged),
            "input_ids": torch.nested.as_nested_tensor(list(sequences), layout=torch.jagged),
            "position_ids": tensordict_utils.nested_tensor_from_tensor_list(list(positions), ragged_idx=2),
        },
        batch_size=len(rows),
    )
    batch["multi_modal_inputs"] = NonTensorStack(*map(NonTensorData, inputs))
    tensordict_utils.assign_non_tensor(
        batch, use_remove_padding=False, use_fused_kernels=False, calculate_entropy=True, temperature=1.3
    )
    return model, batch


@pytest.fixture
def as_verl_runs_it(monkeypatch):
    """The forward methods with which verl replaces those of transformers."""
    monkeypatch.setattr(modeling.Qwen2_5_VLModel, "forward", qwen2_vl_base_forward)
    monkeypatch.setattr(modeling.Qwen2_5_VLForConditionalGeneration, "forward", forward_with_normal_backend)


def results(model, batch, *, shared):
    """Log-probabilities and entropies of completion tokens, and gradients of a loss with a weight for each token."""
    model.zero_grad()
    if shared:
        packed = share(batch)
        made = outputs(packed, model(**packed.inputs, use_cache=False).logits, batch)
    else:
        inputs, given = Verl.prepare_model_inputs(ENGINE, batch)
        made = Verl.prepare_model_outputs(ENGINE, model(**inputs, use_cache=False), given, batch, None)
    prompts, sequences = batch["prompts"].unbind(), batch["input_ids"].unbind()
    lengths = [(len(prompt), len(ids)) for prompt, ids in zip(prompts, sequences, strict=True)]
    found = [
        torch.cat([row[begin - 1 : end - 1] for row, (begin, end) in zip(made[key].unbind(), lengths, strict=True)])
        for key in ("log_probs", "entropy")
    ]
    weights = torch.linspace(-1, 2, len(found[0]))
    (found[0] * weights + 0.1 * found[1]).sum().backward()
    return found, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_outputs_and_gradients_are_those_of_verls_engine(model_and_batch, as_verl_runs_it):
    model, batch = model_and_batch
    found, gradients = results(model, batch, shared=True)
    expected, expected_gradients = results(model, batch, shared=False)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.detach().numpy() == pytest.approx(theirs.detach().numpy(), abs=1e-4)
    assert gradients.keys() == expected_gradients.keys() and any("visual" in name for name in gradients)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-3, atol=1e-4), name


def test_each_prompt_occurs_once_and_keeps_its_images(model_and_batch):
    _, batch = model_and_batch
    packed = share(batch)
    assert len(packed.inputs["input_ids"]) == 5
    assert len(packed.inputs["image_grid_thw"]) == 1 + 5 + 1 + 5 + 1
    assert set(packed.rows.tolist()) == set(range(9))


def test_a_batch_without_repeats_and_a_cold_start_are_left_to_verl(model_and_batch):
    _, batch = model_and_batch
    assert share(tensordict_utils.index_select_tensor_dict(batch, [1, 4, 8])) is None
    assert share(batch.exclude("prompts")) is None
    wanting = batch.copy()
    tensordict_utils.assign_non_tensor(wanting, calculate_sum_pi_squared=True)
    assert share(wanting) is None


def test_the_images_of_a_prompt_are_prepared_once():
    calls = []

    def prepare(images, **settings):
        calls.append(settings)
        return BatchFeature({"pixel_values": torch.zeros(10) + len(calls)})

    prepare.merge_size = 2
    processor = SharedProcessing(prepare, capacity=100)
    one, other = (Image.new("RGB", (8, 8)) for _ in range(2))
    first = processor(images=[one], return_tensors="pt")
    assert processor.merge_size == 2
    assert processor(images=[one], return_tensors="pt")["pixel_values"] is first["pixel_values"] and len(calls) == 1
    processor(images=[other], return_tensors="pt"), processor(images=[one], return_tensors="np")
    assert len(calls) == 3
    processor(images=[one], return_tensors="pt")  # 120 bytes exceeded the capacity, so the oldest was dropped
    assert len(calls) == 4
