"""What the configs of few-shot image classification share."""

from typing import Any

from ml_collections import ConfigDict


def base(source: str, ways: int, shots: int) -> Any:
    """The config of MAML on an image set; the files that use it change what is particular to it."""
    config = ConfigDict()
    config.seed = 0
    config.method = "maml"  # or one of experiments.few_shot_methods.METHODS
    # The tasks of a meta-batch are split over this many CPU devices, 0 for one per core, as far as
    # that divides them. Better than many threads per operation; without effect on a GPU.
    config.cpu_devices = 0
    config.cpu_threads = 0  # that one operation may use, 0 for all cores

    config.data = ConfigDict()
    config.data.source = source  # glyphs needs no files and runs anywhere
    config.data.dir = f"data/{source}"  # where the files of the set are
    config.data.cache = ""  # where the prepared set is kept, ~/.cache/mamljax/data by default
    config.data.scheme = ""  # which classes train and test, see mamljax.data.SCHEMES
    config.data.download = False  # fetch what is missing (omniglot only)
    config.data.image_size = (84, 84)  # of your own images (source=folder)
    config.data.rotate = False  # turn the images of each class by a multiple of 90 degrees

    # Test these instead of training: the weights.npz of a run, or weights that others trained, see
    # mamljax.models.weights.
    config.weights = ""

    config.task = ConfigDict()
    config.task.ways = ways
    config.task.shots = shots

    config.model = ConfigDict()
    config.model.network = source if source in ("omniglot", "miniimagenet") else "miniimagenet"
    config.model.filters = 0  # per convolution, 0 for the network's own number
    config.model.norm = "batch"  # statistics of the current batch; or layer, none
    config.model.norm_scale = False  # the authors have no factor (gamma),
    config.model.norm_offset = True  # only a shift (beta),
    config.model.adapt_norm = False  # which is meta-learned and does not adapt
    config.model.context_channels = 3  # of the context (method=context), added to the image's

    config.train = ConfigDict()
    config.train.num_iterations = 60_000
    config.train.meta_batch = 4
    config.train.queries = shots  # query images per class
    config.train.minibatch = 64  # images per iteration (method=pretrained)
    config.train.num_inner_steps = 5
    config.train.inner_lr = 0.05  # for the mean cross-entropy: N times the authors' number
    config.train.meta_lr = 1e-3  # Adam
    config.train.clip = 0.0  # of each entry of the meta-gradient of the mean loss, 0 for none
    config.train.task_chunk = 1  # tasks whose gradient is taken at a time, on each device
    config.train.remat = False  # recompute inner steps in the backward pass: less memory, slower

    config.log = ConfigDict()
    config.log.chunk = 100  # iterations per compiled call, between two log lines
    config.log.checkpoint_every = 1_000

    # The checkpoint with the best accuracy on these tasks is the one that is tested. Where a
    # scheme has no validation classes (omniglot's "paper"), it is the last one.
    config.validate = ConfigDict()
    config.validate.num_tasks = 200

    config.evaluate = ConfigDict()
    config.evaluate.split = "test"
    config.evaluate.num_tasks = 600
    config.evaluate.queries = (shots,)  # query images per class; each number gives a row
    config.evaluate.num_inner_steps = 10
    config.evaluate.inner_lr = config.train.inner_lr
    config.evaluate.task_chunk = 1

    config.tune = ConfigDict()  # of the step size of fine-tuning, on validation tasks
    config.tune.num_tasks = 100
    config.tune.candidates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    return config
