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
# # 0 · Your slide: which cells does it show, and is the answer right?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/00_your_slide.ipynb)
#
# **At the end** you have seen every white cell of your photographs, sorted by type, the most unsure
# first; have put right what was wrong; and take home the counts, the differential with its exact
# intervals, and a page that works without a network.
#
# **Time and hardware:** *Runtime → Run all*, about a minute on any machine. No data set is downloaded
# and nothing is trained.
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
from pathlib import Path

from wbc_helpers import figures
from wbc_helpers.classify import classifier, teaching
from wbc_helpers.count import detector, pages, smears
from wbc_helpers.data import catalog, identity

# %% [markdown]
# ## Parameters
#
# Of whole fields as of single cells cut out: photographs of a stained smear, in colour. Without any,
# eight that a program draws.
#
# | parameter | meaning | default |
# |---|---|---|
# | `upload` | in Colab: choose photographs on your computer; they go to your runtime there, nowhere else | `False` |
# | `photographs` | a photograph, or a folder of them, on the machine that runs this; empty: drawn ones | empty |
# | `red_cell` | diameter of a red cell in your photographs, pixels; 0: estimated | 0 |
# | `laboratory` | name of your laboratory, once you have taught it; empty: the answers as they ship | empty |
# | `corrections` | a *corrections.csv* of the gallery, to teach `laboratory` with; empty: nothing is taught | empty |
# | `data_dir` | folder for the drawn photographs; a relative one is meant from the project's folder | `data` |
# | `runs_dir` | folder for the results, below `slides` | `runs` |
# | `drive` | in Colab: keep the results on your Google Drive | `False` |

# %% tags=["parameters"]
# @title Parameters
upload: bool = False  # @param {type: "boolean"}
photographs: str = ""  # @param {type: "string"}
red_cell: float = 0  # @param {type: "number"}
laboratory: str = ""  # @param {type: "string"}
corrections: str = ""  # @param {type: "string"}
data_dir: str = "data"  # @param {type: "string"}
runs_dir: str = "runs"  # @param {type: "string"}
drive: bool = False  # @param {type: "boolean"}

# %%
colab.check_parameters()
data_folder, runs_folder = colab.folders(data_dir, runs_dir, drive)
if photographs:
    smears.find_photographs(photographs)
if corrections:
    teaching.check_new(laboratory)

# %% [markdown]
# ## The photographs
#
# Yours, or drawn ones: what a program drew says nothing about blood.

# %%
is_drawn = not (upload or photographs)
if upload:
    folder = colab.upload_photographs(runs_folder / "uploaded")
elif photographs:
    folder = Path(photographs)
else:
    folder = catalog.smears_folder(identity.bring("sample", data_folder, "photographs").folder)
names = smears.find_photographs(folder)[1]
print(f"{len(names)} photographs in {folder}")

# %% [markdown]
# ## Counting
#
# One network finds the cells, another names the white ones; where it is not sure enough, it gives no
# answer. Photographs that are out of focus, too dark or of something else are named, and not counted.

# %%
counts = smears.count_folder(
    folder, runs_folder / "slides" / f"{folder.stem}-{red_cell:g}{laboratory}",
    detector.load_reader(laboratory=(not corrections and laboratory) or None),
    red_cell or None, names[:8] if is_drawn else None, progress=False,
)  # fmt: skip
page = pages.render_counts(counts, is_drawn, progress=False)
print(counts)

# %% [markdown]
# ## One photograph with its cells
#
# The one with most that is unsure. A star is a white cell on which the network is not sure enough to
# answer.

# %%
unsure = counts.worst_first.file.iloc[0]
figures.boxed_cells(counts.folder / unsure, counts.boxes_of(unsure), unsure);

# %% [markdown]
# ## The gallery
#
# Click a cell, or go with the arrow keys; **1–6** name its type, **C** confirms, **Del** deletes, **U**
# takes back, **Z** shows it in its field, where boxes can be drawn. Counts and intervals follow at once.
# Before you leave, take your *corrections.csv* away: this frame may forget it.

# %%
pages.framed(page)

# %% [markdown]
# ## The differential count
#
# Only of white cells on which the network answers. Grey is the adult reference range; an interval
# that lies wholly outside it, of enough cells, is **something to look at, and never a diagnosis.**

# %%
figures.differential(counts.differential);

# %%
counts.counts[["file", "RBC", "WBC", "Platelets", "unanswered", "unsure", "fit", "reasons"]]

# %% [markdown]
# ## To take away
#
# The tables, a row a cell and a row a photograph, and the pages: `index.html` is the gallery.

# %%
pages.take_away(counts)

# %% [markdown]
# ## Teach it your laboratory
#
# Where the answers are often wrong on your slides, a few dozen cells that you named yourself may help:
# put the *corrections.csv* in `corrections`, a name in `laboratory`, and execute again. By
# cross-validation it is said what that brought; where it did harm, nothing is kept.

# %%
if corrections:
    print(teaching.teach(
        classifier.load(), corrections, laboratory, counts.folder, red_cell or None
    ))  # fmt: skip

# %% [markdown]
# **What was learned:** which cells your photographs show, how sure that is, and where a person knows
# better. **Limits:** a count from photographs is no count of the blood, intervals are those of chance
# alone, and slides stained or photographed otherwise than those learned from leave more unanswered, or
# wrong. **Next:** 01_download, for the data behind the networks; for thousands of photographs, from the
# shell: `wbc count FOLDER --out RESULTS`.
