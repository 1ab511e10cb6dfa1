import errno
import os

import pytest

from wbc_helpers import storage
from wbc_helpers.errors import NoSpaceLeft, ReadOnlyFolder


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "history.csv"
    storage.write_text(target, "old")
    with pytest.raises(RuntimeError), storage.atomic_file(target) as partial:
        partial.write_text("half of the ne")
        raise RuntimeError("cut off")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_temporary_names_keep_the_suffixes_that_keras_goes_by(tmp_path):
    with storage.atomic_file(tmp_path / "model.weights.h5") as partial:
        assert partial.name.endswith(".weights.h5") and partial.parent == tmp_path
        partial.write_text("weights")
    assert (tmp_path / "model.weights.h5").read_text() == "weights"


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, NoSpaceLeft), (errno.EROFS, ReadOnlyFolder), (errno.EACCES, ReadOnlyFolder)],
)
def test_refusals_of_the_system_get_names(tmp_path, monkeypatch, number, error):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(error, match=r"settings\.json"):
        storage.write_json(tmp_path / "settings.json", {})
    assert list(tmp_path.iterdir()) == []


def test_space_is_checked_beforehand(tmp_path):
    with pytest.raises(NoSpaceLeft), storage.atomic_file(tmp_path / "array.npy", n_bytes=10**18):
        pytest.fail("nothing should be written")


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReadOnlyFolder, match="file"):
        storage.make_folder(tmp_path / "file" / "runs")


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "evaluation.json", {"accuracy": float("nan")})
    assert list(tmp_path.iterdir()) == []
