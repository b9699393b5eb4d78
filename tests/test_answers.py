import re

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
    split_answer,
    verdict,
)
from ssrl_core.form import form_fault
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


DIRECT, EMPTY, THOUGHT = r"It is \boxed{B}.", "<think>\n\n</think>\n\n\\boxed{B}", r"<think>a</think>\boxed{B}"


def test_a_completion_must_think_may_think_or_must_answer_directly():
    modes = ("required", "optional", "none")
    earns = {text: [extract_answer(text, thinking=mode) for mode in modes] for text in (DIRECT, EMPTY, THOUGHT)}
    assert earns == {DIRECT: [None, "B", "B"], EMPTY: [None, "B", "B"], THOUGHT: ["B", "B", None]}


@pytest.mark.parametrize("thinking", ["required", "optional", "none"])
@pytest.mark.parametrize(
    ("completion", "fault"),
    [
        ("", "empty"),
        (r"<think>a \boxed{B}", "no </think>"),
        (r"a</think>\boxed{B}", "no <think>"),
        (r"</think>\boxed{B}", "no <think>"),
        (r"sure! <think>a</think>\boxed{B}", "does not begin"),
        (r"<think>a</think><think>b</think>\boxed{B}", "more than one <think>"),
        (r"\boxed{A} or \boxed{B}", ""),
        (r"\boxed{}", ""),
        (r"\boxed{B", ""),
        ("B", ""),
    ],
)
def test_no_mode_rewards_a_completion_without_its_form_and_the_fault_is_named(completion, fault, thinking):
    assert extract_answer(completion, thinking=thinking) is None
    assert fault in form_fault(completion, thinking=thinking) != ""


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
        r"$$\boldsymbol{B}$$",
        r"\textrm{B}",
        r"{\bf B}",
        r"\left( B \right)",
        r"\textcolor{red}{B}",
        "Ｂ",
        "（B）",
        "【B】",
        "「B」",
        "“B”",
        "𝐁",
        "Ⓑ",
        "\u200bB",
        "__B__",
        "B。",
        "B!",
        "Option B",
        "The answer is B",
    ],
)
def test_decoration_of_a_letter_is_forgiven(answer):
    assert match_choice(answer, "B") == 1.0


@pytest.mark.parametrize(
    "answer", ["B. right", "B: right", "(B) right", "B) to the right", r"\text{B. right}", "Ｂ：right"]
)
def test_a_letter_may_be_followed_by_the_text_of_its_option(answer):
    assert match_choice(answer, "B") == 1.0
    assert match_choice(answer, "B", options=["left", "to the right" if "to" in answer else "right"]) == 1.0
    assert match_choice(answer, "A") == match_choice(answer, "B", options=["right", "left"]) == 0.0


@pytest.mark.parametrize("answer", ["B, right", "B right", "B - Right", "B → right", "B"])
def test_the_text_of_an_option_that_is_known_may_follow_in_any_way(answer):
    assert match_choice(answer, "B", options=["left", "right"]) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        "A B",
        "A, B",
        "AB",
        "A or B",
        "BB",
        "not B",
        "B or not B",
        "ABCD",
        ")B(",
        "B/C",
        "B & C",
        "B. C",
        "B: C",
        "B. or C",
        "B. right or left",
        "B. not right",
        "B. right, A. left",
        "A. left B. right C. back D. front",
        "B: maybe",
        "B?",
        "b right",
        "a bear",
        "B^C",
        r"\neg{B}",
        r"\cancel{B}",
        r"\overline{B}",
        "right",
        "Β",  # a Greek letter
    ],
)
def test_a_set_of_letters_is_not_an_answer(answer):
    assert match_choice(answer, "B") == 0.0
    assert match_choice(answer, "B", options=["left", "front", "back", "right"]) == 0.0


def test_the_text_of_an_option_keeps_its_sign_and_not_its_hyphen():
    assert match_choice("B. Front right", "B", options=["back", "front-right"]) == 1.0
    assert match_choice("B. -1", "B", options=["1", "-1"]) == match_choice("B - 1", "B", options=["-1", "1"]) == 1.0
    assert match_choice("B. 1", "B", options=["1", "-1"]) == match_choice("B. -1", "B", options=["-1", "1"]) == 0.0


def test_an_article_is_not_the_letter_a():
    assert match_choice("a red one", "A") == 0.0
    assert match_choice("A. a red one", "A", options=["a red one", "a blue one"]) == 1.0
    assert match_choice("E", "E", options=["only one"]) == 1.0
    assert match_choice("E. only one", "E", options=["only one"]) == 0.0


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
        "2->1->3",
        "2 --> 1 --> 3",
        "2 => 1 => 3",
        "2 ⇒ 1 ➜ 3",
        r"2 \Rightarrow 1 \longrightarrow 3",
        r"$2$ → $1$ → $3$",
        r"2\text{-}1\text{-}3",
        r"\left(2,1,3\right)",
        r"\textrm{2-1-3}",
        "2，1，3",
        "2、1、3",
        "２-１-３",
        "２ → １ → ３",
        "② ① ③",
        "(2)-(1)-(3)",
        "[2], [1], [3]",
        "**2**-**1**-**3**",
        "2, 1, and 3",
        "2, then 1, then 3",
        "2; 1; 3;",
        "2:1:3",
        "2 · 1 · 3",
    ],
)
def test_separators_of_a_sequence_are_forgiven(answer):
    assert match_sequence(answer, "2-1-3") == 1.0


@pytest.mark.parametrize(
    "answer", ["1-2-3", "213", "2-1", "2-1-3-3", "2-1-3 or 3-1-2", "2--1-3", "-2-1-3", "two one three", "٢-١-٣",
     "2-1-3, 3-1-2", "2-1-3 and 3-1-2", "2 ← 1 ← 3", "2/1/3", "2.1.3", "1:2, 2:1, 3:3", "not 2-1-3", "2-1-3?", "2-1-x",
     "2-1-3-", "2^1^3", r"\frac{2}{1}-3", "2 or 1 or 3"]
)  # fmt: skip
def test_another_sequence_is_wrong(answer):
    assert match_sequence(answer, "2-1-3") == 0.0


@pytest.mark.parametrize(
    "answer", ["3-vertical", "3, Vertical", "3; vertical", "3 → vertical", "(3) vertical", "３：vertical"]
)
def test_the_parts_of_an_answer_are_found_between_any_separators(answer):
    assert split_answer(answer) == ["3", "vertical"]


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


PIECES = [
    "<think>",
    "</think>",
    "\\boxed{",
    "}",
    "{",
    "A",
    "B",
    " ",
    "\n",
    "2-1-3",
    "\\text{",
    "$",
    "I look.",
    "，",
    "→",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join))
def test_every_mode_gives_an_answer_or_names_a_fault(completion):
    found = {mode: extract_answer(completion, thinking=mode) for mode in ("required", "optional", "none")}
    for mode, answer in found.items():
        assert (answer is None) == bool(form_fault(completion, thinking=mode))
        assert answer is None or answer.strip() == answer != ""
    assert found["optional"] == (found["required"] or found["none"])  # it takes whatever one of the others takes
    assert not (found["required"] and found["none"])


SPELLINGS = st.sampled_from(
    ["{}", "({})", "{}.", " {} ", "**{}**", "${}$", r"\text{{{}}}", r"\mathbf{{{}}}", r"\left({}\right)", "“{}”",
     "[{}]", "({}).", r"\({}\)", "{{\\bf {}}}", "\u200b{}"]
)  # fmt: skip


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.lists(SPELLINGS, max_size=4))
def test_a_letter_in_any_decorations_is_right_if_and_only_if_it_is_the_truth(letter, truth, spellings):
    answer = letter
    for spelling in spellings:
        answer = spelling.format(answer)
    assert match_choice(answer, truth) == match_choice(answer, truth, options=["w", "x", "y", "z"]) == (letter == truth)


@given(
    st.permutations(["1", "2", "3", "4"]),
    st.permutations(["1", "2", "3", "4"]),
    st.sampled_from([", ", "->", " → ", "、", "，", " > ", "-", r" \to ", " - ", "; ", " => "]),
    st.lists(SPELLINGS, max_size=3),
    st.booleans(),
)
def test_an_order_in_any_spelling_is_right_if_and_only_if_it_is_the_truth(order, truth, joint, spellings, wide):
    answer = joint.join(chr(ord(number) + 0xFEE0) if wide else number for number in order)
    for spelling in spellings:
        answer = spelling.format(answer)
    assert match_sequence(answer, "-".join(truth)) == (order == truth)


@given(st.sampled_from("ABCD"), st.text(alphabet="ABCD abcdor,.:;/()&|not-", max_size=12))
def test_an_answer_that_names_two_letters_or_hedges_is_never_right(truth, answer):
    letters = {letter for letter in re.findall(r"(?<![a-z])[a-d](?![a-z])", answer.casefold())}
    if len(letters) > 1 or re.search(r"\b(?:or|not)\b", answer.casefold()):
        assert match_choice(answer, truth) == 0.0


def test_a_long_remark_is_read_in_linear_time():
    for remark in ("aa" * 120, "aa " * 80 + "!", "a-" * 120, "(" * 250):
        assert match_choice("B. " + remark, "B") in (0.0, 1.0)
