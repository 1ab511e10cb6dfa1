# ---
# jupyter:
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
# # 7 · Laboratories: is the answer as good on another laboratory's slides?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/07_laboratories.ipynb)
#
# **At the end** you have seen a network fail on slides that were stained elsewhere, and why; what
# repairs it and how far; how that is judged honestly, one laboratory left out; when it had better
# give no answer; and what a few labels of your own bring.
#
# **Time and hardware:** a minute on drawn cells, on any machine. With the published cells of other
# laboratories some minutes more, for the download and for cutting them out. Nothing is trained but a
# last layer, in seconds.
#
# **Runtime:** a CPU is enough; a GPU would stand idle.

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
# All of them, the package's a room a line.

# %%
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from PIL import Image

from wbc_helpers import cells, errors, figures
from wbc_helpers.classify import classifier, laboratories, teaching
from wbc_helpers.data import identity, sources
from wbc_helpers.evaluate import classification, confidence
from wbc_helpers.pixels import images, stain

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | photographs that the first laboratory's images were made from: `auto` (data already here, else Kaggle's, else drawn), `kaggle`, `sample`, or the path of an archive or folder | `auto` |
# | `others` | labelled cells of other laboratories, names or paths parted by spaces: `pbc` (Barcelona), `chula` (Chulalongkorn); empty: the same photographs in two other stains | empty |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `cells_each` | cells of each type and laboratory that are looked at | 20 |
# | `draws` | how often labels are drawn anew | 5 |
# | `seed` | of whatever is drawn | 0 |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
others: str = ""  # @param {type: "string"}
data_dir: str = "data"  # @param {type: "string"}
cells_each: int = 20  # @param {type: "slider", min: 6, max: 100, step: 1}
draws: int = 5  # @param {type: "integer"}
seed: int = 0  # @param {type: "integer"}

# %%
colab.check_parameters()
data_folder, _ = colab.folders(data_dir)
errors.check_whole("cells_each", cells_each, 6, 10_000)
errors.check_whole("draws", draws, 1, 1000)

# %% [markdown]
# ## Cells of several laboratories
#
# A row a white cell, with its type and its `group`: what must not be parted, such as the cells of one
# slide. Of published sets only cells that the shipped network did not learn from are taken.

# %%
data = identity.bring(source, data_folder)
folders = {"drawn" if data.drawn else laboratories.BCCD: data.folder}
for name in others.split():
    folders[Path(name).stem] = sources.fetch(name, data_folder, holds="cells")
listed = laboratories.find_all(folders)
listed = listed[(listed.held_out | data.drawn) & listed.cell_type.isin(cells.LEUKOCYTES)]
by_type = listed.sample(frac=1, random_state=seed).groupby(["laboratory", "cell_type"])
listed = by_type.head(cells_each).sort_values("path", ignore_index=True)
data

# %% [markdown]
# Without other laboratories, the same photographs are stained otherwise: what each colour of light
# loses is mixed anew of all three. Shapes stay what they are; **only the stain differs.**

# %%
STAINS = {
    "browner": [[0.5, 0.3, 0.5], [0.2, 0.7, 0.3], [0.0, 0.1, 0.9]],
    "bluer": [[1.3, 0.2, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 0.5]],
}


def restain(photograph, mixture):
    absorbed = -np.log(np.maximum(photograph, 1) / 255)
    return (255 * np.exp(-absorbed @ np.array(mixture))).astype(np.uint8)


# %%
if not others:
    copies = [listed]
    for name, mixture in STAINS.items():
        folder = data_folder / "stains" / name
        folder.mkdir(parents=True, exist_ok=True)
        copy = listed.assign(laboratory=name)
        copy["path"] = [str(folder / f"{group}.png") for group in listed.group]
        for before, after in zip(listed.path, copy.path, strict=True):
            Image.fromarray(restain(images.read_image(before), mixture)).save(after)
        copies.append(copy)
    listed = pd.concat(copies)
listed = listed.sort_values("laboratory", kind="stable", ignore_index=True)
names = list(dict.fromkeys(listed.laboratory))
listed.groupby("laboratory", sort=False).cell_type.value_counts().unstack(fill_value=0)

# %% [markdown]
# ## The naive attempt
#
# `compact` learned the slides of one laboratory, BCCD. Asked about every other one, it answers as
# readily. Balanced accuracy is the mean recall of the types; chance is one in as many as there are.


# %%
def cut_out(network):
    """Crops as a network sees them, of all rows: scales are measured laboratory by laboratory."""
    tables = [listed[listed.laboratory == name] for name in names]
    return np.concatenate([teaching.crops_of(network, table)[0] for table in tables])


def tabulate(probabilities, answers):
    table = pd.DataFrame(probabilities, columns=[f"p_{answer}" for answer in answers])
    table["p_basophil"] = table.get("p_basophil", 0.0)
    return listed.assign(source_id=listed.group).join(table)


# %%
def score(table):
    rows = {}
    for name, of_one in table.groupby("laboratory", sort=False):
        balanced, low, high, recalls = laboratories.balanced_accuracy(of_one)
        rows[name] = {"n": len(of_one), "balanced": balanced, "low": low, "high": high, **recalls}
    return pd.DataFrame(rows).T.round(2)


# %%
compact = classifier.load("compact")
narrow_crops = cut_out(compact)
narrow = tabulate(compact.probabilities(narrow_crops), compact.answers)
score(narrow)

# %% [markdown]
# ## Why?
#
# One cell of a type from each laboratory: in white light, and as `compact` sees it, each channel
# brought to the strength that its own laboratory's stain has. Of a stain that it does not know, that
# makes colours which no cell has.

# %%
first = [listed.index[(listed.laboratory == name) & (listed.cell_type == "eosinophil")][0]
         for name in names]  # fmt: skip
white = [stain.whiten(images.read_image(listed.path[row])) for row in first]
figures.montage(white, names, title="Eosinophils, in white light");

# %%
figures.montage(narrow_crops[first], names, title="The same, as compact sees them");

# %% [markdown]
# ## The repair
#
# `broad` learned from three laboratories, each as often as any other, with stains changed at random;
# the strength of each channel drops out of what it sees. It knows a fifth type, basophils, and
# `other` for what is none.

# %%
broad = classifier.load()
crops = cut_out(broad)
wide = tabulate(broad.probabilities(crops), broad.answers)
both = {"compact": score(narrow).balanced, "broad": score(wide).balanced}
pd.DataFrame(both)

# %% [markdown]
# What it learned is told of more than it was shown: its card says how it does on each laboratory that
# was **left out** of its training, and that is the number to go by.

# %%
card = (resources.files("wbc_helpers") / "weights" / "broad.md").read_text(encoding="utf-8")
display(Markdown(card.split("## Scores")[1].split("## How")[0]))

# %% [markdown]
# ## Leave one out
#
# In small, it can be done here. The network turns each cell into numbers, its features, and a last
# layer makes answers of them. That layer is fitted to all laboratories but one, and judged there; on
# other photographs, too, since laboratories that are stained otherwise here show the same ones.

# %%
features = broad.features(crops).mean(axis=0)
codes = np.array([cells.LEUKOCYTES.index(name) for name in listed.cell_type])
where = listed.laboratory.to_numpy()
left_out = np.zeros((len(codes), len(broad.answers)))
is_first = (listed.groupby("cell_type").group.rank("dense") % 2 == 1).to_numpy()
for name in names:
    for side in (is_first, ~is_first):
        out, rest = (where == name) & side, (where != name) & ~side
        weights, bias = teaching.fit(broad.learned, features[rest], codes[rest])
        last_layer = replace(broad.learned, weights=weights, bias=bias)
        left_out[out] = last_layer.probabilities(features[out])

# %%
pd.DataFrame(both | {"left out": score(tabulate(left_out, broad.answers)).balanced})

# %% [markdown]
# ## What is taken for what?
#
# Of the laboratory on which `broad` does worst, the four types that all laboratories have.

# %%
worst = score(wide).balanced.idxmin()


def evaluated(name):
    rows = wide[(wide.laboratory == name) & wide.cell_type.isin(cells.NAMES)]
    four = rows[[f"p_{answer}" for answer in cells.NAMES]].to_numpy(float)
    return classification.evaluate(rows.cell_type, four / four.sum(axis=1, keepdims=True))


figures.confusion(evaluated(worst));

# %% [markdown]
# ## When had it better not answer?
#
# The surer the answers that are given, the fewer are wrong: but how sure is sure enough differs from
# laboratory to laboratory.

# %%
figures.risk_coverage({name: confidence.risk_coverage(evaluated(name)) for name in names[:3]});

# %% [markdown]
# So `broad` also asks how unlike a cell is to all that it learned from (`foreign`), and answers
# neither for what is too unlike nor for a folder of which it is sure of too little.

# %%
named = broad.name(crops).assign(laboratory=where)
named["right"] = named.cell_type.to_numpy() == listed.cell_type.to_numpy()
given = named[named.answered.astype(bool)].groupby("laboratory", sort=False)
pd.DataFrame({
    "foreign": named.groupby("laboratory", sort=False).foreign.median(),
    "answered": given.size() / named.laboratory.value_counts(),
    "of these wrong": 1 - given.right.mean(),
}).loc[names].round(2)  # fmt: skip

# %% [markdown]
# ## Moved to the folder
#
# Cells that are stained otherwise all lie to one side of those learned from. How far can be told
# without labels, and the answers moved half the way, as `wbc classify` does: where most cells are too
# unlike to be answered for, and never on few cells or a single type, since another type would then be
# taken for another stain.

# %%
moved = {}
for name in names:
    of_one = features[where == name][np.newaxis]
    moved[name] = broad.adapted(of_one)
    wide.loc[where == name, [f"p_{answer}" for answer in broad.answers]] = (
        moved[name].name_by(of_one).filter(like="p_").to_numpy()
    )
pd.DataFrame(both | {"as a folder": score(wide).balanced}).assign(
    moved=[network.moved is not None for network in moved.values()]
)

# %% [markdown]
# ## A few labels of one's own
#
# The last layer is moved towards labels of the laboratory on which `broad` does worst, and judged on
# groups of which none was labelled. `said`: what cross-validation on the labels alone says.

# %%
def lesson(n, seed):
    """Teach `n` labels of each type, and judge on other groups: recalls, averaged, 0–1."""
    own = listed[where == worst].sample(frac=1, random_state=seed)
    labels = own.groupby("cell_type").head(n)
    rest = own.index[~own.group.isin(labels.group)]
    given = (features[labels.index], codes[labels.index], list(labels.group))
    taught, judged = teaching.learn_from(broad, *given, "own")
    recalls = {"labels a type": n, "said": judged.after}
    for when, layer in (("before", broad.learned), ("after", taught)):
        right = layer.probabilities(features[rest]).argmax(axis=1) == codes[rest]
        recalls[when] = pd.Series(right).groupby(codes[rest]).mean().mean()
    return recalls, judged


# %%
numbers = [n for n in (3, 5, 10, 20, 50) if 2 * n <= cells_each]
lessons = [lesson(n, seed + draw) for n in numbers for draw in range(draws)]
# %%
by_number = pd.DataFrame([recalls for recalls, _ in lessons]).groupby("labels a type")
by_number[["before", "after", "said"]].agg(["mean", "std"]).round(2)

# %% [markdown]
# What is said of one such lesson, as the command says it:

# %%
print(lessons[-1][1])

# %% [markdown]
# **What was learned:** a score from one laboratory says little about the next; what counts is the
# laboratory left out. Learning from several, with stains varied, repairs much of it; being told what
# is foreign keeps the rest silent; some labels of one's own do most. **Limits:** drawn stains say
# nothing about blood, and labels from one slide flatter: take them from several.
# **Next:** your own laboratory: correct white cells on the page of `00_your_slide`, then
# `wbc teach corrections.csv --name my-lab`.
