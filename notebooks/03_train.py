# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#   jupytext:
#     cell_metadata_filter: tags,cellView,-all
#     notebook_metadata_filter: kernelspec,jupytext,accelerator,colab,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · Train: can a small network learn the four types?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/03_train.ipynb)
#
# **At the end** you have a trained model with its settings, history and split in a run folder,
# and have watched it learn.
#
# **Time and hardware:** the paper's 200 epochs take half an hour to an hour on two CPU cores;
# `epochs = 20` gives a first impression, and `recipe = "compact"` takes two to three minutes. An
# interrupted run, started again under its name, goes on after its last finished epoch.

# %% [markdown]
# ## Set-up
#
# Brings the helper package, unless it is installed or lies around this notebook, and in Colab
# installs what else is missing there. It changes no version that is there.

# %% cellView="form" tags=["set-up"]
# @title Set-up
import importlib.util, sys; sys.path.append(".."); importlib.util.find_spec("wbc_helpers") or get_ipython().run_line_magic("pip", "install -q --no-deps https://github.com/owner/white-blood-cells/archive/refs/heads/main.zip")  # fmt: skip  # noqa
from wbc_helpers import colab; root = colab.prepare()  # fmt: skip  # noqa

# %% [markdown]
# ## Imports
#
# The device is chosen first, because Keras asks for its backend when it is imported.

# %%
from dataclasses import asdict

import pandas as pd
from IPython.display import Markdown, display

from wbc_helpers import cells, errors, figures, pipeline
from wbc_helpers.classify import inputs, training
from wbc_helpers.data import sources
from wbc_helpers.data.identity import identify
from wbc_helpers.runs import backend, folders, recipes

runtime_in_use = backend.choose()
print(runtime_in_use)

# %%
pd.Series(recipes.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# `None` takes the recipe's own value; the table below this one lists them.
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | `auto` (data already here, else Kaggle, else drawn cells), `kaggle`, `sample`, or the path of a downloaded archive or an unpacked folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `runs_dir` | folder of all runs, which may be on a mounted drive | `runs` |
# | `run` | name of this run; empty: recipe, data and epochs | empty |
# | `recipe` | which network, and how it is trained: `paper`, `lenet`, `compact` or `pretrained` | `paper` |
# | `epochs` | passes over the training images | `None` |
# | `image_size` | height and width in pixels | `None` |
# | `batch_size` | images a step | `None` |
# | `learning_rate` | of the optimizer | `None` |
# | `validation` | `random` (the paper's split; it leaks, see below) or `grouped` by photograph | `None` |
# | `validation_fraction` | part of TRAIN that is set aside, between 0 and 1 | `None` |
# | `seed` | of split, initial weights, image order and dropout | 0 |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
runs_dir: str = "runs"  # @param {type: "string"}
run: str = ""  # @param {type: "string"}
recipe: str = "paper"  # @param ["paper", "compact", "lenet", "pretrained"]
# @markdown `epochs`: empty (`None`) for the recipe's own, paper 200, compact 15, lenet 16, pretrained 10
epochs: int = None  # @param {type: "integer"}
# @markdown `image_size`: `None` for paper [48, 64], compact [64, 64], lenet [120, 160], pretrained [128, 128]
image_size: list = None  # @param {type: "raw"}
# @markdown `batch_size`: empty for paper 128, compact 32, lenet 32, pretrained 32
batch_size: int = None  # @param {type: "integer"}
# @markdown `learning_rate`: empty for paper 0.001, compact 0.003, lenet 0.001, pretrained 0.0001
learning_rate: float = None  # @param {type: "number"}
# @markdown `validation`: `None` for paper random, compact grouped, lenet grouped, pretrained grouped
validation: str = None  # @param ["None", "'random'", "'grouped'"] {type: "raw"}
# @markdown `validation_fraction`: empty for paper 0.1, compact 0.1, lenet 0.2, pretrained 0.2
validation_fraction: float = None  # @param {type: "number"}
seed: int = 0  # @param {type: "integer"}

# %%
colab.check_parameters()
pd.DataFrame([vars(each) for each in recipes.RECIPES.values()]).set_index("name").iloc[:, 1:7]

# %%
training_settings = recipes.TrainingSettings(
    recipe=recipe, epochs=epochs, image_size=image_size, batch_size=batch_size,
    learning_rate=learning_rate, validation=validation, validation_fraction=validation_fraction,
    seed=seed,
)  # fmt: skip
data_folder = errors.check_folder("data_dir", data_dir, root)
runs_folder = errors.check_folder("runs_dir", runs_dir, root)
if run:
    folders.check_name(run)
pd.Series(asdict(training_settings), name="setting").to_frame()

# %% [markdown]
# ## Data
#
# Found or fetched, then identified, so that the run can say what it was trained on.

# %%
folder = sources.fetch(source, data_folder)
identity = identify(folder)
display(Markdown(sources.banner(identity.source, markdown=True)))

# %% [markdown]
# ## Pixels, decoded once
#
# One array of bytes, kept in `data/cache` and mapped into memory; no epoch reads a JPEG. A recipe
# that looks at the white cell alone has it cut out here, once.

# %%
prepared = inputs.prepare(folder, training_settings, data_folder / "cache")
print(f"{prepared.pixels.shape}, {prepared.pixels.nbytes / 1e6:.0f} MB")

# %% [markdown]
# ## Validation images
#
# The paper sets a random tenth of TRAIN aside. **That split leaks:** TRAIN shows each photographed
# cell about 36 times, so that nearly every validation image has a sister in the training part.
# After it, read the validation accuracy below as *how well are these photographs recognised again*.
# `grouped`, the split of every other recipe, keeps a photograph on one side.

# %%
prepared.part.value_counts()

# %% [markdown]
# ## What the network is shown
#
# Some of the images; and where the recipe draws new views of each cell while it trains, some of
# those.

# %%
training_images = prepared.catalog
shuffled = training_images.sample(frac=1, random_state=seed)
shown = shuffled.groupby("cell_type", observed=True).head(3).sort_values("cell_type").index
figures.montage(prepared.pixels[shown], list(training_images.cell_type[shown]), n_columns=6);

# %%
if prepared.patches is not None:
    views = training.DrawnViews(prepared.patches, training_images, training_settings.to_dict())
    drawn, drawn_types = views[0]
    figures.montage(
        drawn[:18], [cells.NAMES[number] for number in drawn_types[:18].argmax(axis=1)], n_columns=6
    )

# %% [markdown]
# ## The run
#
# A folder of its own. If it exists with the same settings, training goes on where it stopped; with
# others, it is refused.

# %%
run_name = run or pipeline.default_name(training_settings, identity.source.name)
this_run = folders.start(
    run_name,
    runs_folder,
    recipes.describe(training_settings, identity.to_dict(), runtime_in_use),
)
print(this_run.folder)

# %% [markdown]
# ## The network
#
# Scaling is part of it, in the paper's network with the mean and the standard-deviation image of the
# training part, so that the saved model takes raw pixels.

# %%
training.compiled_model(this_run.settings["training"], prepared).summary()

# %% [markdown]
# ## Training
#
# One line an epoch; after each, weights and history are on disk.

# %%
training.train(prepared, this_run, n_devices=runtime_in_use.n_devices);

# %% [markdown]
# ## Learning curves

# %%
figures.learning_curves(
    this_run.history,
    validation_name="validation, " + folders.validation_title(this_run.settings["training"]),
);

# %% [markdown]
# ## What is in the run folder

# %%
for file in sorted(this_run.folder.iterdir()):
    print(f"{file.stat().st_size / 1e3:10.1f} kB  {file.name}")

# %% [markdown]
# **What was learned:** whether the network can fit these images. **Limits:** with the paper's
# split, not whether it knows a new cell. **Next:** [04_evaluate](04_evaluate.ipynb) asks that.
