"""Classify photos with a trained model: adapt to new classes, predict, export.

python -m experiments.classify predict runs/own/model.npz --support=my_classes photo.jpg
python -m experiments.classify adapt runs/own/model.npz --support=my_classes --output=adapted
python -m experiments.classify predict adapted.npz photo.jpg
python -m experiments.classify export adapted.npz --format=stablehlo
"""

import argparse
import csv
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from experiments.harness.main import keep_compiled_programs
from mamljax import photos
from mamljax.checks import ArgumentError
from mamljax.data.files import DataError
from mamljax.photos import Classifier, Prediction
from mamljax.photos.exported import FORMATS
from mamljax.photos.saved import CLASSIFIER, kind
from mamljax.running.table import Table, print_table


def main(words: Sequence[str]) -> None:
    """Run one of the three; what is wrong with the arguments is told in a line."""
    given = _parser().parse_args(words)
    keep_compiled_programs()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        try:
            {"predict": predict, "adapt": adapt, "export": export}[given.command](given)
        except (ArgumentError, DataError, ModuleNotFoundError) as error:
            raise SystemExit(f"error: {error}") from None
    for warning in said:
        if issubclass(warning.category, UserWarning):
            print(f"warning: {warning.message}", file=sys.stderr)


def predict(given: argparse.Namespace) -> None:
    """Tell the class of each photo: a table, JSON or CSV."""
    if kind(given.model) == CLASSIFIER:
        if given.support or given.norm or given.resize or given.inner_steps is not None:
            raise ArgumentError(
                f"{given.model} has adapted already: leave out --support, --norm, --resize and "
                "--inner_steps, or give the model it came from."
            )
        classifier = photos.load_classifier(given.model)
    elif given.support is None:
        raise ArgumentError(
            f"{given.model} knows no classes yet: give --support=FOLDER with a few photos of each, "
            "at CLASS/IMAGE."
        )
    else:
        classifier = _adapted(given)
    predictions = photos.predict(classifier, photos.found(given.photos))
    if given.json:
        print(json.dumps([x._asdict() for x in predictions], indent=1))
    elif given.csv:
        _write_csv(predictions, classifier.classes)
    else:
        _show(predictions)


def adapt(given: argparse.Namespace) -> None:
    """Adapt to classes, and write the classifier."""
    output = Path(given.output)
    output = output if output.suffix == ".npz" else output.with_name(f"{output.name}.npz")
    output.parent.mkdir(parents=True, exist_ok=True)
    classifier = _adapted(given)
    photos.save_classifier(output, classifier)
    shots = ", ".join(map("{} ({})".format, classifier.classes, classifier.shots))
    print(f"{output}: {len(classifier.classes)} classes (photos of each): {shots}")


def export(given: argparse.Namespace) -> None:
    """Write a classifier in another format."""
    output = Path(given.output or Path(given.model).with_suffix(f".{given.format}"))
    photos.export(photos.load_classifier(given.model), output, given.format)
    print(f"{output} and {output.with_suffix('.json')}")


def _adapted(given: argparse.Namespace) -> Classifier:
    model = photos.load_model(given.model, norm=given.norm, resize=given.resize)
    return photos.adapt(model, given.support, num_steps=given.inner_steps)


def _show(predictions: Sequence[Prediction]) -> None:
    cells = []
    for photo, label, probability, of_all in predictions:
        second = sorted(of_all, key=lambda name: -of_all[name])[1]
        cells.append([photo, label, f"{probability:.3f}", f"{second} {of_all[second]:.3f}"])
    print_table(Table(["photo", "class", "probability", "next"], cells, ""), title="")


def _write_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", "class", "probability", *classes])
    for photo, label, probability, of_all in predictions:
        writer.writerow([photo, label, probability, *(of_all[name] for name in classes)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mamljax", description="Classify photos with a trained model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("model", help="model.npz of a run of the image experiments, or its folder")
    model.add_argument("--norm", help="support: classify each photo by itself; see the warning")
    model.add_argument(
        "--resize", action="store_true", help="bring photos of other sizes to that of training"
    )
    model.add_argument("--inner_steps", type=int, help="on the support set; that of the test")

    told = "Tell the class of each photo, after adapting once to the classes of --support."
    one = commands.add_parser("predict", parents=[model], description=told)
    one.add_argument("photos", nargs="+", metavar="PHOTO", help="files, or folders of them")
    one.add_argument("--support", help="a folder of CLASS/IMAGE; none for what adapt has written")
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all probabilities, as JSON")
    form.add_argument("--csv", action="store_true", help="all probabilities, as CSV")

    told = "Adapt to the classes of --support, and keep the result, which predict and export take."
    two = commands.add_parser("adapt", parents=[model], description=told)
    two.add_argument("--support", required=True, help="a folder of CLASS/IMAGE")
    two.add_argument("--output", required=True, help="the file to write, .npz")

    told = "Write what adapt has written for programs without mamljax, for any number of images."
    three = commands.add_parser("export", description=told)
    three.add_argument("model", help="what adapt has written")
    three.add_argument("--format", choices=FORMATS, default="stablehlo")
    three.add_argument("--output", help="the file to write; by default beside the model")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
