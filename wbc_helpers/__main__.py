"""The command line: `python -m wbc_helpers run` and its like."""

import argparse
import sys
from pathlib import Path

from wbc_helpers.errors import InvalidParameter, WbcError
from wbc_helpers.recipes import RECIPES


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of the process's own.

    Returns
    -------
    int
        Exit status: 0 all went well, 1 a notebook stopped, 2 refused before any work.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except WbcError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted. What was finished is kept: the same command goes on from there.",
            file=sys.stderr,
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wbc_helpers", description="White blood cells: from images to a report."
    )
    commands = parser.add_subparsers(title="commands", required=True)

    run = commands.add_parser(
        "run", help="fetch the data, execute all notebooks, render the report"
    )
    run.add_argument(
        "--source", default="auto", help="auto, kaggle, sample, or the path of an archive or folder"
    )
    run.add_argument("--recipe", default="paper", help=f"one of {', '.join(RECIPES)}")
    run.add_argument("--epochs", help="passes over the training images (default: the recipe's)")
    run.add_argument("--seed", default="0", help="of split, weights and order (default: 0)")
    run.add_argument(
        "--validation",
        help="random (the paper's, leaky) or grouped by photograph (default: recipe's)",
    )
    run.add_argument("--run", help="name of the run (default: made of recipe, data and epochs)")
    run.add_argument("--data-dir", default="data", type=Path)
    run.add_argument("--runs-dir", default="runs", type=Path)
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="render the pages of all runs again")
    report.add_argument("--runs-dir", default="runs", type=Path)
    report.set_defaults(command=_report)
    return parser


def _run(options: argparse.Namespace) -> int:
    from wbc_helpers.settings import TrainingSettings

    settings = TrainingSettings(
        recipe=options.recipe,
        epochs=_whole("epochs", options.epochs),
        validation=options.validation,
        seed=_whole("seed", options.seed),
    )
    from wbc_helpers import pipeline

    went_through = pipeline.execute(
        settings, options.source, options.run, options.data_dir, options.runs_dir
    )
    return 0 if went_through else 1


def _whole(name: str, value: str | None) -> int | None:
    """Read a number here, so that a wrong one gets the same named error as in a notebook."""
    try:
        return None if value is None else int(value)
    except ValueError:
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected a whole number."
        ) from None


def _report(options: argparse.Namespace) -> int:
    from wbc_helpers import reports

    for folder in sorted(options.runs_dir.glob("*/")):
        if any(folder.glob("0*.ipynb")):
            reports.render_run(folder)
    print(reports.render_overview(options.runs_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
