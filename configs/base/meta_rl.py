"""Values that the configs of meta-reinforcement learning share."""

from typing import Any

from ml_collections import ConfigDict

from configs.base.ranges import Amount, Count, Counts, Fraction, Size


def base(name: str) -> Any:
    """The config of an environment; the files that use it change what is particular to it."""
    config = ConfigDict()
    config.seed = Amount(0)  # of parameters, training tasks and test tasks
    # What is trained and tested, separated by commas: maml, pretrain, random, oracle, context, rl2.
    config.methods = "maml,pretrain,random,oracle,context"
    # The tasks are split over this many CPU devices, 0 for one per core, as far as that divides
    # them.
    config.cpu_devices = Amount(0)
    config.cpu_threads = Amount(0)  # threads that one operation may use, 0 for all cores

    config.env = ConfigDict()
    config.env.name = name  # of the environment, as the variant says
    config.env.horizon = Count(100)  # steps of an episode

    config.weights = ConfigDict()
    config.weights.test = ""  # the model.npz of a run, to be tested without training

    config.model = ConfigDict()
    config.model.hidden = Counts((100, 100))  # units of the policy's hidden layers
    config.model.init_std = Size(1.0)  # of actions, before training
    # Parameters that adapt (method context), appended to the observation.
    config.model.context_size = Amount(5)
    config.model.memory = Count(100)  # recurrent units (method rl2)
    # Steps: untrained, each unit remembers for a number of its own up to it (method rl2).
    config.model.timescale = Count(100)

    config.train = ConfigDict()
    config.train.num_iterations = Count(500)  # meta-iterations in all, for the baselines too
    config.train.meta_batch = Count(20)  # tasks per meta-iteration
    config.train.episodes = Count(20)  # per gradient step
    config.train.trial_episodes = Count(4)  # of a trial (method rl2)
    config.train.num_inner_steps = Count(1)  # gradient steps, each on episodes of its own
    config.train.inner_lr = Amount(0.1)  # step size of the inner steps
    config.train.inner_loss = "reinforce"  # or likelihood_ratio (LVC), dice
    config.train.first_order = False  # leave second derivatives out of the meta-gradient
    config.train.discount = Fraction(0.99)  # of rewards (gamma)
    config.train.gae_lambda = Fraction(1.0)  # of generalised advantage estimation (lambda)
    config.train.max_kl = Size(0.01)  # size of the trust region
    config.train.max_kl_end = Amount(0.0)  # its size in the end, 0 to keep it
    config.train.kl_decay_from = Amount(0)  # meta-iteration from which it changes, geometrically
    config.train.kl_decay = Count(100)  # meta-iterations that the change takes
    config.train.cg_iterations = Count(10)  # of conjugate gradients, for the natural gradient
    # Added to the diagonal of the Fisher matrix. The authors have 1e-5, with products by finite
    # differences. The exact matrix hardly feels directions that change the policy before adaptation
    # alone; with 1e-5 some seeds run away along them.
    config.train.damping = Amount(1e-2)
    config.train.curvature_tasks = Amount(0)  # tasks that the Fisher matrix sees, 0 for all
    # Episodes of each support set that it sees, 0 for all; the gradient and the line search always
    # see all tasks and episodes.
    config.train.curvature_support = Amount(5)
    config.train.curvature_query = Amount(5)  # likewise, of each query set
    # Tasks that are simulated at a time on a device, 0 for all.
    config.train.rollout_chunk = Amount(0)
    # Tasks that are differentiated at a time, 0 for what is fastest.
    config.train.task_chunk = Amount(0)

    config.log = ConfigDict()
    config.log.every = Count(5)  # iterations per compiled call, between two log lines
    config.log.checkpoint_every = Count(25)  # iterations

    config.validate = ConfigDict()  # the checkpoint with the best return on these tasks is tested
    config.validate.num_tasks = Count(40)  # at every checkpoint
    # Meta-iterations without a better return there after which training ends; 0 for never.
    config.validate.patience = Amount(0)

    config.evaluate = ConfigDict()
    config.evaluate.num_tasks = Count(40)  # test tasks
    # Per gradient step, and for each return: as in training unless it is set.
    config.evaluate.episodes = Count(config.train.get_ref("episodes"))
    config.evaluate.num_inner_steps = Count(3)  # every number of steps up to it is tested
    # Step size at test: that of training unless it is set.
    config.evaluate.inner_lr = Amount(config.train.get_ref("inner_lr"))
    # Discount of the rewards that inner steps see at test, likewise.
    config.evaluate.discount = Fraction(config.train.get_ref("discount"))
    # Lambda at test, likewise.
    config.evaluate.gae_lambda = Fraction(config.train.get_ref("gae_lambda"))
    config.evaluate.later_steps = Amount(0.5)  # times inner_lr, after the first step
    # Tasks that are adapted to at a time, 0 for what is fastest.
    config.evaluate.task_chunk = Amount(0)

    config.tune = ConfigDict()  # of step sizes at test, on tasks of their own
    config.tune.methods = "pretrain,random"  # the others keep evaluate.inner_lr
    config.tune.num_tasks = Count(20)  # for every candidate
    # Step sizes; the one that is best on average over the inner steps is taken.
    config.tune.candidates = Amount((0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0))
    return config
