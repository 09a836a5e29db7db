"""Half-cheetah and ant: Finn et al. 2017, section 5.3, figure 5, and appendix C.2.

    python -m experiments.locomotion --config=configs/locomotion.py:cheetah_direction \\
        --workdir=runs/cheetah_direction

Variants, given after a colon:
    cheetah_direction, cheetah_velocity, ant_direction, ant_velocity    as in the paper
    ant_goal         the ant with goal positions, as in the authors' code

Published mean returns after 0 / 1 / 2 / 3 steps, in MuJoCo: cheetah direction MAML -50.7 / 293.2 /
313.5 / 315.7, oracle 442.7; cheetah velocity -129.5 / -78.6 / -66.6 / -60.8, oracle -54.5; ant
direction 8.7 / 499.2 / 500.7 / 499.1, oracle 524.8; ant velocity 30.6 / 96.7 / 100.1 / 101.4,
oracle 107.9. Brax is another simulator with other time steps: compare the fraction of the gap to
the oracle that is closed. After one step MAML closes 0.70, 0.68, 0.95 and 0.86 of it in the paper.

What is the paper's: rewards, tasks, the clock, gears, where episodes start, 40 tasks of 20 episodes
(the ant's direction 40) of 200 steps, the network. What is ours: actions scaled, and a larger inner
step for them; lambda 0.9, and for the cheetah's direction a lower one and a lower discount at test;
a larger trust region, whose curvature sees a quarter of the ant's tasks. RESULTS.md has what was
measured.
"""

from ml_collections import ConfigDict

from configs.base import meta_rl, variants
from configs.base.ranges import Amount, Size

VARIANTS = (
    "cheetah_direction",
    "cheetah_velocity",
    "ant_direction",
    "ant_velocity",
    "ant_goal",
)


def get_config(variant: str = "cheetah_direction") -> ConfigDict:
    """The config of a variant."""
    variants.check(variant, VARIANTS)
    config = meta_rl.base(variant)
    config.methods = "maml,pretrain,random,oracle"
    config.env.horizon = 200
    config.env.backend = "spring"  # or generalized, positional, mjx
    # Seconds between two actions, 0 for the paper's: 0.01 for the cheetah, 0.02 for the ant. Brax's
    # own robots act every 0.05.
    config.env.dt = Amount(0.0)
    # Times the policy's actions. With 1, as in the paper, a policy of standard deviation 1 explores
    # by actions of which many are clipped (the metric `clipped`), and its gradients are mostly
    # noise: untrained, those of two draws of 20 episodes of one task have a cosine of 0.0 to 0.1.
    # With 0.1, as in ProMP, it is 0.45 to 0.7.
    config.env.action_scale = Size(0.1)
    config.env.start_noise = Amount(0.01)  # standard deviation of positions at the start
    config.train.meta_batch = 40
    config.train.curvature_support = 0  # 2 of 20 made the matrix 5 times too large
    config.train.curvature_query = 2
    if variant.startswith("ant"):
        # A quarter of the tasks costs a quarter, and the ant learns well by it. The cheetah's
        # direction did not: its return was 75 after 90 iterations, and is 97 after 40 with all.
        config.train.curvature_tasks, config.train.curvature_query = 10, 10
    config.train.rollout_chunk = config.evaluate.task_chunk = 5
    # The paper's lambda of 1 weighs each action by all rewards after it, which is mostly noise. In
    # the cheetah's direction an inner step sees less far still at test (RESULTS.md has what that
    # gains). The others lose by it: the ant's direction comes to 163 instead of 236.
    config.train.gae_lambda = 0.9
    if variant == "cheetah_direction":
        config.evaluate.gae_lambda, config.evaluate.discount = 0.7, 0.95
    config.train.inner_lr = 1.0  # actions are smaller than the paper's, and so are gradients
    # The authors' test scripts name 0.02 after 100 iterations for the cheetah's direction, and 0.01
    # after 475, 375 and 575 for its velocity, the ant's velocity and its direction (where the test
    # steps after the first are 0.01 of it). With 0.1 MAML needs half as many as with 0.03.
    config.train.max_kl = 0.1
    # The paper has 10. With them MAML's return on the cheetah's direction was 72 after 13
    # iterations, and still after 65.
    config.train.cg_iterations = 5
    if variant == "cheetah_velocity":
        # With 0.1 and 1 the oracle came to -129, hardly beyond one speed for all goals.
        config.env.action_scale, config.train.inner_lr = 0.3, 0.5
    if variant == "ant_direction":
        config.train.episodes = 40
    if variant.endswith("direction"):
        # At test the steps after the first are this part of it. By halves, as elsewhere, they lose
        # what it gained. The authors' script for the ant's direction names 0.01.
        config.evaluate.later_steps = 0.1
    config.tune.candidates = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    config.log.every = 1
    config.log.checkpoint_every = 10
    return config
