"""How ``ssrl train`` ends a run: signals, time limits, locks and processes, with programs in the place of verl."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

import psutil

from ssrl_core.errors import RecipeError
from ssrl_core.verl.checks import folder_of
from ssrl_core.verl.launch import Launch, run
from ssrl_core.verl.stopping import CHECKPOINTED, REQUEST

RUN = """
import json, sys
from pathlib import Path
from ssrl_core.verl.launch import Launch, run
folder, program, trainer = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
config = {"trainer": {"total_training_steps": 9, "resume_mode": "auto", **trainer}}
launch = Launch((sys.executable, "-c", program, str(folder)), {}, config, folder.parent / "mix.yaml", {}, folder)
finished = run(launch, on_step=lambda step, metrics: None)
print(finished.stopped)
sys.exit(finished.code)
"""
PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def note(name, text=""):
    (folder / "new").write_text(text)
    (folder / "new").rename(folder / name)
def wait_for(name):
    while not (folder / name).exists(): time.sleep(0.02)
def checkpoint(step):
    (folder / f"global_step_{step}").mkdir()
    note("latest_checkpointed_iteration.txt", str(step))
def train(step):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": %d, "data": {"training/global_step": %d}}\\n' % (step, step))
"""
ORPHAN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
FAMILY = f"""
deaf = {ORPHAN!r}
child = 'import subprocess, sys; p = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, '
child += 'stdout=subprocess.PIPE, stderr=subprocess.DEVNULL); p.stdout.readline(); print(p.pid, flush=True)'
orphan = subprocess.run([sys.executable, "-c", child, deaf], capture_output=True, text=True).stdout
note("pids", f"{{os.getpid()}} {{orphan}}")
time.sleep(600)
"""


@pytest.fixture
def started(tmp_path):
    """A function that starts ``run`` on a program in a process of its own. Returns the process."""
    (tmp_path / "mix.yaml").write_text("size: 64\ntasks: {}\n")
    (tmp_path / "run").mkdir()
    processes = []

    def start(program, **trainer):
        settings = {"save_on_signal": None, "time_limit": None} | trainer
        command = [sys.executable, "-c", RUN, str(tmp_path / "run"), PROGRAM + program, json.dumps(settings)]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_all_signals
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
    for pid in (tmp_path / "run" / "pids").read_text().split() if (tmp_path / "run" / "pids").exists() else ():
        if psutil.pid_exists(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


def heed_all_signals():
    """Undo what this process may have inherited: a job in the background of a script ignores SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_process_not_even_one_that_ignores_it_and_lost_its_parent(started, tmp_path, number):
    process = started(FAMILY)
    wait_for(tmp_path / "run" / "pids", process)
    pids = list(map(int, (tmp_path / "run" / "pids").read_text().split()))
    assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert out == f"{number.name}: ended before a step, without a checkpoint. The same command starts again\n"
    assert not any(map(psutil.pid_exists, pids))
    with folder_of(tmp_path / "run").locked():
        pass


def test_the_processes_of_a_run_that_ended_by_itself_are_ended_too(started, tmp_path):
    process = started(FAMILY.replace("time.sleep(600)\n", "sys.exit(3)"))
    process.communicate(timeout=120)
    assert process.returncode == 3
    assert not any(psutil.pid_exists(int(pid)) for pid in (tmp_path / "run" / "pids").read_text().split())


def test_a_checkpoint_is_written_first_if_asked_for(started, tmp_path):
    process = started(
        "checkpoint(2); train(3); note('ready'); wait_for('.stop'); checkpoint(4); train(4)", save_on_signal=99
    )
    wait_for(tmp_path / "run" / "ready", process)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "SIGTERM: the run ends after this step, with a checkpoint, or in 99 s" in err
    assert out == "SIGTERM: ended after step 4. The last checkpoint is of step 4; the same command continues from it\n"


@pytest.mark.parametrize("signals", [1, 2])
def test_the_checkpoint_has_its_seconds_and_a_second_signal_does_not_wait_for_it(started, tmp_path, signals):
    seconds = 0.1 if signals == 1 else 999
    process = started("checkpoint(2); train(3); note('ready'); time.sleep(600)", save_on_signal=seconds)
    wait_for(tmp_path / "run" / "ready", process)
    for _ in range(signals):
        process.terminate()
        wait_for(tmp_path / "run" / REQUEST, process)
    out, _ = process.communicate(timeout=120)
    assert out == "SIGTERM: ended after step 3. The last checkpoint is of step 2; the same command continues from it\n"


def test_a_checkpoint_that_is_being_written_is_waited_for(started, tmp_path):
    writing = """
def end(*_):
    note("ended", str((folder / "latest_checkpointed_iteration.txt").exists()))
    os._exit(0)
signal.signal(signal.SIGTERM, end)
(folder / "global_step_1").mkdir()
(folder / "global_step_1" / "model.pt").touch()
note("ready")
wait_for("go")
note("latest_checkpointed_iteration.txt", "1")
time.sleep(600)
"""
    process = started(writing)
    wait_for(tmp_path / "run" / "ready", process)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):  # it could have ended in this time
        process.wait(timeout=2)
    (tmp_path / "run" / "go").touch()
    process.communicate(timeout=120)
    assert (tmp_path / "run" / "ended").read_text() == "True"


def test_a_time_limit_ends_a_run_in_time_for_its_checkpoint(started, tmp_path):
    # 10 s for the end of verl and 99.5 s for the checkpoint leave half a second for training
    process = started(
        "checkpoint(2); train(3); wait_for('.stop'); checkpoint(4); train(4)", time_limit=110, save_on_signal=99.5
    )
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 124
    assert out.startswith("trainer.time_limit: ended after step 4. The last checkpoint is of step 4")


def test_verl_ends_when_ssrl_is_killed_and_holds_the_lock_until_then(started, tmp_path):
    slow = "signal.signal(signal.SIGTERM, lambda *_: note('told'))\nnote('pids', str(os.getpid()))\nwait_for('go')"
    process = started(slow)
    wait_for(tmp_path / "run" / "pids", process)
    verl = psutil.Process(int((tmp_path / "run" / "pids").read_text()))
    process.kill()
    process.wait()
    wait_for_told = tmp_path / "run" / "told"
    while not wait_for_told.exists():
        assert verl.is_running()
        time.sleep(0.02)
    message = rf"process {process.pid}, with verl in process {verl.pid}, on \S+ is working on the training run in"
    with pytest.raises(RecipeError, match=message), folder_of(tmp_path / "run").locked():
        pass
    (tmp_path / "run" / "go").touch()
    verl.wait(timeout=60)
    with folder_of(tmp_path / "run").locked():
        pass


def test_a_lock_that_another_host_left_is_taken_with_a_warning(tmp_path, caplog):
    (tmp_path / ".lock").write_text("process 7 on elsewhere")
    with folder_of(tmp_path).locked():
        assert "process 7 on elsewhere was working on the training run" in caplog.text


def test_the_metrics_of_a_resumed_run_continue_in_one_file_and_those_of_another_run_are_kept(tmp_path):
    (tmp_path / "mix.yaml").write_text("size: 64\ntasks: {}\n")
    folder = tmp_path / "run"

    def steps(first, last, mode="auto"):
        trainer = {"total_training_steps": last, "resume_mode": mode, "save_on_signal": None, "time_limit": None}
        program = PROGRAM + f"for step in range({first}, {last} + 1): train(step)"
        argv = (sys.executable, "-c", program, str(folder))
        config = {"trainer": trainer, "actor_rollout_ref": {"rollout": {"name": "transformers"}}}
        run(Launch(argv, {}, config, tmp_path / "mix.yaml", {}, folder), on_step=lambda *_: None)
        return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    assert steps(1, 5) == [1, 2, 3, 4, 5]
    (folder / CHECKPOINTED).write_text("3")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "da')  # the process was killed here
    assert steps(4, 7) == [1, 2, 3, 4, 5, 6, 7]
    assert steps(1, 2, mode="disable") == [1, 2]
    assert len((folder / "metrics-2.jsonl").read_text().splitlines()) == 7
