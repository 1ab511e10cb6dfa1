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
# **Time and hardware:** on two CPU cores an hour for the paper's 200 epochs, 19 minutes for `lenet`,
# 3 for `compact`; `epochs = 20` gives a first impression. An interrupted run, started again under
# its name, goes on after its last finished epoch.
#
# **Runtime:** in Colab choose *Runtime → Change runtime type → T4 GPU* before you begin with `paper`
# or `lenet`: up to an hour, or 19 minutes, are to be saved. `compact` needs none. A TPU (*v5e-1*)
# works as well: Keras then runs on JAX. So does the CPU. Below, a line says what is in use.

# %% [markdown]
# ## Set-up
#
# Brings the helper package, unless it is installed or lies around this notebook, and in Colab
# installs what else is missing there. It changes no version that is there.

# %% cellView="form" tags=["set-up"]
# @title Set-up
import importlib.util, sys; sys.path.append(".."); importlib.util.find_spec("wbc_helpers") or get_ipython().run_line_magic("pip", "install -q --no-deps https://github.com/owner/white-blood-cells/archive/refs/heads/main.zip")  # fmt: skip  # noqa
from wbc_helpers import colab; colab.prepare()  # fmt: skip  # noqa

# %% [markdown]
# ## Imports
#
# The device is chosen first, a TPU before a GPU before the CPU, because Keras asks for its backend
# when it is imported.

# %%
import pandas as pd
from IPython.display import Markdown

from wbc_helpers import cells, figures
from wbc_helpers.classify import inputs, networks, training
from wbc_helpers.data import identity
from wbc_helpers.runs import backend, folders, recipes, recorder

runtime_in_use = backend.choose()
print(runtime_in_use)

# %%
import keras

pd.Series(recipes.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# `None` takes the recipe's own value.
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | `auto` (data already here, else Kaggle, else drawn cells), `kaggle`, `sample`, or the path of a downloaded archive or an unpacked folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `runs_dir` | folder of all runs | `runs` |
# | `drive` | in Colab: keep the runs on your Google Drive, where `04_evaluate` finds them from another machine | `False` |
# | `run` | name of this run; empty: recipe, data and epochs | empty |
# | `recipe` | which network, and how it is trained: `paper`, `lenet`, `compact` or `pretrained` | `paper` |
# | `epochs` | passes over the training images | `None` |
# | `image_size` | height and width in pixels | `None` |
# | `batch_size` | images a step | `None` |
# | `learning_rate` | of the optimizer | `None` |
# | `validation` | `random`, the paper's split, which leaks, or `grouped` by photograph | `None` |
# | `validation_fraction` | part of TRAIN that is set aside, between 0 and 1 | `None` |
# | `seed` | of split, initial weights, image order and dropout | 0 |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
runs_dir: str = "runs"  # @param {type: "string"}
drive: bool = False  # @param {type: "boolean"}
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
# @markdown `validation`, `validation_fraction`: empty for paper random 0.1, compact grouped 0.1, lenet grouped 0.2, pretrained grouped 0.2
validation: str = None  # @param ["None", "'random'", "'grouped'"] {type: "raw"}
validation_fraction: float = None  # @param {type: "number"}
seed: int = 0  # @param {type: "integer"}

# %%
colab.check_parameters()
settings = recipes.TrainingSettings(
    recipe=recipe, epochs=epochs, image_size=image_size, batch_size=batch_size,
    learning_rate=learning_rate, validation=validation, validation_fraction=validation_fraction,
    seed=seed,
)  # fmt: skip
if run:
    folders.check_name(run)
data_folder, runs_folder = colab.folders(data_dir, runs_dir, drive)
pd.Series(vars(settings), name="setting").to_frame()

# %% [markdown]
# ## Data
#
# Found or fetched, then identified, so that the run can say what it was trained on.

# %%
data = identity.bring(source, data_folder)
data

# %% [markdown]
# ## Pixels, decoded once
#
# One array of bytes, kept in `data/cache` and mapped into memory; no epoch reads a JPEG. A recipe
# that looks at the white cell alone has it cut out here, once.

# %%
prepared = inputs.prepare(data.folder, settings, data_folder / "cache")
print(f"{prepared.pixels.shape}, {prepared.pixels.nbytes / 1e6:.0f} MB")

# %% [markdown]
# ## Images to train on, and images to validate with
#
# How they were parted decides what the validation accuracy below is worth.

# %%
Markdown(recipes.VALIDATION_SPLITS[settings.validation])

# %%
prepared.part.value_counts()

# %% [markdown]
# ## The run
#
# A folder of its own. If it exists with the same settings, training goes on where it stopped; with
# others, it is refused.

# %%
this_run = training.start(settings, data, run, runs_folder)
this_run

# %% [markdown]
# ## What the network is shown
#
# Some of the first batch, as bytes: images, or, where the recipe draws new views of each cell while
# it trains, such views.

# %%
batches, validation_batches = training.begin(prepared, this_run, runtime_in_use.n_devices)
pixels, cell_types = batches[0]
titles = [cells.NAMES[number] for number in cell_types.argmax(axis=1)]
figures.montage(pixels[:18], titles[:18], n_columns=4);

# %% [markdown]
# ## The paper's network, layer by layer
#
# Four blocks of convolution, ReLU, batch normalisation, dropout and pooling, then three dense
# layers. Scaling is part of it: the mean image of the training part is subtracted, the
# standard-deviation image divides, so that the saved model takes raw pixels.


# %%
def paper_network(statistics):
    """Build the network of Singh et al. (2020), not compiled."""
    smears = keras.Input(statistics.mean.shape, dtype="uint8", name="smears")
    hidden = networks.standardization(statistics)(smears)
    for filters in (16, 16, 8, 4):
        hidden = keras.layers.Conv2D(filters, 3, padding="same")(hidden)
        hidden = keras.layers.ReLU()(hidden)
        hidden = keras.layers.BatchNormalization()(hidden)
        hidden = keras.layers.Dropout(0.1)(hidden)
        hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = keras.layers.Flatten()(hidden)
    for units in (32, 16, 8):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    cell_type = keras.layers.Dense(4, activation="softmax", name="cell_type")(hidden)
    return keras.Model(smears, cell_type, name="paper_cnn")


# %% [markdown]
# ## The network of this run
#
# The seed decides its initial weights. The other recipes' networks stand, built the same way, in
# `wbc_helpers/classify/networks.py`.

# %%
keras.utils.set_random_seed(settings.seed)
statistics = prepared.statistics()
if recipe == "paper":
    model = paper_network(statistics)
else:
    model = networks.build(recipe, settings.image_size, statistics)
model.summary(print_fn=print)

# %% [markdown]
# ## Optimizer and loss
#
# The paper uses RMSprop. Cross-entropy punishes a small probability of the true type.

# %%
if recipe == "paper":
    model.compile(
        optimizer=keras.optimizers.RMSprop(settings.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
    )
else:
    training.compile_model(model, settings.to_dict(), n_steps=len(batches))

# %% [markdown]
# ## Training
#
# One line an epoch. The recorder puts weights and history on disk after each, and takes up a run
# that was interrupted. The batches come shuffled, in an order that the seed decides.

# %%
recording = recorder.Recorder(this_run, model, batches)
model.fit(
    batches,
    validation_data=validation_batches,
    initial_epoch=recording.n_epochs,
    epochs=settings.epochs,
    shuffle=False,
    callbacks=[recording],
    verbose=2,
);

# %% [markdown]
# ## Learning curves
#
# Where training goes on getting better and validation does not, the network learns the images by
# heart.

# %%
figures.learning_curves(
    this_run.history, validation_name=f"validation, {this_run.validation_title}"
);

# %% [markdown]
# ## What is in the run folder
#
# All that evaluation needs, and what it takes to go on or to repeat this.

# %%
for file in sorted(this_run.folder.iterdir()):
    print(f"{file.stat().st_size / 1e3:10.1f} kB  {file.name}")

# %% [markdown]
# **What was learned:** whether the network can fit these images. **Limits:** validation images come
# from the same slides as those trained on. **Next:** [04_evaluate](04_evaluate.ipynb) asks whether
# it knows a new cell; in Colab, tick `drive` there as here, since each badge opens a new machine.
