"""The ablation's rows: each network that is trained for one can be asked, too; and its tables."""

import argparse

import ablation
import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.classify import networks, training
from wbc_helpers.evaluate import classification
from wbc_helpers.runs import answering
from wbc_helpers.runs.recipes import RECIPES


@pytest.mark.slow
@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_every_row_can_be_answered(name):
    with ablation.VARIANTS[name]():
        height, width = RECIPES["compact"].image_size
        network = networks.build("compact", (height, width), None)
        shown = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        told = answering.answer(network, shown, turned=RECIPES["compact"].turned)
    np.testing.assert_allclose(told.sum(axis=1), [1, 1], rtol=1e-5)


def test_a_row_changes_the_recipe_on_a_worker_too(monkeypatch):
    cloudpickle = pytest.importorskip("cloudpickle")
    # As if it were the script that runs, which workers cannot import.
    cloudpickle.register_pickle_by_value(ablation)
    try:
        sent = cloudpickle.loads(cloudpickle.dumps(ablation.measure))
    finally:
        cloudpickle.unregister_pickle_by_value(ablation)
    assert sent.__globals__ is not ablation.measure.__globals__
    with sent.__globals__["VARIANTS"]["crops of 48×48"]():
        assert RECIPES["compact"].image_size == (48, 48)
    with sent.__globals__["VARIANTS"]["averaged weights"]():
        assert training.compiled_model is not ablation.COMPILED


def measured(options, name, seed, wrong):
    """Make up a row: four photographs of each type, two images each, some photographs wrong."""
    catalog = pd.DataFrame(
        [
            {"file": f"{cell_type}-{number}-{image}", "split": "TRAIN", "cell_type": cell_type,
             "source_id": f"{cell_type}-{number}"}
            for cell_type in cells.NAMES for number in range(4) for image in range(2)
        ]
    )  # fmt: skip
    told = np.full((len(catalog), 4), 0.1)
    for row, (cell_type, source) in enumerate(
        zip(catalog["cell_type"], catalog["source_id"], strict=True)
    ):
        told[row, (cells.NAMES.index(cell_type) + (source in wrong)) % 4] = 0.7
    table = classification.tabulate(catalog, told)
    folder = ablation.folder_of(name, options, seed)
    folder.mkdir(parents=True)
    classification.write_predictions(folder, table)
    (folder / "fold-0").mkdir()
    (folder / "fold-0" / "history.csv").write_text("epoch,seconds\n0,2\n1,3\n")
    for what in ("elsewhere", *(["as-it-lies"] if name == ablation.AS_IT_IS else [])):
        table.assign(laboratory="pale stain").to_csv(ablation.beside(folder, what), index=False)


def test_tables_show_rows_beside_the_recipe_as_it_is(tmp_path):
    options = argparse.Namespace(runs_dir=tmp_path, seed=0)
    doubtful, other = f"{cells.NAMES[0]}-0", f"{cells.NAMES[1]}-1"
    measured(options, "as it is", 0, wrong={doubtful})
    measured(options, "as it is", 1, wrong={doubtful})
    measured(options, "crops of 48×48", 0, wrong={doubtful, other})
    measured(options, "crops of 48×48", 1, wrong={doubtful})
    assert ablation.of_several_seeds(options).splitlines()[2:] == [
        "| as it is | 2 | 93.8 (93.8 to 93.8) |  | 93.8 (93.8 to 93.8) | 93.8 (93.8 to 93.8) "
        "| 93.8 (93.8 to 93.8) | 93.8 | 93.8 |",
        # What one of two seeds gets wrong is a tie in their mean, won by the first of the types.
        "| crops of 48×48 | 2 | 90.6 (87.5 to 93.8) | -3.1 (-6.2 to +0.0) | 90.6 (87.5 to 93.8) "
        "| 90.6 (87.5 to 93.8) | 90.6 (87.5 to 93.8) | 93.8 | 93.8 |",
    ]
    lines = ablation.report(options).splitlines()
    assert lines[2] == "| as it is | 93.8 |  | 93.8 | 93.8 | 93.8 (pale stain) | 5 |"
    assert "| crops of 48×48 | 87.5 | -6.2 (" in lines[4]
    assert lines[-1] == "Of 16 photographs, 1 are wrong in each of these rows, 14 in none."


def test_a_row_without_another_to_compare_with_stands_alone(tmp_path):
    options = argparse.Namespace(runs_dir=tmp_path, seed=0)
    measured(options, "crops of 48×48", 0, wrong=set())
    assert ablation.of_several_seeds(options) == ""
    assert ablation.report(options).splitlines()[2:] == [
        "| crops of 48×48 | 100.0 |  | 100.0 | 100.0 | 100.0 (pale stain) | 5 |"
    ]
