"""Values that the configs of few-shot image classification share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs.base import variants
from configs.base.ranges import Amount, Count, Fraction, Fractions, Size

OPTIONS = (
    "fomaml",
    "context",
    "proto_maml",
    "dense",
    "prototypical",
    "matching",
    "siamese",
    "mann",
    "memory",
    "statistician",
    "lstm",
    "pretrained",
)
"""Options that a variant may add to its setting, as in ``5way1shot_fomaml``: another method than
MAML, or ``dense``, MAML with the network without convolutions."""


class Variant(NamedTuple):
    """Ways, shots, and one of `OPTIONS` or nothing."""

    ways: int
    shots: int
    option: str


def parse(variant: str, settings: Sequence[str], others: Sequence[str] = ()) -> Variant:
    """Read a variant such as ``5way1shot_fomaml``; a ValueError names those that there are."""
    combined = [f"{setting}_{option}" for setting in settings for option in OPTIONS]
    variants.check(variant, [*settings, *combined, *others])
    setting, _, option = variant.partition("_")
    ways, shots = (int(number) for number in setting.removesuffix("shot").split("way"))
    return Variant(ways, shots, option)


def base(source: str, network: str, variant: Variant) -> Any:
    """The config of an image set; the files that use it change what is particular to it."""
    ways, shots, option = variant
    config = ConfigDict()
    config.seed = Amount(0)  # of parameters, training tasks and test tasks
    # One of maml, fomaml, context, proto_maml (MAML from the prototypes of the classes),
    # prototypical, matching, siamese, mann, memory (a memory of keys), statistician (an autoencoder
    # of sets), lstm (a recurrent network makes the updates), or pretrained: one classifier of all
    # training classes, fine-tuned, and nearest neighbours by its features and by pixels.
    config.method = "maml" if option in ("", "dense") else option
    # The tasks of a meta-batch are split over this many CPU devices, 0 for one per core, as far as
    # that divides them. Better than many threads per operation; without effect on a GPU.
    config.cpu_devices = Amount(0)
    config.cpu_threads = Amount(0)  # threads that one operation may use, 0 for all cores

    config.data = ConfigDict()
    # omniglot, miniimagenet, cifar_fs, fc100, tieredimagenet, cub; folder for your own images;
    # glyphs, characters drawn from fonts, needs no files and runs anywhere.
    config.data.source = source
    config.data.dir = f"data/{source}"  # where the files of the set are
    config.data.cache = ""  # where the prepared set is kept, ~/.cache/mamljax/data by default
    config.data.scheme = ""  # which classes train and test, see mamljax.data.SCHEMES
    config.data.download = False  # fetch what is missing (omniglot only)
    # Read images from the prepared set as they are drawn, for sets too large to be kept in memory;
    # they are the same ones.
    config.data.on_disk = False
    config.data.image_size = Count((84, 84))  # height and width of your own images (source=folder)
    config.data.resize = False  # bring your own images to that size instead of refusing others
    config.data.grayscale = False  # read your own images in one channel instead of three
    # Of your own images, where all classes lie in train/, or right in the folder: the shares of
    # classes to train, validate and test on, such as 0.8,0.1,0.1. Empty where folders say it.
    config.data.split = Fractions(())
    config.data.split_seed = Amount(0)  # decides which class belongs to which of these
    config.data.rotate = False  # turn the images of each class by a multiple of 90 degrees
    config.data.augment = ConfigDict()  # of training images, anew in every draw
    config.data.augment.flip = False  # mirror left and right, every other image
    config.data.augment.crop = Amount(0)  # move by up to this many pixels along both axes
    # Change brightness, contrast and saturation by up to this share, 0.4 being usual.
    config.data.augment.colour = Fraction(0.0)

    # Files: the model.npz of a run, or weights that others trained, see mamljax.models.weights.
    config.weights = ConfigDict()
    config.weights.test = ""  # test these instead of training
    # Begin training from these, the whole network or what of it the file has. A run of `pretrained`
    # gives its network without the classifier.
    config.weights.start = ""
    config.weights.only = ""  # of these, arrays in whose name this regular expression is found

    config.task = ConfigDict()
    config.task.ways = Count(ways)  # classes per task
    config.task.shots = Count(shots)  # support images per class

    config.model = ConfigDict()
    # omniglot (strided convolutions), miniimagenet (max-pooling) or dense: the paper's networks; or
    # resnet12, of Lee et al. 2019.
    config.model.network = "dense" if option == "dense" else network
    # Filters of every convolution, of resnet12 in its first block; 0 for the network's own number.
    config.model.filters = Amount(0)
    # By statistics of the current batch; or support (predictions by those of the support set, so
    # that they do not depend on each other), layer, none.
    config.model.norm = "batch"
    config.model.norm_scale = False  # a factor (gamma) after the norm; the authors have none
    config.model.norm_offset = True  # a shift (beta) after the norm
    config.model.adapt_norm = False  # whether both adapt, or are only meta-learned
    config.model.context_channels = Amount(3)  # that the context adds to the image (method=context)

    config.train = ConfigDict()
    config.train.num_iterations = Count(60_000)  # meta-iterations in all
    config.train.meta_batch = Count(4)  # tasks per meta-iteration
    config.train.queries = Count(shots)  # query images per class
    # Images whose statistics are taken together (method=pretrained); an iteration takes meta_batch
    # such minibatches.
    config.train.minibatch = Count(32)
    config.train.num_inner_steps = Count(5)  # gradient steps on the support set
    # Step size on the support set, for the mean cross-entropy: N times the authors' number.
    config.train.inner_lr = Amount(0.05)
    config.train.meta_lr = Size(1e-3)  # of Adam, on the meta-parameters
    # Largest size of an entry of the meta-gradient (of the mean loss), 0 for no limit.
    config.train.clip = Amount(0.0)
    config.train.clip_norm = Amount(0.0)  # largest norm of the meta-gradient, 0 for no limit
    # Tasks whose gradient is taken at a time, on each device; 0 for what is fastest.
    config.train.task_chunk = Amount(0)
    config.train.remat = False  # recompute inner steps in the backward pass: less memory, slower

    config.log = ConfigDict()
    config.log.every = Count(100)  # iterations per compiled call, between two log lines
    config.log.checkpoint_every = Count(1_000)  # iterations

    # The checkpoint with the best accuracy on these tasks is the one that is tested. Where a
    # scheme has no validation classes (omniglot's "paper"), it is the last one.
    config.validate = ConfigDict()
    config.validate.num_tasks = Count(200)  # tasks of validation classes
    # Meta-iterations without a better accuracy there after which training ends; 0 for never.
    config.validate.patience = Amount(0)

    config.evaluate = ConfigDict()
    config.evaluate.split = "test"  # or validation, train: whose classes are tested
    config.evaluate.num_tasks = Count(600)  # test tasks
    config.evaluate.queries = Count((shots,))  # query images per class; each number gives a row
    config.evaluate.num_inner_steps = Count(10)  # every number of steps up to it is tested
    # Step size at test: that of training unless it is set.
    config.evaluate.inner_lr = Amount(config.train.get_ref("inner_lr"))
    # Tasks that are adapted to at a time, 0 for what is fastest.
    config.evaluate.task_chunk = Amount(0)

    config.tune = ConfigDict()  # of the step size of fine-tuning, on validation tasks
    config.tune.num_tasks = Count(100)  # for every candidate
    # Step sizes; the one that is best on average over the inner steps is taken.
    config.tune.candidates = Amount((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0))
    return config


def resnet12(source: str, variant: Variant) -> Any:
    """The config of a large set of photos: a ResNet-12, images on disk, queries of 15 per class."""
    config = base(source, "resnet12", variant)
    config.data.on_disk = True
    config.data.augment.flip = True
    config.data.augment.crop = 8
    config.data.augment.colour = 0.4
    config.model.norm_scale = True
    config.train.queries = 15
    config.train.clip = 2.0  # as for miniImagenet
    config.train.minibatch = 64
    config.evaluate.queries = (15,)
    return with_protocol(config, variant)


def with_protocol(config: Any, variant: Variant) -> Any:
    """The config with what a method's own paper, or its authors' code, does otherwise.

    See docs/baselines.md. It comes last: what it says is the same for every image set.
    """
    if variant.option == "lstm":  # one task for each update, for 75,000 of them
        steps = 12 if variant.shots == 1 else 5
        config.train.num_inner_steps = config.evaluate.num_inner_steps = steps
        config.train.meta_batch = 1
        config.train.num_iterations = 75_000
        config.train.queries = 15
        config.train.clip, config.train.clip_norm = 0.0, 0.25
        config.train.remat = True  # a recurrent state for every parameter, in every step
    if variant.option == "pretrained":
        config.train.meta_batch = 2  # minibatches: one for each of two cores
    if variant.option == "memory":  # 16 streams of six examples of each class
        config.train.queries = max(6 - variant.shots, 1)
        config.train.meta_batch = 16
    if variant.option == "statistician":  # about 32 sets of five
        config.train.queries = max(5 - variant.shots, 1)
        config.train.meta_batch = 2 * max(16 // variant.ways, 1)
        config.train.clip = 0.5  # without it a loss of 170 once rose to 900
    return config
