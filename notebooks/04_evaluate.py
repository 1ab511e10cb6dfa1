# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#   jupytext:
#     cell_metadata_filter: tags,-all
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
# # 4 · Evaluate: how good is it really, and where does it fail?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/04_evaluate.ipynb)
#
# **At the end** you have the scores of a run on the official test images, its confusions, its
# curves and its worst mistakes, beside what the paper reports.
#
# **Time and hardware:** a minute on two CPU cores. Where no run exists yet, a short one is trained
# first (`epochs_if_untrained`).

# %% [markdown]
# ## Set-up
#
# Finds the project's helper package beside this notebook, or brings it (in Colab), and installs
# only what is missing.

# %% tags=["set-up"]
import os
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

REPOSITORY = "https://github.com/owner/white-blood-cells"
around = [Path.cwd(), *Path.cwd().parents, Path("white-blood-cells").resolve()]
root = next((folder for folder in around if (folder / "wbc_helpers/__init__.py").is_file()), None)
if root is None:  # No clone around this notebook: bring the repository's archive.
    url = os.environ.get("WBC_ARCHIVE", f"{REPOSITORY}/archive/refs/heads/main.zip")
    with tempfile.TemporaryDirectory(dir=".") as unpacked:
        archive, _ = urllib.request.urlretrieve(url, f"{unpacked}/main.zip")
        zipfile.ZipFile(archive).extractall(unpacked)
        root = next(Path(unpacked).glob("*/wbc_helpers")).parent.rename(around[-1])
sys.path.insert(0, str(root))
from wbc_helpers import colab

colab.prepare(root)

# %% [markdown]
# ## Imports
#
# The device is chosen first, because Keras asks for its backend when it is imported.

# %%
import time

import pandas as pd
from IPython.display import Markdown, display

from wbc_helpers import catalog, evaluation, figures, images, runs, runtime, settings, sources

runtime_in_use = runtime.choose()
print(runtime_in_use)

# %%
from wbc_helpers import models, training

pd.Series(settings.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `run` | name of the run, or `latest` for the newest finished one | `latest` |
# | `runs_dir` | folder of all runs | `runs` |
# | `source` | the data that the run was trained on: `auto`, `kaggle`, `sample`, or the path of an archive or folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `epochs_if_untrained` | epochs of the short run that is trained where there is none | 2 |

# %% tags=["parameters"]
run: str = "latest"
runs_dir: str = "runs"
source: str = "auto"
data_dir: str = "data"
epochs_if_untrained: int = 2

# %%
short_settings = settings.TrainingSettings(epochs=epochs_if_untrained)
data_folder = settings.check_folder("data_dir", data_dir, root)
runs_folder = settings.check_folder("runs_dir", runs_dir, root)
runs.check_name(run)

# %% [markdown]
# ## Data
#
# Found or fetched, so this notebook runs by itself.

# %%
folder = sources.fetch(source, data_folder)
identity = sources.identify(folder)
display(Markdown(sources.banner(identity, markdown=True)))
all_images = catalog.find_images(folder)

# %% [markdown]
# ## The run
#
# On a fresh machine there is none, and a short one is trained.

# %%
if run == "latest" and not any(one.is_complete for one in runs.list_runs(runs_folder)):
    training.train_new(short_settings, identity, "first-try", data_folder, runs_folder)
this_run = runs.open_run(run, runs_folder)
runs.check_data(this_run, identity.to_dict())
model = models.load(this_run)
pd.Series(this_run.settings["training"], name=this_run.name).to_frame()

# %% [markdown]
# ## How it learned

# %%
figures.learning_curves(
    this_run.history,
    validation_name="validation, " + runs.validation_title(this_run.settings["training"]),
);

# %% [markdown]
# ## Probabilities for the official test images
#
# `TEST` holds augmented images of photographs that TRAIN does not show; `TEST_SIMPLE` the test
# photographs themselves. Neither had a part in training.

# %%
image_size = this_run.settings["training"]["image_size"]
started = time.perf_counter()
rows, probabilities, evaluations = {}, {}, {}
for split in ("TEST", "TEST_SIMPLE"):
    rows[split] = all_images[all_images.split == split]
    if len(rows[split]):
        pixels = images.decode(rows[split].path, image_size, data_folder / "cache")
        probabilities[split] = models.predict(model, pixels)
        evaluations[split] = evaluation.evaluate(rows[split].cell_type, probabilities[split])
seconds = time.perf_counter() - started
print(f"{sum(map(len, rows.values())):,} images in {seconds:.1f} s, decoding included")

# %% [markdown]
# ## Scores
#
# Balanced accuracy is the mean recall of the four types; macro-F1 the mean of their F1. Guessing
# would score 25 %.

# %%
scores = {split: each.to_dict() for split, each in evaluations.items()}
pd.DataFrame(scores).loc[["n_images", "accuracy", "balanced_accuracy", "macro_f1"]]

# %% [markdown]
# ## By cell type

# %%
test = evaluations["TEST"]
test.per_class.round(3)

# %%
figures.per_class_scores(test);

# %% [markdown]
# ## Which types are taken for which?
#
# Rows are the true types. On the left images are counted; on the right each row is divided by its
# sum, so that the diagonal is the recall.

# %%
figures.confusion_counts_and_rates(test);

# %% [markdown]
# ## ROC and precision–recall curves
#
# Each type against the other three, over all thresholds.

# %%
figures.roc_curves(test);

# %%
figures.precision_recall_curves(test);

# %% [markdown]
# ## The most confident mistakes
#
# Wrong answers that the network was surest of. Images that look alike here are usually one
# photograph, augmented.

# %%
figures.mistakes(evaluation.most_confident_mistakes(rows["TEST"], probabilities["TEST"], n=12));

# %% [markdown]
# ## The paper's figure beside ours
#
# The paper reports an accuracy "over 90" per cent for its test set. The interval drawn here takes
# images as independent, which those of TEST are not: they were made from 71 photographs. An honest
# interval is nearer to that of TEST_SIMPLE, which has as many images as there are photographs.

# %%
named = {f"{this_run.name}: {split}": each for split, each in evaluations.items()}
figures.paper_beside_ours(named);

# %% [markdown]
# ## Written down
#
# `evaluation.json` in the run folder, for other programs.

# %%
summary = runs.summarise(this_run, evaluations, models.count_trainable(model), seconds)
summary["peak_memory_bytes"] = max(summary["peak_memory_bytes"], training.peak_memory_bytes())
runs.write_evaluation(this_run, summary)

# %% [markdown]
# **What was learned:** how the run does on cells that it was not trained on, and which types it
# mixes up. **Limits:** 71 photographs, of which 4 show monocytes, from one laboratory; this is
# no diagnostic device. **Next:** train another recipe or seed with [03_train](03_train.ipynb), and
# compare the runs on the overview page.
