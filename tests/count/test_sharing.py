"""Two worker processes on this machine's loopback, of which one is killed: the same tables."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from plain_smears import tables

from wbc_helpers.count import detector, smears
from wbc_helpers.count.smears import count_folder
from wbc_helpers.data.catalog import find_photographs
from wbc_helpers.runs.backend import Workers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(sample_folder, tmp_path):
    """Forty photographs of drawn smears, each some of the same under another name, and none."""
    folder = tmp_path / "smears"
    folder.mkdir()
    photographs = find_photographs(sample_folder)
    for number in range(40):
        shutil.copy(photographs[number % len(photographs)], folder / f"{number:02}.jpg")
    (folder / "11.jpg").write_bytes(b"overwritten by mistake")
    return folder


@contextmanager
def two_workers():
    """A scheduler on the loopback, and the processes of its two workers."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tcp://127.0.0.1:")
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny",
                   "--nthreads", "1", "--no-dashboard"]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen(command, env=environment) for _ in range(2)]
        try:
            yield address, workers
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_piece_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(smears, "_PIECE", 4)
    reader = detector.load_reader(1)
    alone, together = tmp_path / "alone", tmp_path / "together"
    count_folder(folder, alone, reader, progress=False)

    with two_workers() as (address, workers):

        def kill_half_way():
            journal = together / "counted.jsonl"
            while workers[0].poll() is None:
                if journal.is_file() and journal.read_bytes().count(b"\n") >= 16:
                    os.kill(workers[0].pid, signal.SIGKILL)
                time.sleep(0.02)

        threading.Thread(target=kill_half_way, daemon=True).start()
        counted = count_folder(
            folder, together, reader, progress=False, workers=Workers(scheduler=address)
        )
        assert workers[0].poll() == -signal.SIGKILL and workers[1].poll() is None
    assert len(counted.counts) == 39 and [name for name, _ in counted.failures] == ["11.jpg"]
    assert tables(together) == tables(alone)
    # Every photograph was counted once, also those whose worker died.
    assert (together / "counted.jsonl").read_bytes().count(b"\n") == 39


@pytest.mark.slow
def test_workers_of_this_machine_are_started_and_ended(folder, tmp_path):
    reader = detector.load_reader(1)
    count_folder(folder, tmp_path / "alone", reader, red_cell=60, progress=False)
    count_folder(
        folder, tmp_path / "together", reader, red_cell=60, progress=False, workers=Workers(n=2)
    )
    assert tables(tmp_path / "together") == tables(tmp_path / "alone")
