"""What the configs of meta-reinforcement learning share."""

from typing import Any

from ml_collections import ConfigDict


def base(name: str) -> Any:
    """The config of an environment; the files that use it change what is particular to it."""
    config = ConfigDict()
    config.seed = 0
    # Trained and tested, separated by commas: maml, pretrain, random, oracle, context.
    config.methods = "maml,pretrain,random,oracle,context"
    # The tasks are split over this many CPU devices, 0 for one per core, as far as that divides
    # them.
    config.cpu_devices = 0
    config.cpu_threads = 0  # that one operation may use, 0 for all cores

    config.env = ConfigDict()
    config.env.name = name
    config.env.horizon = 100  # steps of an episode

    config.model = ConfigDict()
    config.model.hidden = (100, 100)
    config.model.init_std = 1.0
    config.model.context_size = 5  # parameters that adapt (context), appended to the observation

    config.train = ConfigDict()
    config.train.num_iterations = 500  # for the baselines too
    config.train.meta_batch = 20
    config.train.episodes = 20  # per gradient step
    config.train.num_inner_steps = 1
    config.train.inner_lr = 0.1
    config.train.inner_loss = "reinforce"  # or likelihood_ratio (LVC), dice
    config.train.first_order = False
    config.train.discount = 0.99
    config.train.gae_lambda = 1.0
    config.train.max_kl = 0.01
    config.train.cg_iterations = 10
    # The authors have 1e-5, with products by finite differences. The exact matrix hardly feels
    # directions that change the policy before adaptation alone; with 1e-5 some seeds run away along
    # them.
    config.train.damping = 1e-2
    # Episodes of each support and query set that the Fisher matrix sees, 0 for all; the gradient
    # and the line search always see all.
    config.train.curvature_support = 5
    config.train.curvature_query = 5
    config.train.rollout_chunk = 0  # tasks that are simulated at a time on a device, 0 for all
    config.train.task_chunk = 0  # tasks that are differentiated at a time, 0 for what is fastest

    config.log = ConfigDict()
    config.log.chunk = 5  # iterations per compiled call, between two log lines
    config.log.checkpoint_every = 25

    config.validate = ConfigDict()  # the checkpoint with the best return on these tasks is tested
    config.validate.num_tasks = 40

    config.evaluate = ConfigDict()
    config.evaluate.num_tasks = 40
    config.evaluate.episodes = 20  # per gradient step, and for each return
    config.evaluate.num_inner_steps = 3
    config.evaluate.inner_lr = config.train.inner_lr
    config.evaluate.later_steps = 0.5  # times inner_lr, after the first step
    config.evaluate.task_chunk = 0  # tasks that are adapted to at a time, 0 for what is fastest

    config.tune = ConfigDict()  # of step sizes at test, on tasks of their own
    config.tune.methods = "pretrain,random"  # the others keep evaluate.inner_lr
    config.tune.num_tasks = 20
    config.tune.candidates = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    return config
