"""In a batch of prompts with different numbers and sizes of images, every prompt is completed with its own images."""

import pytest

from ssrl_core.models.completions import complete
from ssrl_core.models.tokens import message_parts, token_ids

torch = pytest.importorskip("torch", reason="the 'train' extra is not installed")

MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 12}
tasks: {flipped_patch: , cropped_patch: , depth_ordering: }
"""


@pytest.fixture(scope="module")
def model_and_mix(tiny_model):
    return tiny_model(MIX)


def log_probs_alone(model, processor, prompt, images, completion):
    """Log-probabilities of the tokens of a completion, from a forward pass over this example alone."""
    ids = torch.tensor([[*prompt, *completion]])
    inputs = dict(processor.image_processor(images=list(images), return_tensors="pt"))
    inputs["mm_token_type_ids"] = (ids == processor.image_token_id).long()
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_a_batch_gives_every_example_the_probabilities_that_it_has_alone(model_and_mix):
    model, processor, mix, _ = model_and_mix
    examples = [mix[index] for index in range(9)]
    prompts = [token_ids(processor, example) for example in examples]
    images = [list(example.sample.images) for example in examples]
    assert len({tuple(image.size for image in row) for row in images}) > 3
    written = complete(model, processor, prompts, images, max_new_tokens=6, temperature=1.0, seeds=range(9))
    for prompt, row, completion in zip(prompts, images, written, strict=True):
        alone = log_probs_alone(model, processor, prompt, row, completion.token_ids)
        assert alone.tolist() == pytest.approx(completion.log_probs, abs=1e-4)


def test_equal_prompts_are_read_once_and_completed_as_often_as_they_occur(model_and_mix):
    model, processor, mix, _ = model_and_mix
    order = [2, 0, 1, 4, 0, 2, 2, 3, 1, 0, 4, 2]  # examples 1 and 4 differ only in their images
    prompts = [token_ids(processor, mix[k]) for k in order]
    images = [list(mix[k].sample.images) for k in order]
    read = []
    hook = model.model.visual.register_forward_pre_hook(lambda _, args, given: read.append(given), with_kwargs=True)
    written = complete(model, processor, prompts, images, max_new_tokens=6, temperature=1.0, seeds=range(12))
    hook.remove()
    (given,) = read
    assert len(given["grid_thw"]) == sum(len(mix[k].sample.images) for k in set(order))
    for prompt, row, completion in zip(prompts, images, written, strict=True):
        alone = log_probs_alone(model, processor, prompt, row, completion.token_ids)
        assert alone.tolist() == pytest.approx(completion.log_probs, abs=1e-4)
    assert len({tuple(c.token_ids) for c, k in zip(written, order, strict=True) if k == 2}) > 1
    greedy = complete(model, processor, prompts, images, max_new_tokens=6)
    for k, completion in zip(order, greedy, strict=True):
        alone = complete(model, processor, [token_ids(processor, mix[k])], [mix[k].sample.images], max_new_tokens=6)
        assert alone[0].token_ids == completion.token_ids


def test_the_probabilities_depend_on_the_images(model_and_mix):
    model, processor, mix, _ = model_and_mix
    one, other = (mix[index] for index in (1, 4))  # the same task and image sizes
    prompt = token_ids(processor, one)
    if prompt != token_ids(processor, other):
        pytest.fail("the two examples must differ only in their images")
    completion = complete(model, processor, [prompt], [list(one.sample.images)], max_new_tokens=6)[0].token_ids
    own, exchanged = (log_probs_alone(model, processor, prompt, e.sample.images, completion) for e in (one, other))
    assert (own - exchanged).abs().max() > 1e-3


def test_without_log_probabilities_the_tokens_are_the_same(model_and_mix):
    model, processor, mix, _ = model_and_mix
    prompt, images = token_ids(processor, mix[0]), list(mix[0].sample.images)
    with_them, without = (
        complete(model, processor, [prompt], [images], max_new_tokens=4, log_probs=wanted)[0]
        for wanted in (True, False)
    )
    assert without.token_ids == with_them.token_ids and len(with_them.log_probs) == 4 and not without.log_probs
    assert without.cut


def test_a_prompt_is_split_at_its_images():
    assert message_parts("one <image> two<image><image>\n") == ["one ", None, " two", None, None, "\n"]
    assert message_parts("<image>") == [None] and message_parts("") == [] and message_parts("words") == ["words"]
