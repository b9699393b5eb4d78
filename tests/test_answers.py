import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssrl_core.answers import (
    extract_answer,
    match_choice,
    match_sequence,
    match_text,
    parse_sequence,
    permutations,
    share_in_place,
    verdict,
)
from ssrl_core.types import Verdict


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"<think>a</think>\boxed{B}", "B"),
        ("\n <think>a\nb</think>\n\nThe answer is \\boxed{ 3-vertical }.", "3-vertical"),
        (r"<think>a</think>\boxed{\text{B}}", r"\text{B}"),
    ],
)
def test_the_answer_of_a_well_formed_completion_is_extracted(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    "completion",
    [
        r"<think></think>\boxed{}",
        r"<think></think>\boxed{B}",
        r"<think> </think>\boxed{B}",
        r"<think>a</think>\boxed{}",
        r"<think>a</think>\boxed{ }",
        r"<think>a</think>\boxed{{}}",
        r"<think>a</think>\boxed{$$}",
        r"<think>a</think>\boxed{\text{}}",
        r"<think>a</think>\boxed{.}",
        r"<think>a</think>\boxed{A}\boxed {B}",
        r"<think>a \boxed{B}</think>",
        r"<think>a \boxed{A}</think>\boxed{B}",
        r"<think>a</think>\boxed{A}\boxed{B}",
        r"<think>a</think><think>b</think>\boxed{A}",
        r"<think>a</think>\boxed{A",
        r"</think><think>a\boxed{A}",
        r"<think>a\boxed{A}",
        r"sure! <think>a</think>\boxed{A}",
        r"\boxed{A}",
        "B",
        "",
    ],
)
def test_a_completion_without_exactly_one_box_after_its_thinking_earns_nothing(completion):
    assert extract_answer(completion) is None


def test_the_score_is_accuracy_and_format_in_the_stated_proportion():
    right, half, wrong = (verdict("x", value, format_weight=0.1) for value in (1.0, 0.5, 0.0))
    assert (right.score, right.acc) == (1.0, 1.0)
    assert (half.score, half.acc) == (pytest.approx(0.55), 0.0)
    assert (wrong.score, wrong.acc, wrong.format) == (pytest.approx(0.1), 0.0, 1.0)
    assert verdict(None, 1.0, format_weight=0.1) == Verdict(score=0.0, acc=0.0, format=0.0, pred="")


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "B)",
        r"\text{B}",
        "$B$",
        "**B**",
        " b ",
        "[B]",
        r"\mathbf{(B).}",
        r"\mathbf{\text{B}}",
        r"\(B\)",
    ],
)
def test_decoration_of_a_letter_is_forgiven(answer):
    assert match_choice(answer, "B") == 1.0


@pytest.mark.parametrize("answer", ["A", "A B", "A, B", "AB", "A or B", "BB", "not B", "B or not B", "ABCD", ")B("])
def test_a_set_of_letters_is_not_an_answer(answer):
    assert match_choice(answer, "B") == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "2-1-3",
        "2, 1, 3",
        "2 1 3",
        "2,1,3",
        "(2-1-3)",
        "2 > 1 > 3",
        "2 - 1 - 3.",
        "2−1−3",
        "2–1–3",
        r"\{2,1,3\}",
        r"2,\ 1,\ 3",
        r"2 \rightarrow 1 \to 3",
        r"\text{2-1-3}",
    ],
)
def test_separators_of_a_sequence_are_forgiven(answer):
    assert match_sequence(answer, "2-1-3") == 1.0


@pytest.mark.parametrize(
    "answer", ["1-2-3", "213", "2-1", "2-1-3-3", "2-1-3 or 3-1-2", "2--1-3", "-2-1-3", "two one three", "٢-١-٣"]
)
def test_another_sequence_is_wrong(answer):
    assert match_sequence(answer, "2-1-3") == 0.0


def test_words_match_up_to_case_and_white_space():
    assert match_text(" 3-Vertical ", "3-vertical") == 1.0
    assert match_text("3-horizontal", "3-vertical") == 0.0


def test_share_in_place_counts_only_permutations():
    assert share_in_place("2-1-3", "2-1-3") == 1.0
    assert share_in_place("1-2-3", "2-1-3") == pytest.approx(1 / 3)
    assert share_in_place("2-2-2", "2-1-3") == 0.0
    assert share_in_place("2-1", "2-1-3") == 0.0


def test_permutations_list_every_order_once():
    assert len(set(permutations(4))) == 24
    assert set(permutations(3)) - set(permutations(3, without_identity=True)) == {"1-2-3"}


@given(st.text(), st.sampled_from(["B", "2-1-3", "3-vertical"]))
def test_scorers_take_any_text(answer, truth):
    for score in (match_choice, match_sequence, match_text, share_in_place):
        assert 0.0 <= score(answer, truth) <= 1.0


@given(st.text(alphabet="<think>/\\boxed{}AB ", max_size=80))
def test_extraction_takes_any_text_and_never_returns_a_blank(completion):
    answer = extract_answer(completion)
    assert answer is None or answer.strip() == answer != ""


def test_a_megabyte_of_braces_or_of_separators_is_not_parsed():
    assert extract_answer(r"<think>a</think>\boxed{" + "{" * 1_000_000) is None
    assert parse_sequence("1-" * 500_000) is None
    assert match_choice("(" * 500_000 + "B" + ")" * 500_000, "B") == 0.0
