"""Locks by the numbers of trials: one worker at a time, and free when that worker dies."""

import os
import signal
import subprocess
import sys

import filelock
import pytest

from prune_core import PruneError
from prune_schedule.store.trial_locks import locks_in_folder

HOLDER = """
import os, sys, time
from prune_schedule.store.trial_locks import locks_in_folder
locks = locks_in_folder(sys.argv[1], "study")
assert locks.take(1) and locks.take(2)
locks.release(2)
# Only the child of a worker that forks says so: by then it has let go of what it inherited.
if "forks" not in sys.argv or not os.fork():
    print("holding", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of trial 1."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_trial_is_locked_until_its_worker_dies(holder, tmp_path):
    locks = locks_in_folder(tmp_path, "study")
    assert not locks.take(1)
    assert locks.take(2)  # which the other worker has released
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    assert locks.take(1)
    locks.close()


@pytest.mark.skipif(int(filelock.__version__.split(".")[0]) < 4, reason="children share the lock")
def test_a_lock_is_free_though_the_worker_has_forked(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path), "forks"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert worker.stdout.readline() == "holding\n"
        worker.kill()
        worker.wait()
        locks = locks_in_folder(tmp_path, "study")
        assert locks.take(1)
        locks.close()
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.stdout.close()


def test_studies_in_one_folder_do_not_lock_each_other(holder, tmp_path):
    locks = locks_in_folder(tmp_path, "another study")
    assert locks.take(1)
    locks.close()


def test_two_searches_of_one_process_lock_each_other(tmp_path):
    first, second = (locks_in_folder(tmp_path / "made", "study") for _ in "ab")
    assert first.take(0)
    assert not second.take(0)
    assert not first.take(0)
    first.close()
    assert second.take(0)
    second.release(0)
    second.release(0)
    assert first.take(0)
    first.close()


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def acquire(self, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(PruneError, match="file system without locks.*storage="):
        locks_in_folder(tmp_path, "study").take(0)


def test_nothing_needs_what_only_unix_has():
    source = """
import sys
sys.modules["fcntl"] = None
import prune_schedule.store.trial_locks, prune_schedule.store.journal
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
