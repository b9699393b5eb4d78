import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssrl_core.errors import PluginFailed
from ssrl_core.plugins import load_task
from ssrl_core.plugins.timelimit import MOST_STUCK, TimeLimitExceeded, TooManyStuck, call_all_within, call_within


def fail():
    raise TimeoutError("the function's own")


def test_a_call_within_its_limit_gives_what_the_function_gives():
    assert call_within(60, lambda: 17, owner="quick") == 17
    with pytest.raises(TimeoutError, match="the function's own"):
        call_within(60, fail, owner="quick")


def test_calls_at_once_keep_their_results_apart():
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


def test_of_many_calls_only_those_that_do_not_come_back_are_lost():
    gate = threading.Event()

    def stick():
        gate.wait()

    functions = [lambda: 1, stick, lambda: 2, fail, stick, lambda: 3, stick, lambda: 4]
    outcomes = call_all_within(1, functions, owner="many, some stuck")
    assert [outcome.result for outcome in outcomes] == [1, None, 2, None, None, 3, None, None]
    errors = [type(outcome.error) for outcome in outcomes]
    exceeded, none = TimeLimitExceeded, type(None)
    assert errors == [none, exceeded, none, TimeoutError, exceeded, none, exceeded, TooManyStuck]
    gate.set()


def test_the_limit_is_that_of_each_call_and_not_of_all():
    calls = [lambda n=n: time.sleep(0.5) or n for n in range(5)]
    assert [outcome.result for outcome in call_all_within(2, calls, owner="slow but sound")] == list(range(5))


def test_a_process_that_was_stopped_longer_than_the_limit_has_not_exceeded_it():
    code = """
import time
from ssrl_core.timelimit import call_within
def work():
    print("in it", flush=True)
    time.sleep(0.5)
    return "back"
print(call_within(2, work, owner="stopped"))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in it\n"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate()[0] == "back\n"


def test_an_owner_whose_calls_are_stuck_is_not_called_again_until_one_comes_back():
    gate, calls = threading.Event(), []

    def stick():
        calls.append(1)
        gate.wait()

    for _ in range(MOST_STUCK):
        with pytest.raises(TimeLimitExceeded, match=r"has not come back within 0\.01 s"):
            call_within(0.01, stick, owner="stuck")
    with pytest.raises(TimeLimitExceeded, match="3 earlier calls have not come back"):
        call_within(60, stick, owner="stuck")
    assert len(calls) == MOST_STUCK
    assert call_within(60, lambda: "another", owner="other") == "another"
    gate.set()
    while True:
        try:
            assert call_within(60, lambda: "back", owner="stuck") == "back"
            break
        except TimeLimitExceeded:
            continue


def test_a_verifier_that_never_comes_back_costs_its_answers_and_no_others(install_toy):
    install_toy(("return float(answer == truth)", "import threading; threading.Event().wait()"), name="sleeper")
    install_toy(name="fine")
    stuck, fine = load_task("sleeper"), load_task("fine")
    for _ in range(MOST_STUCK):
        with pytest.raises(PluginFailed, match=r"ssrl-plugin-sleeper 0.1: ssrl_verify_answer has not come back within"):
            stuck.verify_answer("A", truth="A", params={}, limit=0.01)
    with pytest.raises(PluginFailed, match="is not called any more: 3 earlier calls have not come back"):
        stuck.verify_answer("A", truth="A", params={}, limit=60)
    assert fine.verify_answer("A", truth="A", params={}, limit=60) == 1.0
