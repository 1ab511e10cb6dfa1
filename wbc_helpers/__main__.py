"""The command line: `wbc run` and its like; `python -m wbc_helpers` is the same."""

import argparse
import importlib.util
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from wbc_helpers import storage
from wbc_helpers.errors import InvalidParameter, WbcError, check_names, check_whole
from wbc_helpers.runs.recipes import OF_ONE_DATA_SET


def main(arguments: list[str] | None = None) -> int:
    """Run one command, by default the process's own.

    Exit status: 0 all went well, 1 a notebook stopped or a file was not counted, 2 refused before
    any work.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal may know no letters but ASCII, and a name may hold bytes that are no letters.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    misspelt = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    if unknown and not misspelt:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        check_names("option", misspelt, options.known)
        return options.command(options)
    except (WbcError, OSError) as error:
        if not isinstance(error, WbcError):
            if not storage.is_gone(error):
                raise
            error = storage.gone(error, error.filename or "A folder")
        print(storage.visible(f"\n{type(error).__name__}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted. What was finished is kept: the same command goes on from there.",
            file=sys.stderr,
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wbc", description="White blood cells: from images to a report."
    )
    commands = parser.add_subparsers(title="commands", required=True)

    run = commands.add_parser(
        "run", help="fetch the data, execute notebooks 01 to 04, render the report"
    )
    _add_training_options(run, recipe="compact")
    run.add_argument(
        "--validation",
        help="random (the paper's, leaky) or grouped by photograph (default: recipe's)",
    )
    run.set_defaults(command=_run)

    crossval = commands.add_parser(
        "crossval", help="judge every photograph by a network that never saw it"
    )
    _add_training_options(crossval, recipe="compact")
    add_workers(crossval)
    crossval.add_argument("--folds", default="5", help="number of folds (default: 5)")
    crossval.add_argument(
        "--photographs", default="train", choices=("train", "all"),
        help="those of TRAIN, to choose a recipe by; or all, those of TEST too",
    )  # fmt: skip
    crossval.set_defaults(command=_crossval)

    count = commands.add_parser(
        "count",
        help="count the cells of photographs, name the white ones",
    )
    count.add_argument(
        "path", help="a photograph, a folder of them, a zip or tar file, or s3://bucket/folder"
    )
    count.add_argument(
        "--out", default="report", type=Path,
        help="folder for cells.csv, counts.csv and index.html (default: report)",
    )  # fmt: skip
    count.add_argument(
        "--red-cell", help="diameter of a red cell in pixels (default: estimated)", metavar="PIXELS"
    )
    count.add_argument(
        "--list", type=Path, metavar="FILE", help="count only those that it names, a name a line"
    )
    looks = count.add_mutually_exclusive_group()
    looks.add_argument(
        "--fast", dest="ways", action="store_const", const="1",
        help="look at each photograph once and not twice: in half of the network's time",
    )  # fmt: skip
    looks.add_argument(
        "--ways", help="in how many ways to look at each photograph, 1, 2 or 4 "
        "(default: as chosen for the weights that ship)",
    )  # fmt: skip
    _add_laboratory(count)
    _add_adapt(count)
    count.add_argument("--no-pages", action="store_true", help="write the tables alone")
    add_workers(count)
    count.set_defaults(command=_count)

    classify = commands.add_parser(
        "classify", help="name every white cell of an image, or of a folder of images"
    )
    classify.add_argument("path", type=Path, help="an image file, or a folder of them")
    classify.add_argument(
        "--out", default="answers.csv", type=Path, help="table to write (default: answers.csv)"
    )
    classify.add_argument(
        "--red-cell", help="diameter of a red cell in pixels (default: estimated)", metavar="PIXELS"
    )
    classify.add_argument(
        "--weights", default="broad", choices=("broad", "compact"),
        help="broad: several laboratories, five types; compact: BCCD alone (default: broad)",
    )  # fmt: skip
    _add_laboratory(classify)
    _add_adapt(classify)
    classify.set_defaults(command=_classify)

    teach = commands.add_parser(
        "teach", help="teach the answers your own laboratory, from labels of yours"
    )
    teach.add_argument(
        "labels", type=Path, help="corrections.csv, as the page writes it, or file,cell_type"
    )
    teach.add_argument(
        "--name", required=True, help="of the laboratory; written to laboratories/NAME.json"
    )
    teach.add_argument(
        "--photographs", type=Path, metavar="FOLDER",
        help="where the files of the table lie (default: beside it)",
    )  # fmt: skip
    teach.add_argument(
        "--red-cell", help="diameter of a red cell in pixels (default: estimated)", metavar="PIXELS"
    )
    teach.set_defaults(command=_teach)

    export = commands.add_parser(
        "export", help="write the network of a run as ONNX or for LiteRT, checked against the run"
    )
    export.add_argument("run", help="name of a run, of a detector's too; latest for the newest")
    export.add_argument(
        "--format", default="onnx", help="onnx, or litert for phones (default: onnx)"
    )
    export.add_argument("--runs-dir", default="runs", type=Path)
    export.set_defaults(command=_export)

    audit = commands.add_parser(
        "audit", help="find out from the pixels what the images of a data set show"
    )
    audit.add_argument("--source", default="auto", help="as for run")
    audit.add_argument("--data-dir", default="data", type=Path)
    audit.add_argument("--save", type=Path, metavar="FOLDER", help="write the tables there, too")
    audit.set_defaults(command=_audit)

    page = commands.add_parser(
        "page", help="write a page that reads photographs in the browser, without a network"
    )
    page.add_argument(
        "--out", default="page.html", type=Path,
        help="file, or folder for its index.html (default: page.html)",
    )  # fmt: skip
    page.add_argument(
        "--data-dir", default="data", type=Path,
        help="where the libraries in it are kept once they are downloaded (default: data)",
    )  # fmt: skip
    page.set_defaults(command=_page)

    report = commands.add_parser("report", help="render the pages of all runs again")
    report.add_argument("--runs-dir", default="runs", type=Path)
    report.set_defaults(command=_report)
    for command in commands.choices.values():
        command.set_defaults(known=re.findall(r"--[\w-]+", command.format_usage()))
    return parser


def _add_adapt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapt", action=argparse.BooleanOptionalAction, default=None,
        help="move the answers to where the folder's white cells lie, without labels (default: "
        "of five images or more, by the network broad, unless a laboratory was taught)",
    )  # fmt: skip


def _add_laboratory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--laboratory", metavar="NAME", help="answer as this laboratory taught, see teach"
    )


def _add_training_options(parser: argparse.ArgumentParser, recipe: str) -> None:
    parser.add_argument(
        "--source", default="auto", help="auto, kaggle, sample, or the path of an archive or folder"
    )
    parser.add_argument(
        "--recipe", default=recipe, help=f"one of {', '.join(OF_ONE_DATA_SET)} (default: {recipe})"
    )
    parser.add_argument("--epochs", help="passes over the training images (default: the recipe's)")
    parser.add_argument("--seed", default="0", help="of split, weights and order (default: 0)")
    parser.add_argument("--run", help="name of the run (default: made of recipe, data and epochs)")
    parser.add_argument("--data-dir", default="data", type=Path)
    parser.add_argument("--runs-dir", default="runs", type=Path)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the options that `workers_of` reads."""
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers do it"
    )
    parser.add_argument("--workers", metavar="N", help="processes on this machine that share it")


def workers_of(options: argparse.Namespace) -> Any:
    """Read who does the work, see `backend.Workers`."""
    from wbc_helpers.runs.backend import Workers

    return Workers(options.scheduler, _number("workers", options.workers))


def _run(options: argparse.Namespace) -> int:
    settings = _training_settings(options, options.validation)
    from wbc_helpers import pipeline

    went_through = pipeline.execute(
        settings, options.source, options.run, options.data_dir, options.runs_dir
    )
    return 0 if went_through else 1


def _training_settings(options: argparse.Namespace, validation: str | None):
    from wbc_helpers.runs.recipes import TrainingSettings

    chosen: dict[str, Any] = {
        "epochs": _number("epochs", options.epochs),
        "validation": validation,
        "seed": _number("seed", options.seed),
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return TrainingSettings(recipe=options.recipe, **given)


def _crossval(options: argparse.Namespace) -> int:
    settings = _training_settings(options, "grouped")
    n_folds = check_whole("folds", _number("folds", options.folds), 2)
    from wbc_helpers.classify import training
    from wbc_helpers.data import sources
    from wbc_helpers.data.identity import identify
    from wbc_helpers.runs import backend

    workers = workers_of(options)
    identity = identify(sources.fetch(options.source, options.data_dir))
    print(sources.banner(identity.source), flush=True)
    print(backend.choose(), flush=True)
    name = options.run or (
        f"crossval-{options.photographs}-{settings.default_name(identity.source.name)}"
    )
    table = training.cross_validate(
        settings, identity, name, options.data_dir, options.runs_dir,
        n_folds=n_folds,
        splits=("TRAIN",) if options.photographs == "train" else ("TRAIN", "TEST"),
        workers=workers,
    )  # fmt: skip
    print(training.report(table))
    return 0


def _audit(options: argparse.Namespace) -> int:
    from wbc_helpers.audit import origins
    from wbc_helpers.data import sources

    report = origins.audit(sources.fetch(options.source, options.data_dir))
    print(report)
    if options.save:
        origins.save(report, options.save)
    return 0


def _count(options: argparse.Namespace) -> int:
    from wbc_helpers.count import detector, pages, smears
    from wbc_helpers.data import sample
    from wbc_helpers.pixels import images

    red_cell = _red_cell(options)
    workers = workers_of(options)
    # Before the networks are loaded, which takes seconds.
    images.find_photographs(options.path, options.out)
    reader = detector.load_reader(_number("ways", options.ways), options.laboratory)
    only = None if options.list is None else smears.read_list(options.list)
    counted = smears.count_folder(
        options.path, options.out, reader, red_cell, only, workers=workers, adapt=options.adapt
    )
    summary = f"\n{counted}\n\nTables:  {counted.out}/cells.csv, counts.csv"
    if not options.no_pages:
        drawn = isinstance(counted.folder, Path) and sample.enclosing(counted.folder) is not None
        summary += f"\nPage:    {pages.render_counts(counted, drawn)}"
    print(summary)
    return 0 if counted.went_well else 1


def _classify(options: argparse.Namespace) -> int:
    from wbc_helpers.classify import classifier

    red_cell = _red_cell(options)
    network = classifier.load(options.weights, laboratory=options.laboratory)
    named = classifier.classify_folder(
        network, options.path, options.out, red_cell, adapt=options.adapt
    )
    print(named)
    return 0 if named.went_well else 1


def _teach(options: argparse.Namespace) -> int:
    from wbc_helpers.classify import classifier, teaching

    red_cell = _red_cell(options)
    lesson = teaching.teach(
        classifier.load(), options.labels, options.name, options.photographs, red_cell
    )
    print(lesson)
    return 0


def _page(options: argparse.Namespace) -> int:
    from wbc_helpers.count import pages

    print(pages.write_reader(options.out, options.data_dir))
    return 0


def _export(options: argparse.Namespace) -> int:
    from wbc_helpers.errors import RunNotFound
    from wbc_helpers.runs import answering, folders

    # Whatever a run was trained on, Keras exports most soundly from TensorFlow.
    if importlib.util.find_spec("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    detectors = storage.absolute(options.runs_dir) / folders.DETECTORS
    try:
        run = folders.open_run(options.run, options.runs_dir)
    except RunNotFound:
        if not (detectors / options.run / "settings.json").is_file():
            raise
        run = folders.open_run(options.run, detectors)
    if run.settings["training"]["recipe"] == "detector":
        from wbc_helpers.count import detector

        made = detector.of_run(run, keras=True)
        path = answering.export(made.model, run, options.format, "model.weights.h5", made.about)
    else:
        from wbc_helpers.classify import networks

        facts = {key: run.settings["training"][key] for key in ("recipe", "image_size")}
        path = answering.export(networks.load(run), run, options.format, "model.keras", facts)
    print(f"Written, and answers as the run does: {path}")
    return 0


def _red_cell(options: argparse.Namespace) -> Any:
    return _number("red_cell", options.red_cell, float, "a number of pixels")


def _number(
    name: str, value: str | None, read: type = int, expected: str = "a whole number"
) -> Any:
    """Read a number here, so that a wrong one gets the same named error as in a notebook."""
    try:
        return None if value is None else read(value)
    except ValueError:
        raise InvalidParameter(f"{name}={value!r} is not usable. Expected {expected}.") from None


def _report(options: argparse.Namespace) -> int:
    from wbc_helpers.report import rendering

    runs_dir = storage.absolute(options.runs_dir)
    for folder in sorted(runs_dir.glob("*/")):
        if any(folder.glob("0*.ipynb")):
            rendering.render_run(folder)
    print(rendering.render_overview(runs_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
