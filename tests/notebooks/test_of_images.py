"""Notebooks of the images of cells run by themselves."""

import pytest
from run_notebooks import check_that_it_runs


@pytest.mark.parametrize(
    "name",
    [
        "01_download",
        pytest.param("02_explore", marks=pytest.mark.slow),
        pytest.param("03_train", marks=pytest.mark.slow),
        pytest.param("04_evaluate", marks=pytest.mark.slow),
        pytest.param("05_audit", marks=pytest.mark.slow),
    ],
)
def test_it_runs_by_itself_on_the_sample(name, sample_folder, tmp_path):
    check_that_it_runs(name, sample_folder, tmp_path)
