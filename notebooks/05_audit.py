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
# # 5 · Audit: can the data, and the score, be believed?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/05_audit.ipynb)
#
# **At the end** you have seen why a validation accuracy can promise what the test images do not
# keep: the same network, trained twice, judged on a random split, on a split by photograph, and on
# the official TEST.
#
# **Time and hardware:** two trainings of `epochs` epochs, up to 20 minutes each on two CPU cores; 3
# more with `recompute`.
#
# **Runtime:** in Colab choose *Runtime → Change runtime type → T4 GPU* before you begin: up to 40
# minutes are to be saved. A TPU (*v5e-1*) works as well: Keras then runs on JAX. So does the CPU.
# Below, a line says what is in use.

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
# The device is chosen first, because Keras asks for its backend when it is imported.

# %%
import matplotlib.pyplot as plt
import pandas as pd

from wbc_helpers import figures
from wbc_helpers.audit import labels, origins
from wbc_helpers.classify import inputs, judging, training
from wbc_helpers.data import catalog, identity, splits
from wbc_helpers.evaluate import uncertainty
from wbc_helpers.runs import backend, recipes

print(backend.choose())

# %%
pd.Series(recipes.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | `auto` (data already here, else Kaggle, else drawn cells), `kaggle`, `sample`, or the path of a downloaded archive or an unpacked folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `runs_dir` | folder of all runs | `runs` |
# | `drive` | in Colab: keep the runs on your Google Drive | `False` |
# | `recipe` | which network, see the README; `lenet` is a plain one of three convolutions | `lenet` |
# | `epochs` | of each of the two trainings | 16 |
# | `crossval_run` | name of a cross-validation by which labels are judged, see `make crossval`; empty: none | empty |
# | `boxed`, `complete` | photographs with a box around each cell, and the same ones boxed completely: `bccd` and `txl` download them, or paths of archives or folders; `complete` empty: no comparison | `bccd`, empty |
# | `seed` | of split, initial weights, image order and dropout | 0 |
# | `recompute` | find the photographs from the pixels again, instead of reading the table that ships with the project | `False` |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
runs_dir: str = "runs"  # @param {type: "string"}
drive: bool = False  # @param {type: "boolean"}
recipe: str = "lenet"  # @param ["paper", "compact", "lenet", "pretrained"]
epochs: int = 16  # @param {type: "slider", min: 1, max: 200, step: 1}
crossval_run: str = ""  # @param {type: "string"}
boxed: str = "bccd"  # @param ["bccd"] {allow-input: true}
complete: str = ""  # @param ["", "txl"] {allow-input: true}
seed: int = 0  # @param {type: "integer"}
recompute: bool = False  # @param {type: "boolean"}

# %%
colab.check_parameters()
chosen = {
    split: recipes.TrainingSettings(
        recipe=recipe, epochs=epochs, seed=seed, validation=split, validation_fraction=0.1
    )
    for split in ("random", "grouped")
}
data_folder, runs_folder = colab.folders(data_dir, runs_dir, drive)
if crossval_run:
    training.read(crossval_run, runs_folder)

# %% [markdown]
# ## The images and their photographs
#
# For the published data set, a table in the package says which photograph each image was made
# from; it was found by matching local features and a verified affine map, and `recompute` finds it
# again. For drawn cells it is known by construction.

# %%
data = identity.bring(source, data_folder)
data

# %%
all_images = splits.add_provenance(catalog.find_images(data.folder))
origins.require_photographs(all_images)

# %% [markdown]
# ## How many photographs are there?
#
# The images by the photographs behind them. Compare with the thousands of images by class.

# %%
distinct = all_images.drop_duplicates(["split", "source_id"])
catalog.count_images(distinct)

# %%
all_images.groupby(["split", "source_id"], observed=True).size().groupby(
    "split", observed=True
).describe()

# %% [markdown]
# ## Stage 1: a random split promises much
#
# A random tenth of TRAIN is set aside, as the paper did, and a network is trained.

# %%
trained = {
    split: training.train_new(
        settings, data, f"audit-{recipe}-{data.source.name}-{split}-{epochs}-{seed}",
        data_folder, runs_folder, verbose=0,
    )
    for split, settings in chosen.items()
}  # fmt: skip
figures.learning_curves(trained["random"].history, "validation, random (leaky)");

# %% [markdown]
# ## Stage 2: the same network on TEST
#
# Nothing is trained again; only the images are others.

# %%
answers = {split: judging.judge(run, data, data_folder) for split, run in trained.items()}
on_test = {split: of_run.test for split, of_run in answers.items()}
test_images = answers["random"].images["TEST"]
promised = trained["random"].history.val_accuracy.iloc[-1]
print(f"validation {promised:.1%}, TEST {on_test['random'].accuracy:.1%}")

# %% [markdown]
# ## Stage 3: why?
#
# How many of the validation images show a photograph that the training part shows, too?

# %%
training_images = all_images[all_images.split == "TRAIN"].reset_index(drop=True)
part = training_images.file.map(trained["random"].split)
seen = training_images.source_id[part == "train"].unique()
leaked = training_images.source_id[part == "validation"].isin(seen)
print(f"{leaked.mean():.1%} of {len(leaked):,} validation images")

# %% [markdown]
# Four of them, each above an image of the same photograph from the training part: rotated or
# flipped, but the same cell.

# %%
validation_images = training_images[(part == "validation") & training_images.source_id.isin(seen)]
above = validation_images.drop_duplicates("source_id").sample(4, random_state=seed)
in_training = training_images[part == "train"].drop_duplicates("source_id").set_index("source_id")
below = in_training.loc[above.source_id]
titles = [f"validation\n{name}" for name in above.source_id] + ["training"] * 4
figures.montage([*above.path, *below.path], titles, n_columns=4);

# %% [markdown]
# ## Stage 4: a split by photograph
#
# No photograph, and no group of overlapping ones, stands on both sides. What it promises should be
# near to what TEST shows.

# %%
results = pd.DataFrame(
    {
        "recipe": recipe, "epochs": epochs, "seed": seed, "n": len(test_images),
        "split": [run.validation_title for run in trained.values()],
        "validation": [run.history.val_accuracy.iloc[-1] for run in trained.values()],
        "accuracy": [evaluation.accuracy for evaluation in on_test.values()],
    }
)  # fmt: skip
figures.validation_beside_test(results);

# %%
results[["split", "validation", "accuracy"]].round(3)

# %% [markdown]
# The two networks on the same photographs of TEST, resampled together: photographs that are hard
# for both cancel, so that the difference is known better than either score.

# %%
compared = uncertainty.compare(on_test["random"], on_test["grouped"], test_images.source_id)
compared.loc[["accuracy", "balanced_accuracy", "macro_f1"]].round(3)

# %% [markdown]
# ## Is TEST itself clean?
#
# Some fields were photographed twice, shifted. Where one picture went to TRAIN and the other to
# TEST, the test shows a cell that was trained on.

# %%
if data.source.name == "kaggle" and not recompute:
    overlaps = splits.shipped_overlaps()
else:
    report = origins.audit(data.folder)
    overlaps = report.overlaps
    print(report)
across = overlaps[overlaps.across]
print(f"{len(overlaps)} overlapping pairs, {len(across)} across TRAIN and TEST, of which "
      f"{across.same_cell.sum()} show the same white cell")  # fmt: skip

# %%
columns = ["first", "first_split", "first_cell_type", "second", "second_split", "second_cell_type"]
overlaps.loc[overlaps.across | overlaps.same_cell, [*columns, "shared", "same_cell"]].round(2)

# %%
affected = test_images.cell_in_train.fillna(False)
print(f"{affected.sum():,} of {len(test_images):,} TEST images show a cell that TRAIN shows, too")

# %% [markdown]
# ## Are the published labels right?
#
# Cross-validation by photograph gives each photograph an answer from a network that never saw it.
# Where that network is surer of another type than it usually is of that type's own photographs, the
# label is *doubtful*, and so it is where images of one photograph lie under two types. This is
# confident learning (Northcutt, Jiang and Chuang, 2021); `make crossval` makes such a run, and
# `crossval_run` names it. Without one, this section trains nothing and stays empty.
#
# **No label is ever changed**, neither here nor anywhere in this project.

# %%
if crossval_run:
    out_of_fold = training.read(crossval_run, runs_folder, data.to_dict())
    judged = labels.judge(out_of_fold)
    print(f"The labels of {judged.doubtful.sum()} of {len(judged):,} photographs are doubtful")
else:
    print("Nothing to judge by: run `make crossval RUN=mine PHOTOGRAPHS=all`, and give its name")

# %% [markdown]
# Each photograph counts once, by the mean probability of its images. `self_confidence` is the
# probability of the published type, `margin` that less the probability of the suggested one.

# %%
if crossval_run:
    display(judged[judged.doubtful].round(3))

# %% [markdown]
# ### The cells themselves
#
# The most doubtful first, in the photograph itself where it is there, else in one of its augmented
# images. **Judge for yourself**, best before you read the probabilities: lobes of the nucleus,
# colour of the granules, breadth of the cytoplasm. A network has no better eye than a haematologist.
# It also doubts a right label where a cell is rare, badly stained or cut by the frame.

# %%
if crossval_run:
    shown = judged.source_id[judged.doubtful].head(figures.MOST_DOUBTFUL)
    photographs = inputs.photographs_of(data.folder, all_images).reindex(shown)
    figures.doubtful_labels(judged, labels.crop_white_cells(photographs))

# %% [markdown]
# ### What hangs on them
#
# The scores of the cross-validation as published, and beside them without the doubtful
# photographs. The second would be higher even if every label were right, since these are mistakes
# of the very network that is scored: it says how much hangs on these labels, and is no score to
# report alone.

# %%
if crossval_run:
    display(labels.scores_with_and_without(out_of_fold, judged).round(3))

# %% [markdown]
# ## Which cells have no box?
#
# A detector learns from boxes that people drew, and is judged by them. BCCD's leave out about half
# of the red cells: TXL-PBC (Gan and Li, 2024) boxed 221 of its photographs anew and completely.
# Both are counted here on the photographs that they share, found by their pixels, and cells that
# the frame cuts (a box within four pixels of an edge) apart from whole ones. It needs
# `complete = "txl"`, or the path of an archive from <https://github.com/lugan113/TXL-PBC_Dataset>.
# For drawn cells, all boxes stand beside those within the frame.

# %%
if complete:
    folders = [
        identity.bring(name, data_folder, "photographs").folder for name in (boxed, complete)
    ]
    missing = labels.missing_boxes(*folders)
else:
    missing = labels.missing_boxes(data.folder) if data.drawn else None
    print('Real boxes are compared with complete="txl"')
missing.total().round(3) if missing else None

# %% [markdown]
# The photograph with the most red cells left out, above as boxed, below completely. Whoever counts
# by the upper boxes calls each cell that has none a false alarm, and a detector that learned from
# them has learned not to see it.

# %%
if missing:
    path, *sets = missing.worst()
    figure, axes = plt.subplots(2, figsize=(8, 14))
    for ax, title, boxes in zip(axes, ("As boxed", "Complete"), sets, strict=True):
        figures.boxed_cells(path, boxes, title, ax=ax)

# %% [markdown]
# ## What do so few photographs allow one to claim?
#
# The interval that draws photographs, beside the one that takes every image for a cell of its own.

# %%
intervals = answers["grouped"].intervals["TEST"]
figures.score_intervals(intervals, len(test_images), test_images.source_id.nunique());

# %%
intervals.round(3)

# %% [markdown]
# **What was learned:** a random split of augmented images measures memory; a split by photograph
# measures what TEST measures; and even that rests on few cells, of monocytes on four. **Limits:**
# two trainings of one network with one seed; the README gives more. **Next:** any run trained with
# `validation = "grouped"` in [03_train](03_train.ipynb) is judged that way.
