"""Judging: which run is opened, and what its answers come to, by the network that ships."""

import json

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.classify import judging
from wbc_helpers.data.identity import bring
from wbc_helpers.errors import DataNotFound, RunNotFound
from wbc_helpers.evaluate import classification
from wbc_helpers.runs import folders


@pytest.fixture(scope="module")
def data(sample_folder):
    return bring(sample_folder, "unused")


@pytest.fixture(scope="module")
def judged(data, tmp_path_factory):
    """The network that ships, asked about drawn cells; it stands in where no run is finished."""
    folder = tmp_path_factory.mktemp("judged")
    run = judging.open_run("latest", data, folder / "runs")
    return judging.judge(run, data, folder / "data")


def test_where_nothing_was_trained_the_network_that_ships_is_judged_and_it_says_so(data, tmp_path):
    run = judging.open_run("latest", data, tmp_path)
    assert "the network that ships with this project" in run._repr_markdown_()
    assert run.name.startswith("shipped-") and run.is_complete and not run.was_trained
    assert len(run.history) == 0 and set(run.split) == {"train", "validation"}
    assert judging.open_run("shipped", data, tmp_path) == run
    # It is no training of the user's.
    with pytest.raises(RunNotFound, match="no finished run"):
        folders.open_run("latest", tmp_path)


def test_runs_that_are_not_there_are_refused_before_any_work(judged, tmp_path):
    judging.check("latest", "", tmp_path)
    with pytest.raises(RunNotFound, match="no run 'mine'"):
        judging.check("mine", "", tmp_path)
    with pytest.raises(DataNotFound, match=r"no predictions\.csv"):
        judging.check("latest", judged.run.name, judged.run.folder.parent)


def test_every_official_split_has_scores_and_intervals(judged, data):
    assert list(judged.tested) == ["TEST", "TEST_SIMPLE"]
    scores = judged.scores()
    counts = data.counts.sum(axis="columns")
    assert scores.loc["n_images"].to_dict() == counts[["TEST", "TEST_SIMPLE"]].to_dict()
    for split, table in judged.intervals.items():
        assert table["value"]["accuracy"] == scores[split]["accuracy"]
    assert judged.by_photograph()["photographs"]["n_images"] == judged.photographs().nunique()


def test_the_occlusion_test_says_of_how_many_images_of_each_type(judged):
    table = judged.occluded_by_type()
    assert table.index.tolist() == list(cells.NAMES)
    assert table["images"].to_dict() == judged.images["TEST"]["cell_type"].value_counts().to_dict()
    assert (table["tested"] <= table["images"]).all() and (table["tested"] > 0).all()
    assert table["tested"].sum() == judged.occluded["image"].nunique()
    assert table[list(judging.CONDITIONS)].stack().between(0, 1).all()


def test_where_it_looks_shows_right_answers_then_wrong_ones(judged):
    pixels, heat, answers, masks = judged.looks(n_each=3)
    right = answers.cell_type == answers.predicted
    assert right.tolist() == sorted(right, reverse=True) and right.sum() == 3
    assert len(pixels) == len(heat) == len(masks) == len(answers) == 6


def test_what_was_judged_can_be_compared_later(judged, tmp_path):
    named, table = judged.calibrate()
    assert list(table) == ["before", "after"] and len(named) == 2
    evaluation = json.loads(judged.write().read_text())
    assert evaluation["validation"]["accuracy"] is None and evaluation["epochs"] == 0
    assert evaluation["test"]["accuracy"] == judged.test.accuracy
    predictions = classification.read_predictions(judged.run.folder)
    assert (predictions["split"] == "TEST").sum() == judged.test.n_images
    compared, words = judging.compare(judged.run.name, judged, judged.run.folder.parent)
    assert np.allclose(compared["difference"].astype(float), 0) and len(words) == 3


def test_a_threshold_chosen_on_validation_is_applied_to_test(judged):
    curves, chosen, table = judged.abstain(0.4)
    assert list(curves)[1] == "TEST" and chosen.wanted_error == 0.4
    assert isinstance(table, pd.DataFrame) and table["n_images"]["all"] == judged.test.n_images
