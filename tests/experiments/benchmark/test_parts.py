"""Suites that are measured part by part: what grows how, and what a GPU is measured on."""

import json

import pytest

from configs import omniglot as omniglot_config
from experiments.benchmark import compiling, gpu, growth, parts, profiles, steps


@pytest.mark.slow
def test_what_a_gpu_is_measured_on_runs_here_too_and_goes_on(tmp_path, capsys):
    def smaller(config):
        config.train.meta_batch = 2
        if "task" in config:
            config.model.filters, config.train.queries, config.train.num_inner_steps = 2, 1, 1
            config.train.num_iterations, config.log.every = 4, 2
        else:
            config.env.horizon, config.train.episodes = 2, 2

    measured = gpu.measured(seconds=0.01, repeats=1, change=smaller)
    assert [name.split(",")[0] for name in measured] == [
        *["tuning"] * 2,
        *["to the end"] * 2,
        *["race"] * 2,
        *["precision"] * 2,
        *["task chunks"] * 2,
        *["simulation"] * 2,
    ]
    wanted = (
        "tuning, omniglot",
        "to the end, omniglot",
        "precision, omniglot",
        "task chunks, omniglot",
    )
    few = {name: measured[name] for name in wanted}
    output = tmp_path / "gpu.json"
    found = parts.run("gpu", output, few)["parts"]
    assert found == json.loads(output.read_text())["parts"]
    assert found["to the end, omniglot"]["iterations"] == 4
    assert found["to the end, omniglot"]["hours_of_60000"] > 0
    assert [row["tried"] for row in found["tuning, omniglot"]] == [*gpu.TUNING]
    assert all(row["compile_seconds"] > 0 for row in found["tuning, omniglot"])
    best, *_, worst = found["precision, omniglot"]
    assert (best["precision"], best["error"]) == ("highest", 0)
    assert worst["milliseconds"] > 0
    assert [row["task_chunk"] for row in found["task chunks, omniglot"]] == [1, 2]
    assert "hours_of_60000" in capsys.readouterr().out

    def never():
        raise AssertionError("measured again")

    again = parts.run("gpu", output, dict.fromkeys(few, never))
    assert again["parts"] == found


def test_goes_on_with_what_is_missing(tmp_path, capsys):
    def never():
        raise AssertionError("measured again")

    output = tmp_path / "new" / "some.json"
    rows = [{"size": 1, "form": "a"}, {"size": 2, "form": None}]
    parts.run("some", output, {"first": lambda: rows})
    found = parts.run("some", output, {"first": never, "second": lambda: {"seconds": 1234.5}})
    assert found["parts"] == {"first": rows, "second": {"seconds": 1234.5}}
    assert json.loads(output.read_text())["parts"] == found["parts"]
    assert "1,23" in capsys.readouterr().out


def test_single_rows_share_a_table(capsys):
    parts.show({"one": {"seconds": 1.0}, "list": [{"size": 3}], "two": {"seconds": 25.0}})
    *_, one, two, _ = capsys.readouterr().out.splitlines()
    assert one.split()[1:4:2] == ["one", "1"]
    assert two.split()[1:4:2] == ["two", "25"]


@pytest.mark.slow
def test_the_race_and_the_simulation_of_a_gpu_run_here_too(tmp_path, capsys):
    config = steps.SUITES["omniglot"][1]()
    config.train.meta_batch, config.model.filters, config.log.every = 2, 2, 2
    measured = {"race, omniglot": lambda: gpu.beside_torch("omniglot", config, 0.01, 1)}
    parts.run("gpu", tmp_path / "gpu.json", measured)
    assert "mamljax_is_times_faster" in capsys.readouterr().out

    config = gpu.locomotion_config.get_config("cheetah_direction")
    config.train.meta_batch, config.train.episodes, config.env.horizon = 2, 2, 2
    rates = gpu.simulation(config, 0.01)
    assert set(rates) == {"random actions", "rollouts"}
    assert min(rates.values()) > 0


def few_filters(config):
    config.model.filters, config.train.queries = 4, 2


@pytest.fixture
def small():
    """The problem whose growth is measured, with few filters."""
    measured = growth.measured(seconds=0.0, change=few_filters)
    problem, *_ = measured["growth, tasks"].args
    return problem


def megabytes(rows, form):
    return [row["temporary_megabytes"] for row in rows if row["form"] == form]


def test_memory_does_not_grow_with_tasks_taken_one_at_a_time(small, monkeypatch):
    without_remat = {form: what for form, what in growth.FORMS.items() if not what[1]}
    monkeypatch.setattr(growth, "FORMS", without_remat)
    axis = growth.GROWTH["tasks"]._replace(sizes=(4, 16))
    rows = growth.growth(small, axis, seconds=0.0)
    assert [row["size"] for row in rows] == [4] * 2 + [16] * 2
    assert min(row["milliseconds"] for row in rows) > 0
    few, many = megabytes(rows, "all tasks at once")
    assert 3 < many / few < 5
    few, many = megabytes(rows, "one task at a time")
    images = 5 * (1 + 2) * 28 * 28 * 4 / 1e6
    assert many - few < 1.1 * 12 * images  # a copy of the data at most


def test_growth_is_drawn_in_every_form(tmp_path):
    found = {
        f"growth, {name}": [
            {"size": size, "form": form, "milliseconds": 2.0 * size, "temporary_megabytes": 1.0}
            for size in axis.sizes
            for form in growth.FORMS
        ]
        for name, axis in growth.GROWTH.items()
    }
    growth.draw(tmp_path / "growth.png", found)
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_recomputed_inner_steps_need_less_memory(small):
    axis = growth.GROWTH["inner steps"]._replace(sizes=(2, 8))
    rows = growth.growth(small, axis, seconds=0.0)
    for number in ("all at once", "one at a time"):
        few, many = megabytes(rows, f"{number}, remat")
        assert many / few < 2
    few, many = megabytes(rows, "all tasks at once")
    assert many / few > 2


@pytest.mark.slow
def test_the_largest_tasks_that_fit(small):
    rows = growth.largest(small, growth.LARGEST["tasks"], budget=0.02)
    found = {row["form"]: row["largest"] for row in rows}
    assert list(found) == list(growth.FORMS)
    assert found["one task at a time"] > found["all tasks at once"] >= 4
    assert all(row["gigabytes"] <= 0.02 for row in rows)


@pytest.mark.parametrize(
    ("needs", "power", "expected"),
    [
        (lambda n: 1.0 + 2**n, 1, 3),  # 9 of 10
        (lambda n: 1.0 + 4**n, 2, 1),  # 5 of 10
        (lambda n: 11.0, 1, -1),
        (lambda n: 5.0, 1, 20),  # no end to it
        (lambda n: [1, 1, 1, 1, 9, 11][min(n, 5)], 1, 4),  # rises later than the first two tell
        (lambda n: [1, 2, 11][min(n, 2)], 1, 1),  # and earlier
    ],
)
def test_looks_for_the_last_that_fits(needs, power, expected):
    assert growth._last_below(needs, 10.0, power) == expected


def test_compiling_is_measured_for_every_image_config():
    measured = compiling.measured()
    assert list(measured) == ["omniglot", "miniimagenet", "cifar_fs"]
    assert [len(function.args[0]) for function in measured.values()] == [52, 26, 26]


@pytest.mark.slow
def test_seconds_of_compiling_come_in_order():
    configs, image_shape = compiling.measured(["", "prototypical"])["omniglot"].args
    for config in configs.values():
        config.model.filters = config.train.meta_batch = 2
    chosen = {name: configs[name] for name in ("5way1shot", "5way1shot_prototypical")}
    rows = compiling.table(chosen, image_shape)
    assert {row["variant"] for row in rows} == set(chosen)
    assert rows[0]["compile_seconds"] >= rows[1]["compile_seconds"] > 0


def test_a_profile_tells_what_time_is_spent_on():
    config = omniglot_config.get_config()
    config.model.filters, config.train.meta_batch, config.train.queries = 4, 2, 1
    rows = profiles.profile(config, lambda: steps.noise((28, 28, 1)))
    shares = {row["kind"]: row["share"] for row in rows}
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares[kind] for kind in ("matrix products", "patches", "norm, ReLU, pooling")) > 0
    assert [row["milliseconds"] for row in rows] == sorted(
        (row["milliseconds"] for row in rows), reverse=True
    )


def test_operations_are_sorted_by_where_they_stem_from():
    program = """
%fused (a: f32[2,3], b: f32[3,4]) -> f32[2,4] {
  ROOT %dot.1 = f32[2,4]{1,0} dot(%a, %b), metadata={op_name="jit(f)/block_0/conv/dot_general"}
}

ENTRY %main (x: f32[2,3]) -> f32[2,4] {
  %loop = (s32[], f32[2,3]{1,0}) while(%tuple), condition=%c, body=%d
  %product = f32[2,4]{1,0} fusion(%x, %y), kind=kCustom, calls=%fused
  %direct = f32[2,4]{1,0} convolution(%x, %y), metadata={op_name="jit(f)/block_0/conv/general"}
  %slices = f32[2,3]{1,0} fusion(%x), calls=%e, metadata={op_name="jit(f)/block_0/conv/slice"}
  %mean = f32[3]{0} reduce(%x, %zero), metadata={op_name="jit(f)/block_0/norm/reduce_sum"}
  %all = f32[3]{0} all-reduce(%mean), metadata={op_name="jit(f)/shard_map/psum"}
  ROOT %copy.2 = f32[2,4]{1,0} copy(%product)
}
"""
    assert profiles.sort_operations(program) == {
        "dot.1": "matrix products",
        "product": "matrix products",
        "direct": "matrix products",
        "slices": "patches",
        "mean": "norm, ReLU, pooling",
        "all": "waiting for the other device",
        "copy.2": "storing, copying, the rest",
    }
