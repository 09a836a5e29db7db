"""Few-shot miniImagenet (Finn et al. 2017, section 5.2, table 1).

    python -m experiments.miniimagenet --config=configs/miniimagenet.py --workdir=runs/mini

As `experiments.omniglot`, on these images.
"""

from experiments.few_shot.experiment import run
from experiments.harness.main import main

if __name__ == "__main__":
    main(run, "configs/miniimagenet.py")
