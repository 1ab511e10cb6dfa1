"""Colab's side: what is missing is installed, nothing else changes, secrets stay secret."""

import os
import re
import subprocess
import sys
import types
import venv
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import colab
from wbc_helpers.errors import InstallationFailed, InvalidParameter

ROOT = Path(__file__).resolve().parents[1]

# Neither a notebook machine of Colab's nor another backend.
PLAIN = {"PATH": ""}


@pytest.fixture
def requirements() -> list[str]:
    return [
        "# A comment.", "", "numpy>=9999", "tensorflow>=2.20,<2.22", "papermill>=2.6",
        "no-such-thing>=1,<2  # with a reason", "No_Such.Other", 'no-such-tool; extra == "dev"',
    ]  # fmt: skip


@pytest.fixture
def without_tensorflow(monkeypatch):
    """Let TensorFlow be absent, and note what would be installed instead of doing it."""
    asked = []
    versions = colab._installed_versions()
    for name in [name for name in versions if name.startswith("tensorflow")]:
        del versions[name]
    monkeypatch.setattr(colab, "_installed_versions", lambda: versions)
    find_spec = colab.importlib.util.find_spec
    monkeypatch.setattr(
        colab.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow" else find_spec(name),
    )
    monkeypatch.setattr(colab, "_install", lambda missing, installed: asked.extend(missing))
    return asked


def test_only_what_is_absent_is_installed(requirements, without_tensorflow):
    installed = colab.install_missing(requirements, environment=PLAIN)
    # NumPy is there, in whatever version; papermill stays outside of notebooks.
    assert installed == ["tensorflow>=2.20,<2.22", "no-such-thing>=1,<2", "No_Such.Other"]
    assert without_tensorflow == installed


@pytest.mark.parametrize(
    "environment",
    [
        {"COLAB_TPU_1VM": "1"},
        {"TPU_ACCELERATOR_TYPE": "v5e-1"},
        {"KERAS_BACKEND": "jax"},
        {"KERAS_BACKEND": "torch"},
    ],
)
def test_keras_on_another_backend_needs_no_tensorflow(
    requirements, without_tensorflow, environment
):
    installed = colab.install_missing(requirements, environment=environment)
    assert installed == ["no-such-thing>=1,<2", "No_Such.Other"]


def test_a_backend_that_was_chosen_counts_more_than_the_machine(requirements, without_tensorflow):
    environment = {"KERAS_BACKEND": "tensorflow", "COLAB_TPU_1VM": "1"}
    assert "tensorflow>=2.20,<2.22" in colab.install_missing(requirements, environment=environment)


def test_tensorflow_under_another_name_is_there(tmp_path, monkeypatch, without_tensorflow):
    package = tmp_path / "site" / "tensorflow_stand_in"
    package.mkdir(parents=True)
    left_behind = tmp_path / "site" / "uninstalled_thing" / "cache"
    left_behind.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    requirements = ["tensorflow-stand-in", "uninstalled-thing"]
    assert len(colab.install_missing(requirements, environment=PLAIN)) == 2
    (package / "__init__.py").touch()
    # Python remembers folders for a moment.
    colab.importlib.invalidate_caches()
    assert colab.install_missing(requirements, environment=PLAIN) == ["uninstalled-thing"]


def own_requirements() -> list[str]:
    return (ROOT / "requirements.txt").read_text().splitlines()


def test_our_own_requirements_are_all_here(monkeypatch):
    monkeypatch.setattr(colab, "_install", lambda missing, installed: None)
    assert colab.install_missing(own_requirements(), skip=()) == []


def test_every_version_that_goes_into_constraints_is_one_to_pip():
    from packaging.version import Version

    for version in ("1.0", "2!1.0", "1.0rc1", "2.9.0+cu126", "1.0.post2", "2026.7.dev3"):
        assert colab._VERSION.fullmatch(version) and Version(version)
    for version in ("2.22.1ubuntu1", "1.0-unknown", "git-abc", ""):
        assert not colab._VERSION.fullmatch(version)


def wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{information}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as packed:
        for inside, text in files.items():
            packed.writestr(inside, text)
        packed.writestr(f"{information}/RECORD", "".join(f"{inside},,\n" for inside in files))
    return path


@pytest.fixture
def machine(tmp_path):
    """Run code in an environment that holds stain 1.0 alone, and could get more offline."""
    pip = pytest.importorskip("pip")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    stain = wheel(wheels, "stain", "1.0")
    wheel(wheels, "stain", "2.0")
    wheel(wheels, "fits", "1.0", "stain")
    wheel(wheels, "needs_newer", "1.0", "stain>=2")
    venv.create(tmp_path / "machine", with_pip=False)
    python = tmp_path / "machine" / "bin" / "python"
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    (borrowed / "pip").symlink_to(Path(pip.__file__).parent)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{borrowed}{os.pathsep}{ROOT}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": wheels.as_uri(),
    }

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [python, *command], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    assert run("-m", "pip", "install", str(stain)).returncode == 0
    return run


INSTALL = """
import sys
from wbc_helpers import colab
print(colab.install_missing(open(sys.argv[1])))
import stain
print(stain.version)
"""


def test_pip_leaves_what_is_there(machine, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("stain>=2\nfits\n")
    done = machine("-c", INSTALL, str(requirements))
    assert done.stdout.splitlines() == ["Installing fits", "['fits']", "1.0"], done.stderr
    again = machine("-c", INSTALL, str(requirements))
    assert again.stdout.splitlines() == ["[]", "1.0"]


def test_what_does_not_fit_is_refused(machine, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("needs-newer\n")
    done = machine("-c", INSTALL, str(requirements))
    assert done.returncode == 1
    error = done.stderr.splitlines()
    assert any("InstallationFailed: needs-newer could not be installed" in line for line in error)
    assert "stain==1.0" in done.stderr
    assert machine("-c", "import stain; print(stain.version)").stdout == "1.0\n"


def test_a_failure_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InstallationFailed, match="no-such-thing could not be installed"):
        colab._install(["no-such-thing"], {})


def test_colab_is_recognised(monkeypatch):
    assert not colab.in_colab({})
    assert colab.in_colab({"COLAB_RELEASE_TAG": "release-colab"})
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert colab.in_colab({})


@pytest.fixture
def _numbers_as_before():
    yield
    pd.reset_option("display.float_format")


@pytest.mark.usefixtures("_numbers_as_before")
def test_tables_show_as_many_digits_as_say_something(monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    colab.prepare()
    table = pd.DataFrame({"TEST": {"n_images": 2487.0, "accuracy": 0.891435, "bias": -12.3456}})
    table["TEST_SIMPLE"] = [71, 1.0, np.nan]
    cells_shown = re.findall(r"<td>(.*?)</td>", table.to_html())
    assert cells_shown == ["2,487", "71", "0.891", "1.000", "-12.3", "NaN"]
    assert colab.in_digits(0.0) == "0.000" and colab.in_digits(float("inf")) == "inf"


@pytest.mark.usefixtures("_numbers_as_before")
def test_only_on_colab_something_is_prepared(monkeypatch):
    asked = []
    monkeypatch.setattr(colab, "install_missing", lambda lines: asked.append(list(lines)))
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    colab.prepare()
    assert asked == []
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    colab.prepare()
    assert asked == [own_requirements()]
    assert colab.folders("data", "mine") == (ROOT / "data", ROOT / "mine")


@pytest.mark.usefixtures("_numbers_as_before")
def test_without_a_clone_work_is_done_in_the_working_folder(monkeypatch, tmp_path):
    """As in Colab, where pip brought the package and knows what it requires."""
    asked = []
    monkeypatch.setattr(colab, "install_missing", lambda lines: asked.extend(lines))
    monkeypatch.setattr(colab, "__file__", str(tmp_path / "site-packages/wbc_helpers/colab.py"))
    monkeypatch.setattr(colab.importlib.metadata, "requires", lambda name: [f"{name} needs"])
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.chdir(tmp_path)
    colab.prepare()
    assert colab.folders("data") == (tmp_path / "data", tmp_path / "runs")
    assert asked == [f"{colab.DISTRIBUTION} needs"]


def test_drive_is_mounted_in_colab_alone_and_only_when_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    mounted = []
    package = types.ModuleType("google.colab")
    package.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    monkeypatch.setattr(colab, "_DRIVE", str(tmp_path))
    colab.folders("data", "runs")
    assert mounted == []
    data_folder, runs_folder = colab.folders("data", "runs", drive=True)
    assert data_folder == ROOT / "data"
    assert runs_folder == tmp_path / "MyDrive" / "white-blood-cells" / "runs"
    assert mounted == [str(tmp_path)]


def test_elsewhere_there_is_no_drive(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    with pytest.raises(InvalidParameter, match="works in Colab alone"):
        colab.folders("data", "runs", drive=True)


@pytest.fixture
def executed(monkeypatch):
    """Let IPython have executed these cells."""

    def place(*cells):
        shell = types.SimpleNamespace(user_ns={"In": ["", *cells]})
        monkeypatch.setitem(
            sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell)
        )

    return place


OWN = '# @title Parameters\nsource: str = "auto"  # @param ["auto"]\nepochs: int = None'


def test_a_misspelt_parameter_is_refused_with_the_nearest_name(executed):
    executed("import this", OWN, "# Parameters\nepoch = 1\n")
    message = "no parameter 'epoch'; did you mean 'epochs'.* source, epochs"
    with pytest.raises(InvalidParameter, match=message):
        colab.check_parameters()


@pytest.mark.parametrize("cells", [(), (OWN,), (OWN, "# Parameters\nepochs = 1\nsource = 'x'")])
def test_parameters_that_are_there_pass(executed, cells):
    executed(*cells)
    colab.check_parameters()


class Vault(types.ModuleType):
    """Stand-in for google.colab.userdata that notes what it was asked for."""

    class SecretNotFoundError(Exception):
        pass

    class NotebookAccessError(Exception):
        pass

    class TimeoutException(Exception):
        pass

    def __init__(self, secrets):
        super().__init__("google.colab.userdata")
        self.secrets, self.asked = secrets, []

    def get(self, name):
        self.asked.append(name)
        if name not in self.secrets:
            raise self.SecretNotFoundError(name)
        if isinstance(self.secrets[name], type):
            raise self.secrets[name](name)
        return self.secrets[name]


@pytest.fixture
def page(monkeypatch):
    """Put a vault with secrets in place, asked from Colab's page or from a program."""

    def place(secrets, answers=True) -> Vault:
        vault = Vault(secrets)
        package = types.ModuleType("google.colab")
        package.userdata = vault
        monkeypatch.setitem(sys.modules, "google.colab", package)
        monkeypatch.setitem(sys.modules, "google.colab.userdata", vault)
        message = {"header": {}, "content": {"code": "", "allow_stdin": answers}}
        shell = types.SimpleNamespace(parent_header=message)
        monkeypatch.setitem(
            sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell)
        )
        return vault

    return place


ACCOUNT = {"KAGGLE_USERNAME": "hooke", "KAGGLE_KEY": "sesame-1665"}
TOKEN = {"KAGGLE_API_TOKEN": "sesame-1674"}


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        (TOKEN, TOKEN),
        (ACCOUNT, ACCOUNT),
        (TOKEN | ACCOUNT, TOKEN),
        ({"KAGGLE_KEY": "alone"}, {}),
        ({"KAGGLE_API_TOKEN": ""}, {}),
        ({"KAGGLE_API_TOKEN": Vault.NotebookAccessError} | ACCOUNT, ACCOUNT),
        ({}, {}),
    ],
)
def test_secrets_reach_the_environment_quietly(page, secrets, expected, capfd):
    page(secrets)
    environment = {}
    assert colab.kaggle_secrets(environment) is None
    assert environment == expected
    assert capfd.readouterr() == ("", "")


def test_a_program_never_asks_for_secrets(page):
    vault, environment = page(TOKEN, answers=False), {}
    colab.kaggle_secrets(environment)
    assert environment == {} and vault.asked == []


def test_no_secrets_outside_of_colab(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    environment = {}
    colab.kaggle_secrets(environment)
    assert environment == {}


def test_an_account_in_the_environment_is_kept(page):
    for given in (dict(ACCOUNT), dict(TOKEN)):
        vault, environment = page({"KAGGLE_API_TOKEN": "other"}), dict(given)
        colab.kaggle_secrets(environment)
        assert environment == given and vault.asked == []


def test_after_one_request_that_timed_out_no_other_is_made(page):
    vault, environment = page({"KAGGLE_API_TOKEN": Vault.TimeoutException} | ACCOUNT), {}
    colab.kaggle_secrets(environment)
    assert environment == {} and vault.asked == ["KAGGLE_API_TOKEN"]


def test_secrets_are_read_in_one_place_only():
    readers = [
        path.relative_to(ROOT).as_posix()
        for folder in ("wbc_helpers", "notebooks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".ipynb") and "userdata" in path.read_text(encoding="utf-8")
    ]
    assert readers == ["wbc_helpers/colab.py"]


@pytest.fixture
def choose(monkeypatch):
    """Let a person in Colab choose files, given as names and contents."""

    def place(**chosen):
        package = types.ModuleType("google.colab")
        package.files = types.SimpleNamespace(upload=lambda *_, **__: chosen)
        monkeypatch.setitem(sys.modules, "google.colab", package)

    return place


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_photographs_are_uploaded_each_time_into_a_folder_of_their_own(choose, tmp_path):
    first, second = {"a.png": b"1", "b (1).JPG": b"2"}, {"a.png": b"other"}
    choose(**first)
    one = colab.upload_photographs(tmp_path / "data")
    choose(**second)
    two = colab.upload_photographs(tmp_path / "data")
    assert (one, two) == (tmp_path / "data" / "upload-1", tmp_path / "data" / "upload-2")
    assert (contents(one), contents(two)) == (first, second)


def test_an_upload_takes_the_place_of_nothing(choose, tmp_path):
    (tmp_path / "upload-1").mkdir()
    (tmp_path / "upload-1" / "a.png").write_bytes(b"mine")
    (tmp_path / "upload-2").write_bytes(b"a file")
    choose(**{"a.png": b"1"})
    assert colab.upload_photographs(str(tmp_path)) == tmp_path / "upload-3"
    assert contents(tmp_path / "upload-1") == {"a.png": b"mine"}


def test_an_uploaded_name_leads_out_of_no_folder(choose, tmp_path):
    choose(**{"../../up.png": b"1", "/tmp/root.png": b"2"})
    folder = colab.upload_photographs(tmp_path / "data")
    assert contents(folder) == {"up.png": b"1", "root.png": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_nothing_chosen_is_said_and_no_folder_made(choose, tmp_path):
    choose()
    with pytest.raises(InvalidParameter, match="No photograph was chosen"):
        colab.upload_photographs(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_nothing_is_uploaded_outside_of_colab(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    with pytest.raises(InvalidParameter, match="works in Colab alone"):
        colab.upload_photographs(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_upload_leaves_no_second_copy_where_the_notebook_runs(choose, tmp_path, monkeypatch):
    def upload():
        # As Colab does, beside returning it.
        Path("a.png").write_bytes(b"1")
        return {"a.png": b"1"}

    choose()
    monkeypatch.setattr(sys.modules["google.colab"].files, "upload", upload)
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")
    folder = colab.upload_photographs("data")
    assert contents(tmp_path / "content" / folder) == {"a.png": b"1"}
    assert [path.name for path in (tmp_path / "content").iterdir()] == ["data"]
