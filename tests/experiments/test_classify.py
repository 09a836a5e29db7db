"""Own folder -> training -> new classes -> predictions -> export: the same probabilities."""

import csv
import http.client
import io
import json
import re
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import omniglot
from experiments import classify
from experiments.few_shot import experiment
from mamljax import load_model, photos
from mamljax.checks import ArgumentError

SIDE = 12
NEW = ("apple", "pear", "plum")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos of one pattern per class under noise, and a run that was trained on other classes."""
    root, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)

    def write(folder, pattern, numbers):
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            pixels = pattern + rng.integers(0, 55, pattern.shape)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")

    def pattern():
        return rng.integers(0, 200, (SIDE, SIDE, 3))

    for split, classes in (("train", 8), ("test", 4)):
        for label in range(classes):
            write(root / "images" / split / f"class{label}", pattern(), range(6))
    for name in NEW:
        of_class = pattern()
        write(root / "my_classes" / name, of_class, range(2))
        write(root / "new_photos", of_class, [f"{name}-{i}" for i in range(2)])
    for name in ("cherry", "fig"):
        write(root / "more" / name, pattern(), range(3))

    config = omniglot.get_config("5way1shot_dense")
    config.data.update(source="folder", scheme="", dir=str(root / "images"))
    config.data.update(image_size=(SIDE, SIDE), cache=str(root / "cache"), rotate=False)
    config.task.update(ways=3, shots=2)
    config.train.update(num_iterations=300, meta_batch=4, queries=2, inner_lr=0.5)
    config.log.update(every=50, checkpoint_every=300)
    config.evaluate.update(num_tasks=10, num_inner_steps=5, inner_lr=0.5, queries=(2,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "largest_task_mesh", lambda num_tasks: None)
        patch.setattr(experiment, "training_mesh", lambda meta_batch: None)
        experiment.run(config, root / "runs" / "own")
    return root


@pytest.fixture
def call(place, capsys, monkeypatch):
    """Run a command in the folder of photos and run; returns what it prints."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(classify, "keep_compiled_programs", lambda: None)

    def run(*words):
        classify.main(words)
        return capsys.readouterr()

    return run


def labels(found):
    return {row["photo"].split("/")[-1]: row["label"] for row in found}


def probabilities(found):
    return np.array([[*row["probabilities"].values()] for row in found])


RIGHT = {f"{name}-{number}.png": name for name in NEW for number in range(2)}


def test_from_training_to_predictions_to_export_with_the_same_probabilities(place, call):
    support = ["--support=my_classes", "--norm=support"]
    told = call("predict", "runs/own/model.npz", "new_photos", *support, "--json")
    found = json.loads(told.out)
    assert labels(found) == RIGHT
    assert told.err == ""
    expected = probabilities(found)
    np.testing.assert_allclose(expected.sum(1), 1, rtol=1e-5)

    call("adapt", "runs/own", *support, "--output=kept/adapted")
    again = json.loads(call("predict", "kept/adapted.npz", "new_photos", "--json").out)
    np.testing.assert_allclose(probabilities(again), expected, rtol=1e-5, atol=1e-7)
    one = json.loads(call("predict", "kept/adapted.npz", "new_photos/pear-1.png", "--json").out)
    np.testing.assert_allclose(probabilities(one)[0], expected[3], rtol=1e-5, atol=1e-7)

    call("export", "kept/adapted.npz")
    elsewhere = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *sorted(map(str, (place / "new_photos").iterdir()))],
        cwd=place / "kept", capture_output=True, text=True, check=True,
    )  # fmt: skip
    np.testing.assert_allclose(json.loads(elsewhere.stdout), expected, rtol=1e-4, atol=1e-6)


ELSEWHERE = """
import json, sys, numpy as np
from jax import export
from PIL import Image
predict = export.deserialize(bytearray(open("adapted.stablehlo", "rb").read())).call
told = json.load(open("adapted.json"))
assert told["classes"] == ["apple", "pear", "plum"] and not told["invert"]
images = np.stack([np.asarray(Image.open(name)) for name in sys.argv[1:]])
print(json.dumps(predict((images / 255).astype("float32")).tolist()))
assert "mamljax" not in sys.modules and "flax" not in sys.modules
"""


def test_onnx_has_the_same_probabilities(place, call):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    call("adapt", "runs/own", "--support=my_classes", "--norm=support", "--output=other.npz")
    call("export", "other.npz", "--format=onnx")
    classifier = photos.load_classifier(place / "other.npz")
    images = np.random.default_rng(0).uniform(size=(5, SIDE, SIDE, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(place / "other.onnx")
    for number in (5, 1):
        (found,) = session.run(None, {session.get_inputs()[0].name: images[:number]})
        expected = photos.probabilities(classifier, images[:number])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_statistics_of_the_batch_are_warned_of(call):
    told = call("predict", "runs/own/model.npz", "new_photos", "--support=my_classes", "--json")
    assert labels(json.loads(told.out)) == RIGHT
    assert "depends on its neighbours" in told.err
    assert "--norm=support" in told.err


def test_other_ways_and_shots_than_in_training(call):
    # Two classes of three photos, where training had three of two. How well is measured by
    # `--suite=neighbours`: this network is too small a one to tell.
    found = call("predict", "runs/own", "--support=more", "--norm=support", "more/fig", "--csv").out
    rows = [*csv.DictReader(io.StringIO(found))]
    assert [*rows[0]] == ["photo", "class", "probability", "cherry", "fig"]
    assert [row["photo"] for row in rows] == [f"more/fig/{i}.png" for i in range(3)]
    for row in rows:
        assert float(row["cherry"]) + float(row["fig"]) == pytest.approx(1, rel=1e-5)
        assert float(row[row["class"]]) == float(row["probability"]) >= 0.5


def test_the_table_names_photo_class_and_probability(call):
    words = ["runs/own", "--support=my_classes", "--norm=support", "new_photos/plum-0.png"]
    table = call("predict", *words).out
    assert {"photo", "class", "probability", "plum", "new_photos/plum-0.png"} <= {*table.split()}


def test_python_does_the_same(place, call, capsys):
    words = ("runs/own", "new_photos", "--support=my_classes", "--norm=support", "--json")
    expected = json.loads(call("predict", *words).out)
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    snippet = re.search(r"<!-- snippet: photos -->\n```python\n(.*?)```", readme, re.DOTALL)[1]
    scope = {}
    exec(snippet, scope)
    printed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert printed == [[row["photo"], row["label"]] for row in expected]
    about = load_model("runs/own/model.npz").about
    assert about["classes"] == [f"class{i}" for i in range(8)]
    assert (place / "classifier.stablehlo").is_file()


def test_the_example_server_answers_a_request_with_a_photo(place, call):
    words = ["runs/own", "--support=my_classes", "--norm=support"]
    call("adapt", *words, "--output=served.npz")
    (told,) = json.loads(call("predict", "served.npz", "new_photos/plum-1.png", "--json").out)
    serve = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "serve.py"))
    with serve["server"](photos.load_classifier(place / "served.npz"), 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()

        def ask(content):
            connection = http.client.HTTPConnection("127.0.0.1", running.server_address[1])
            connection.request("POST", "/", content)
            answer = connection.getresponse()
            found = answer.status, json.loads(answer.read())
            connection.close()
            return found

        try:
            status, found = ask((place / "new_photos" / "plum-1.png").read_bytes())
            assert (status, found["label"]) == (200, "plum")
            assert found["probabilities"] == pytest.approx(told["probabilities"], rel=1e-4)
            status, found = ask(b"no photo")
            assert status == 400
            assert "is not a readable image" in found["error"]
        finally:
            running.shutdown()
            thread.join()
    with pytest.raises(ArgumentError, match="needs an adapted model with --norm=support"):
        serve["server"](photos.adapt(load_model(place / "runs" / "own"), place / "more"), 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "runs/own", "new_photos"], "knows no classes yet: give --support"),
        (["predict", "nowhere.npz", "new_photos"], "there is no file nowhere.npz"),
        (
            ["predict", "runs/own", "new_photos", "--support=new_photos"],
            "must hold images alone, at CLASS/IMAGE",
        ),
        (["predict", "runs/own", "x.png", "y.png", "--support=my_classes"], "no file x.png.*y.png"),
        (
            ["predict", "runs/own", "new_photos", "--support=my_classes", "--norm=layer"],
            "norm must be that of",
        ),
        (["adapt", "runs/own", "--support=images/none", "--output=a"], "no folder images/none"),
        (["export", "runs/own/model.npz"], "is a model, not a classifier"),
        (["predict", "runs/own/tasks.npz", "new_photos"], "without a description"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_a_line(call, words, message):
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        call(*words)
