"""The comparison of methods: `python -m experiments.benchmark --suite=methods`.

Every method gets the same tasks, network, meta-iterations and inner steps. Its inner step size is
chosen among `candidates` on validation tasks, after a short training of its own.
"""

from ml_collections import ConfigDict

METHODS = (
    "maml",
    "fomaml",
    "learned alpha",
    "meta_sgd",
    "meta_curvature",
    "maml_plus_plus",
    "anil",
    "boil",
    "cavia",
    "imaml",
    "reptile",
    "pretrain",
)
CLASSIFIERS = ("proto_maml",)
"""Further methods, for problems with classes."""


def get_config(problem: str) -> ConfigDict:
    """The config of one problem: sinusoid, glyphs or omniglot."""
    config = ConfigDict()
    config.problem = problem
    config.seeds = (0, 1, 2)
    config.methods = ",".join(METHODS)
    config.meta_lr = 1e-3  # Adam; Reptile moves a share of the way instead, from 1 falling to 0
    config.evaluate_tasks = 600
    config.tune_tasks = 200
    if problem == "sinusoid":
        config.cpu_threads, config.cpu_devices = 1, 1
        config.iterations, config.tune_iterations, config.every = 10_000, 2_000, 500
        config.meta_batch, config.num_steps = 25, 5
        config.shots, config.queries, config.test_queries = 10, 10, 100
        config.candidates = (0.001, 0.003, 0.01, 0.03, 0.1)
        config.context_candidates = (0.03, 0.1, 0.3, 1.0)  # of cavia
    else:
        config.methods = ",".join((*METHODS, *CLASSIFIERS))
        config.cpu_threads, config.cpu_devices = 0, 0
        # Tuning takes half as long as training: early on, step sizes look alike that end far apart.
        config.iterations, config.tune_iterations, config.every = 600, 300, 50
        config.meta_batch, config.num_steps = 16, 3
        config.ways, config.shots, config.queries, config.test_queries = 5, 1, 1, 1
        config.filters = 32
        config.candidates = (0.02, 0.1, 0.5)
        config.context_candidates = (1.0, 10.0, 100.0)
    return config
