"""Sinusoid regression: Finn et al. 2017, section 5.1 (figures 2, 3, 6, 7) and table 2.

    python -m experiments.sinusoid --config=configs/sinusoid.py --workdir=runs/sinusoid

Variants, given after a colon (``configs/sinusoid.py:fomaml``):
    maml     the default: MAML, pretraining and the oracle, 70,000 iterations each
    fomaml   first-order MAML instead of MAML
    table2   also the three multi-task averaging baselines
    paper    the paper's inner step size instead of the authors' code's, see below
    quick    10,000 iterations and 200 test tasks: a minute, to see everything work

Expected (seed 0, 5-shot MSE after 1 / 5 / 10 steps): MAML 0.64 / 0.32 / 0.29 (paper 0.67 / 0.38 /
0.35), pretrain 2.69 / 2.49 / 2.52 (paper 2.41 / 2.23 / 2.19). Two minutes on 2 cores, eight with
table2, one with quick.

Where the paper and the authors' code differ: the inner step size is 0.01 in the paper's text and
0.001 by default in their code. 0.001 reproduces table 2. With 0.01 about one 5-shot task in 500
diverges when more than a few steps are taken, and ruins the mean.
"""

import math

from ml_collections import ConfigDict

from configs.base import variants
from configs.base.ranges import Amount, Count, Counts, Range, Size

VARIANTS = ("maml", "fomaml", "table2", "paper", "quick")


def get_config(variant: str = "maml") -> ConfigDict:
    """The config of a variant."""
    variants.check(variant, VARIANTS)
    config = ConfigDict()
    config.seed = Amount(0)  # of parameters, training tasks and test tasks
    # Threads that one operation may use, 0 for all cores. Handing work of this size from thread to
    # thread costs more than the work.
    config.cpu_threads = Amount(1)

    config.weights = ConfigDict()
    config.weights.test = ""  # the model.npz of a run, to be tested without training

    config.model = ConfigDict()
    config.model.hidden = Counts((40, 40))  # units of the hidden layers
    config.model.init_std = Size(0.01)  # of the weights, truncated normal

    config.task = ConfigDict()
    config.task.amplitude = Range((0.1, 5.0))  # smallest and largest
    config.task.phase = Range((0.0, math.pi))  # smallest and largest
    config.task.inputs = Range((-5.0, 5.0))  # smallest and largest

    config.train = ConfigDict()
    # maml, or fomaml without second derivatives
    config.train.method = "fomaml" if variant == "fomaml" else "maml"
    # step size on the support set
    config.train.inner_lr = Amount(0.01 if variant == "paper" else 0.001)
    config.train.num_inner_steps = Count(1)  # gradient steps on the support set
    config.train.shots = Count(10)  # support points per task
    config.train.queries = Count(10)  # query points per task
    config.train.meta_batch = Count(25)  # tasks per meta-iteration
    config.train.meta_lr = Size(1e-3)  # of Adam, for the baselines too
    config.train.num_iterations = Count(70_000)  # meta-iterations in all, for the baselines too

    config.log = ConfigDict()
    config.log.every = Count(1_000)  # iterations per compiled call, between two log lines
    config.log.checkpoint_every = Count(5_000)  # iterations

    config.evaluate = ConfigDict()
    config.evaluate.num_tasks = Count(600)  # test tasks
    config.evaluate.shots = Count((5, 10, 20))  # support points; each number gives a row
    # Query points per test task. The expected error does not depend on how many; its noise does.
    config.evaluate.queries = Count(100)
    config.evaluate.num_inner_steps = Count(10)  # every number of steps up to it is tested
    # Step size at test, that of training unless it is set; the baselines' is tuned.
    config.evaluate.inner_lr = Amount(config.train.get_ref("inner_lr"))

    config.tune = ConfigDict()  # of the baselines' fine-tuning step size, on tasks of their own
    config.tune.num_tasks = Count(600)  # for every candidate
    # step sizes; the one that is best on average over the inner steps is taken
    config.tune.candidates = Amount((0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1))

    config.averaging = ConfigDict()  # baselines that average over one regressor per task
    config.averaging.enabled = variant == "table2"  # whether they are trained
    config.averaging.num_regressors = Count(500)  # each of one task
    config.averaging.num_steps = Count(4_000)  # iterations of training each
    config.averaging.points = Count(100)  # of each regressor's own sinusoid
    config.averaging.learning_rate = Size(3e-3)  # Adam, decaying to 0 along a cosine
    # Random weights that each begins from: own, common to all, or those of the previous one when it
    # was trained. With common ones two of the paper's three rows come out, see RESULTS.md.
    config.averaging.start = "common"
    # The strongest penalty that keeps the mean error of the regressors below max_error is used,
    # as the paper asks; it is chosen on the first sweep_regressors tasks.
    config.averaging.max_error = Size(0.02)
    config.averaging.sweep_regressors = Count(50)  # tasks on which the penalty is chosen
    # penalties that are tried
    config.averaging.strengths = Amount(
        (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)
    )

    if variant == "quick":
        config.train.num_iterations = 10_000
        config.evaluate.num_tasks = 200
        config.tune.num_tasks = 200
    return config
