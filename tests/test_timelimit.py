"""Calls with a time limit: in threads, and verifiers in a subprocess that is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssrl_core.plugins import load_task
from ssrl_core.plugins.isolated import REFUSED
from ssrl_core.plugins.timelimit import MOST_STUCK, TimeLimitExceeded, TooManyStuck, call_all_within, call_within

# ---- threads ----


def fail():
    raise TimeoutError("the function's own")


def test_a_call_within_its_limit_gives_what_the_function_gives():
    assert call_within(60, lambda: 17, owner="quick") == 17
    with pytest.raises(TimeoutError, match="the function's own"):
        call_within(60, fail, owner="quick")


def test_concurrent_calls_keep_their_results_apart():
    barrier, results = threading.Barrier(8), [None] * 8

    def ask(k):
        barrier.wait()
        results[k] = [call_within(60, lambda n=n: (k, n), owner="many") for n in range(50)]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[(k, n) for n in range(50)] for k in range(8)]


def test_the_outcomes_of_a_batch_end_with_the_first_call_that_exceeds_the_limit():
    gate, called = threading.Event(), []
    outcomes, exceeded = call_all_within(3, [lambda: 1, fail, gate.wait, lambda: called.append(1)], owner="batch")
    gate.set()
    assert exceeded and not called
    assert [outcome.result for outcome in outcomes] == [1, None, None]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), TimeoutError, TimeLimitExceeded]


def test_the_limit_applies_to_each_call_and_not_to_the_batch():
    """Each call takes an eighth of the limit, all of them more than the limit."""
    outcomes, exceeded = call_all_within(4, [lambda n=n: time.sleep(0.5) or n for n in range(9)], owner="slow")
    assert [outcome.result for outcome in outcomes] == list(range(9)) and not exceeded


def test_a_process_that_was_stopped_longer_than_the_limit_has_not_exceeded_it():
    code = """
import sys
from ssrl_core.plugins.timelimit import call_within
def work():
    print("in it", flush=True)
    return sys.stdin.readline()
print(call_within(5, work, owner="stopped"))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in it\n"
    process.send_signal(signal.SIGSTOP)
    process.stdin.write("back")
    time.sleep(6)
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0] == "back\n"


def test_an_owner_whose_calls_are_stuck_is_not_called_again_until_one_comes_back():
    gate, calls = threading.Event(), []

    def stick():
        calls.append(1)
        gate.wait()

    while len(calls) < MOST_STUCK:  # a thread that starts too late does not call the function
        with pytest.raises(TimeLimitExceeded, match=r"did not return within 0\.1 s|earlier calls"):
            call_within(0.1, stick, owner="stuck")
    with pytest.raises(TooManyStuck, match="3 earlier calls have not returned"):
        call_within(60, stick, owner="stuck")
    assert call_within(60, lambda: "another", owner="other") == "another"
    gate.set()
    while True:
        try:
            assert call_within(60, lambda: "back", owner="stuck") == "back"
            break
        except TooManyStuck:
            continue
    assert len(calls) == MOST_STUCK


# ---- verifiers in a subprocess ----

VERIFIER = "return float(answer == truth)"
ENDLESS = "A" * 60 + "!"  # would take 2**60 steps


@pytest.fixture
def task(install_toy):
    """A function that loads a task whose verifier first runs other code."""

    def load(code, *, name="toy", **settings):
        install_toy(("(answer, truth)", "(answer, truth, params)"), (VERIFIER, f"{code}\n    {VERIFIER}"), name=name)
        return load_task(name, **settings)

    return load


def score(task, *answers, limit=0.5):
    return task.verify_answers([(answer, "A", {}) for answer in answers], limit=limit)


def test_after_a_regular_expression_exceeded_the_limit_in_a_thread_the_next_one_is_killed(task):
    toy = task("import re; re.match('(A|A)*$', answer)")
    length = 10
    while not toy.verifier.needed:  # the first overrun takes as long as it takes, here less than two seconds
        length += 1
        (first,) = score(toy, "A" * length + "!")
    assert first == 0.0 or "did not return within 0.5 s" in str(first)
    killed, right = score(toy, ENDLESS, "A", limit=5)
    assert "ssrl_verify_answer did not return within 5 s and was killed, on answer 'AAA" in str(killed)
    assert right == 1.0


def test_the_rest_of_a_batch_is_scored_in_a_subprocess(task):
    toy = task("import threading; answer == 'never' and threading.Event().wait()")
    first, right, wrong, second, again = score(toy, "never", "A", "B", "never", "A", limit=2)
    assert "did not return within 2 s, on answer 'never'" in str(first)
    assert "did not return within 2 s and was killed, on answer 'never'" in str(second)
    assert (right, wrong, again) == (1.0, 0.0, 1.0)


@pytest.fixture
def isolated(task):
    """As ``task``; the verifier runs in a subprocess from the first answer."""

    def load(*arguments, **settings):
        loaded = task(*arguments, **settings)
        loaded.verifier.needed = True
        return loaded

    return load


@pytest.mark.parametrize("answer", ["\ud800", "a\nb\r\u2028\x00\x1b", "\\boxed{\U0001f600}", '"'])
def test_any_text_reaches_a_verifier_in_a_subprocess_unchanged(isolated, answer):
    toy = isolated("return float(answer == params['answer'])")
    assert toy.verify_answers([(answer, "A", {"answer": answer})], limit=60) == [1.0]


def test_a_verifier_in_a_subprocess_runs_in_its_wrappers_and_may_print(isolated, install):
    code = "from ssrl_core import hookimpl\n@hookimpl(wrapper=True)\ndef ssrl_verify_answer():\n    return (yield) / 2"
    install("ssrl-plugin-half", code=code, entry_points={"ssrl.wrappers": {"half": "ssrl_plugin_half"}})
    toy = isolated("print('{\"score\": 0}', flush=True)", wrappers=("half",))
    assert score(toy, "A", limit=60) == [0.5]


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("1 / 0", "'toy' of ssrl-plugin-toy 0.1: ssrl_verify_answer raised ZeroDivisionError"),
        ("return 7", "ssrl_verify_answer returned 7, not a number in"),
        ("import os; answer == 'B' and os._exit(3)", "ended its process with exit code 3, on answer 'B'"),
    ],
)
def test_a_verifier_that_fails_in_a_subprocess_is_explained_and_called_again(isolated, code, complaint):
    toy = isolated(code)
    first, second = score(toy, "B", "B", limit=60)
    assert complaint in str(first) and str(second) == str(first)
    if "exit" in code:
        assert score(toy, "A", limit=60) == [1.0]
    else:
        assert "Traceback" in first.__notes__[0]


def test_a_subprocess_that_was_killed_is_started_again(isolated, tmp_path):
    toy = isolated("import os; open(params['file'], 'w').write(str(os.getpid()))")
    case = "A", "A", {"file": str(tmp_path / "pid")}
    assert toy.verify_answers([case, case], limit=60) == [1.0, 1.0]
    first = int((tmp_path / "pid").read_text())
    assert first != os.getpid()
    os.kill(first, signal.SIGKILL)
    (lost,) = toy.verify_answers([case], limit=60)
    assert lost == 1.0 or "ended its process with exit code -9" in str(lost)  # the signal may come before the answer
    assert toy.verify_answers([case], limit=60) == [1.0]
    assert int((tmp_path / "pid").read_text()) != first


def test_a_forked_daemon_process_has_a_subprocess_of_its_own(isolated):
    toy = isolated("pass")
    assert score(toy, "A", limit=60) == [1.0]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(score(toy, "A", "B", limit=60)), daemon=True)
    process.start()
    assert queue.get() == [1.0, 0.0]
    process.join()
    assert score(toy, "A", limit=60) == [1.0]


@pytest.mark.parametrize("state", ["idle", "waiting", "in a regular expression"])
def test_a_subprocess_ends_with_its_parent_also_after_sigkill(isolated, state):
    """The subprocess holds the standard error of its parent open as long as it lives."""
    isolated("""print('called', flush=True)
    if answer == 'waiting': import threading; threading.Event().wait()
    if answer == 'in a regular expression': import re; re.match('(A|A)*$', truth)""")
    code = """
import sys
from ssrl_core.plugins import load_task
toy = load_task("toy")
toy.verifier.needed = True
toy.verify_answers([(sys.argv[1], sys.argv[2], {})], limit=3)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, state, ENDLESS],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stderr.readline() == "called\n"
    parent.kill()
    parent.communicate()  # returns when the standard error is closed


def test_a_verifier_that_never_comes_back_costs_its_answers_and_no_others(task, install_toy):
    install_toy(name="fine")
    stuck, fine = task("import threading; threading.Event().wait()"), load_task("fine")
    results = score(stuck, *["A"] * (1 + MOST_STUCK + REFUSED + 1), limit=0.05)
    assert "toy' of ssrl-plugin-toy 0.1: ssrl_verify_answer did not return within" in str(results[0])
    assert ["was killed" in str(result) for result in results[1 : 2 + MOST_STUCK]] == [True] * MOST_STUCK + [False]
    assert "is not called for now: the last 3 calls have not returned" in str(results[1 + MOST_STUCK])
    assert "was killed" in str(results[-1])  # tried again
    assert fine.verify_answer("A", truth="A", params={}, limit=60) == 1.0
