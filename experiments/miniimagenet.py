"""Few-shot miniImagenet (Finn et al. 2017, section 5.2, table 1).

    mamljax train miniimagenet:5way1shot --config.data.dir=data/miniimagenet

As `experiments.omniglot`, on these images.
"""

from experiments.few_shot.experiment import run
from experiments.harness.main import main

if __name__ == "__main__":
    main(run, "configs/miniimagenet.py")
