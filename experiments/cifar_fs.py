"""Few-shot CIFAR-FS and FC100 (Bertinetto et al. 2019, Oreshkin et al. 2018).

    mamljax train cifar_fs:5way1shot --config.data.dir=data/cifar100

As `experiments.omniglot`, on these images.
"""

from experiments.few_shot.experiment import run
from experiments.harness.main import main

if __name__ == "__main__":
    main(run, "configs/cifar_fs.py")
