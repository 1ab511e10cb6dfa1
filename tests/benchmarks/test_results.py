"""The table of results: what a newcomer's own runs may and may not replace."""

import pandas as pd
import pytest
import results
from results import spread


def test_spread_is_a_mean_with_its_range():
    assert spread([0.5]) == "50.0"
    assert spread(pd.Series([0.5, 0.7])) == "60.0 (50.0–70.0)"
    assert spread([-0.01, 0.02], "+.1f", " to ") == "+0.5 (-1.0 to +2.0)"


@pytest.mark.parametrize("replace", [False, True])
def test_the_figure_of_docs_is_replaced_only_when_told(replace, tmp_path, monkeypatch, capsys):
    folders = {False: tmp_path / "runs", True: tmp_path / "docs"}
    for folder in folders.values():
        folder.mkdir()
    row = dict.fromkeys(("validation_fraction", "batch_size", "learning_rate", "epochs", "seed"), 1)
    row |= dict.fromkeys(("validation", "accuracy", "balanced", "low", "high", "photographs"), 0.5)
    row |= {"recipe": "compact", "split": "grouped", "size": "64×64", "minutes": 1.0}
    row |= {"n": 2487, "n_photographs": 71, "parameters": 80_340}
    monkeypatch.setattr(results, "DOCS", folders[True])
    monkeypatch.setattr(results, "collect", lambda runs_dir: pd.DataFrame([row]))
    results.main(["--runs-dir", str(folders[False]), *["--replace"] * replace])
    assert (folders[replace] / "results.svg").is_file()
    assert list(folders[not replace].iterdir()) == []
    assert "n = 2,487 TEST images of 71 photographs." in capsys.readouterr().out
