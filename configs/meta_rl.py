"""What the configs of meta-reinforcement learning share."""

from typing import Any

from ml_collections import ConfigDict


def base(name: str) -> Any:
    """The config of an environment; the files that use it change what is particular to it."""
    config = ConfigDict()
    config.seed = 0  # of parameters, training tasks and test tasks
    # What is trained and tested, separated by commas: maml, pretrain, random, oracle, context.
    config.methods = "maml,pretrain,random,oracle,context"
    # The tasks are split over this many CPU devices, 0 for one per core, as far as that divides
    # them.
    config.cpu_devices = 0
    config.cpu_threads = 0  # threads that one operation may use, 0 for all cores

    config.env = ConfigDict()
    config.env.name = name  # of the environment, as the variant says
    config.env.horizon = 100  # steps of an episode

    config.model = ConfigDict()
    config.model.hidden = (100, 100)  # units of the policy's hidden layers
    config.model.init_std = 1.0  # of actions, before training
    config.model.context_size = 5  # parameters that adapt (context), appended to the observation

    config.train = ConfigDict()
    config.train.num_iterations = 500  # meta-iterations in all, for the baselines too
    config.train.meta_batch = 20  # tasks per meta-iteration
    config.train.episodes = 20  # per gradient step
    config.train.num_inner_steps = 1  # gradient steps, each on episodes of its own
    config.train.inner_lr = 0.1  # step size of the inner steps
    config.train.inner_loss = "reinforce"  # or likelihood_ratio (LVC), dice
    config.train.first_order = False  # leave second derivatives out of the meta-gradient
    config.train.discount = 0.99  # of rewards (gamma)
    config.train.gae_lambda = 1.0  # of generalised advantage estimation (lambda)
    config.train.max_kl = 0.01  # size of the trust region
    config.train.cg_iterations = 10  # of conjugate gradients, for the natural gradient
    # Added to the diagonal of the Fisher matrix. The authors have 1e-5, with products by finite
    # differences. The exact matrix hardly feels directions that change the policy before adaptation
    # alone; with 1e-5 some seeds run away along them.
    config.train.damping = 1e-2
    # Episodes of each support and query set that the Fisher matrix sees, 0 for all; the gradient
    # and the line search always see all.
    config.train.curvature_support = config.train.curvature_query = 5
    config.train.rollout_chunk = 0  # tasks that are simulated at a time on a device, 0 for all
    config.train.task_chunk = 0  # tasks that are differentiated at a time, 0 for what is fastest

    config.log = ConfigDict()
    config.log.chunk = 5  # iterations per compiled call, between two log lines
    config.log.checkpoint_every = 25  # iterations

    config.validate = ConfigDict()  # the checkpoint with the best return on these tasks is tested
    config.validate.num_tasks = 40  # at every checkpoint

    config.evaluate = ConfigDict()
    config.evaluate.num_tasks = 40  # test tasks
    config.evaluate.episodes = 20  # per gradient step, and for each return
    config.evaluate.num_inner_steps = 3  # every number of steps up to it is tested
    config.evaluate.inner_lr = config.train.inner_lr  # step size at test
    config.evaluate.gae_lambda = config.train.gae_lambda  # lambda at test
    config.evaluate.later_steps = 0.5  # times inner_lr, after the first step
    config.evaluate.task_chunk = 0  # tasks that are adapted to at a time, 0 for what is fastest

    config.tune = ConfigDict()  # of step sizes at test, on tasks of their own
    config.tune.methods = "pretrain,random"  # the others keep evaluate.inner_lr
    config.tune.num_tasks = 20  # for every candidate
    # Step sizes; the one that is best on average over the inner steps is taken.
    config.tune.candidates = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    return config
