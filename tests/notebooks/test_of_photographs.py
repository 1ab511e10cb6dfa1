"""Notebooks of photographs, and of cells from several laboratories, run by themselves."""

import pytest
from run_notebooks import check_that_it_runs


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("00_your_slide", marks=pytest.mark.slow),
        pytest.param("06_count", marks=pytest.mark.slow),
        pytest.param("07_laboratories", marks=pytest.mark.slow),
    ],
)
def test_it_runs_by_itself_on_the_sample(name, sample_folder, tmp_path):
    check_that_it_runs(name, sample_folder, tmp_path)
