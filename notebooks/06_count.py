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
# # 6 · Count: how many cells of each kind does a smear show?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/06_count.ipynb)
#
# **At the end** you have trained a detector of red cells, white cells and platelets, know how well
# it finds and counts them on photographs that it never saw, and have counted a folder of smears,
# yours if you like, with the differential count of its white cells.
#
# **Time and hardware:** training takes most of it, about 20 minutes on two CPU cores that have
# nothing else to do; one that was cut off goes on. With `epochs = 0` nothing is trained: the weights
# that come with the project answer within a minute.
#
# **Runtime:** in Colab choose *Runtime → Change runtime type → T4 GPU* before you train: up to 20
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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from wbc_helpers import errors, figures
from wbc_helpers.audit import overlaps
from wbc_helpers.classify import classifier
from wbc_helpers.count import detector, pages, smears, training
from wbc_helpers.count.classical import find_cells_in
from wbc_helpers.data import catalog, identity, splits
from wbc_helpers.evaluate import detection
from wbc_helpers.runs import backend, recipes

print(backend.choose())

# %%
pd.Series(recipes.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | `auto` (data already here, else downloaded from GitHub, else drawn smears), `bccd`, `txl` (three laboratories, every cell boxed), `sample`, or the path of an archive or folder, also of your own photographs with boxes in VOC, YOLO or COCO | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `runs_dir` | folder of all runs | `runs` |
# | `drive` | in Colab: keep the runs on your Google Drive | `False` |
# | `run` | name of the run; empty: data, split, epochs and seed | empty |
# | `split` | `lists` (those that come with the data) or `grouped` (photographs that overlap stay together) | `lists` |
# | `epochs` | passes over the training photographs; 0: train nothing, take the weights that ship | 80 |
# | `seed` | of initial weights, order and views | 0 |
# | `photographs` | a folder of your own smears to count; empty: the test photographs | empty |
# | `upload` | in Colab: choose your own photographs on your computer, when it comes to counting | `False` |
# | `red_cell` | diameter of a red cell in your photographs, pixels; 0: estimated | 0 |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "bccd", "txl", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
runs_dir: str = "runs"  # @param {type: "string"}
drive: bool = False  # @param {type: "boolean"}
run: str = ""  # @param {type: "string"}
split: str = "lists"  # @param ["lists", "grouped"]
epochs: int = 80  # @param {type: "slider", min: 0, max: 200, step: 1}
seed: int = 0  # @param {type: "integer"}
photographs: str = ""  # @param {type: "string"}
upload: bool = False  # @param {type: "boolean"}
red_cell: float = 0  # @param {type: "number"}

# %%
colab.check_parameters()
errors.check_choice("split", split, ("lists", "grouped"))
errors.check_whole("epochs", epochs, 0, 10_000)
data_folder, runs_folder = colab.folders(data_dir, runs_dir, drive)
if photographs:
    smears.find_photographs(photographs)
chosen = training.DetectorSettings(epochs=max(epochs, 1), seed=seed)

# %% [markdown]
# ## Photographs and boxes
#
# Found or fetched. Every box that is odd is named here, with what is done about it.

# %%
data = identity.bring(source, data_folder, holds="photographs")
data

# %%
boxed = splits.read_boxed(data.folder)
print(boxed)

# %% [markdown]
# A photograph as people boxed it. In BCCD's own boxes half of the red cells are left out, most of
# them in heaps and at the frame, see 05_audit: a detector that finds them will seem to find too
# many. `source = "txl"` has every cell boxed.

# %%
example = boxed.photographs.iloc[len(boxed.photographs) // 2]
figures.boxed_cells(
    example.path, boxed.boxes[boxed.boxes.photograph == example.photograph], "As people boxed it"
);

# %% [markdown]
# Widths of boxes in pixels: white cells are many times as large as platelets, and one network has
# to find both.

# %%
widths = (boxed.boxes.x_max - boxed.boxes.x_min).groupby(boxed.boxes.kind, observed=True)
widths.describe().round(1)

# %% [markdown]
# ## Which photographs train, validate and test?
#
# The lists that come with the data part photographs that show the same cells, so that a test
# photograph may show a cell that was trained on. The grouped split does not.

# %%
pairs = overlaps.find_smear_pairs(data.folder, progress=False)
by_lists = split == "lists"
parts = training.deal(data.folder, boxed) if by_lists else splits.split_photographs(boxed, pairs)
part = {name: parts.index[parts == name].tolist() for name in splits.PARTS}
parted = splits.parted_pairs(pairs, parts)
print({name: len(names) for name, names in part.items()})
print(f"{len(parted)} of {len(pairs)} pairs of overlapping photographs are parted")

# %% [markdown]
# ## Training
#
# The network draws, for each kind, how surely a cell's centre lies at each place, and how large
# that cell is. After each epoch, weights and history are on disk, and the same cell goes on there.

# %%
name = run or f"{data.source.name}-{split}-{chosen.epochs}-{seed}"
if epochs:
    trained = training.train_new(chosen, data, name, runs_folder, parts)
    network = detector.of_run(trained)
    out = trained.folder
else:
    network = detector.load()
    out = runs_folder / "detectors" / f"shipped-{data.source.name}"

# %%
if epochs:
    figures.detector_loss(trained.history)

# %% [markdown]
# ## Reading the maps
#
# On the validation photographs: from which overlap on are two boxes one cell; does it help to look
# at mirrored photographs, too (`ways`), by enough to be worth the time; and from which score on are
# as many boxes counted as people drew? The weights that ship bring their answers.

# %%
if epochs:
    network, tried = training.choose_reading(network, boxed, part["val"])
    display(tried.round(3))
print(network.about["thresholds"])

# %% [markdown]
# ## The test, once
#
# Average precision as COCO defines it, with intervals that draw photographs, overlapping ones
# together. Everything was chosen before.

# %%
judged = training.judge(network, boxed, part["test"])
groups = splits.group_sources(pairs, boxed.photographs.photograph)
detection.intervals(judged.scores, groups).round(3)

# %%
figures.detection_curves(judged.scores);

# %% [markdown]
# Laboratory by laboratory. `of_boxed` is the part of the boxed cells that is counted; where people
# boxed few of a kind, as the platelets of Raabin, it says nothing.

# %%
training.judge_each(network, boxed, part["test"]).round(3)

# %% [markdown]
# Cells that the frame cuts are harder to find than whole ones.

# %%
judged.by_cut.round(3)

# %% [markdown]
# Boxes that are sure enough to be counted, paired off with those that people drew.

# %%
judged.matches.counts.round(3)

# %% [markdown]
# The photograph with most mistakes: is the detector wrong there, or were cells left out?

# %%
worst = judged.mistakes.idxmax()
path = boxed.photographs.set_index("photograph").path[worst]
counted = judged.matches.predictions
figures.boxed_cells(path, counted[counted.photograph == worst], f"Found in {worst}");

# %%
figures.boxed_cells(
    path, boxed.boxes[boxed.boxes.photograph == worst], f"Boxed by people in {worst}"
);

# %% [markdown]
# ## Counting
#
# Beside the classical way, which learns nothing: threshold, distance transform, colour. `mae` is
# the mean absolute error a photograph, `bias` the mean one; between `lower` and `upper` lie 95 %
# of the differences (Bland and Altman, 1986).

# %%
in_test = boxed.photographs[boxed.photographs.photograph.isin(part["test"])]
without_learning = find_cells_in(in_test, progress=False)
classical = training.judge_boxes(boxed, part["test"], without_learning)
columns = ["true", "counted", "mae", "bias", "bias_low", "bias_high", "lower", "upper"]
pd.concat(
    {"detector": judged.table[columns], "classical": classical.table[columns]}, names=["by"]
).round(2)

# %%
figures.bland_altman(judged.true_counts, judged.counts, "RBC");

# %%
figures.bland_altman(judged.true_counts, judged.counts, "Platelets");

# %% [markdown]
# ## A smear from elsewhere
#
# Counting at home says little about slides of another laboratory. Where TXL-PBC lies in `data_dir`
# and a network was trained here, these are its photographs of Barcelona; else some of the same test
# photographs, stained and lit otherwise: what each colour of light loses is mixed anew of all three.
# (The network that ships has learned from Barcelona: to it they are not foreign.)

# %%
others = next(data_folder.glob("TXL-PBC*"), None)
if others and epochs and "laboratory" not in boxed.photographs:
    place = identity.bring(str(others), data_folder, holds="photographs").folder
    elsewhere = splits.read_boxed(place)
    dealt = elsewhere.photographs.photograph.map(training.deal(place, elsewhere))
    foreign = elsewhere.photographs[
        dealt.eq("test") & elsewhere.photographs.laboratory.eq("Barcelona")
    ]
else:
    (out / "elsewhere").mkdir(parents=True, exist_ok=True)
    foreign = in_test.head(12).copy()
    mixture = np.array([[1.3, 0.2, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 0.5]])
    lamp = np.array([0.85, 1.0, 0.75])
    for row, photograph in foreign.iterrows():
        light = np.asarray(Image.open(photograph.path).convert("RGB")) / 255
        stained = lamp * np.exp(np.log(np.maximum(light, 1 / 255)) @ mixture)
        foreign.loc[row, "path"] = str(out / "elsewhere" / f"{photograph.photograph}.png")
        Image.fromarray((255 * stained).astype(np.uint8)).save(foreign.path[row])
    elsewhere = replace(boxed, photographs=foreign)

# %%
judged_there = training.judge(network, elsewhere, foreign.photograph.tolist())
pd.concat(
    {"here": judged.table[columns], "elsewhere": judged_there.table[columns]}, names=["smears"]
).round(2)

# %%
example, counted = foreign.iloc[0], judged_there.matches.predictions
figures.boxed_cells(
    example.path,
    counted[counted.photograph == example.photograph],
    "Found in a smear from elsewhere",
);

# %% [markdown]
# ## A folder of smears
#
# Your own photographs, or those of the test. They are of one magnification, which the red cells
# tell. What cannot be read is listed, and the rest counted; done again, it goes on where it was.

# %%
own = Path(photographs) if photographs else None
if upload:
    own = colab.upload_photographs(runs_folder / "uploaded")
reader = detector.SmearReader(network, classifier.load())
counted_folder = own or catalog.smears_folder(data.folder)
counts = smears.count_folder(
    counted_folder, out / (f"counts-{own.name}" if own else "counts"), reader,
    red_cell or None, None if own else part["test"], progress=False,
)  # fmt: skip
page = pages.render_counts(counts, drawn=data.drawn and not own, progress=False)
counts.worst_first.head(10)

# %% [markdown]
# The page shows every smear, the worst first; `cells.csv` has a row for each cell.

# %%
print(page)
pd.read_csv(counts.out / "cells.csv").head()

# %% [markdown]
# One of them, with the types of its white cells; a star is a white cell on which the network is not
# sure enough to answer.

# %%
shown = counts.worst_first.file.iloc[-1]
figures.boxed_cells(counts.folder / shown, counts.boxes_of(shown), shown);

# %% [markdown]
# ## The differential count
#
# Only of white cells on which the network answers. Grey is the adult reference range; an interval
# that lies wholly outside it, of enough cells, is **something to look at, and never a diagnosis.**
# The BCCD photographs were chosen for their white cells: they say nothing about anybody's blood.

# %%
figures.differential(counts.differential);

# %%
print(counts)

# %% [markdown]
# **What was learned:** a small network, trained from scratch, finds nearly all white cells and most
# platelets. How well it counts red cells is decided by the boxes that it learns from: BCCD's leave
# out half of them, and whoever finds these is judged wrong. The frame cuts half of the cells that a
# photograph shows. **Limits:** a count from photographs is no count of the blood.
# **Next:** the same from the shell, for thousands of photographs: `python -m wbc_helpers count`.
