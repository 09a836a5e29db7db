"""Few-shot tieredImageNet (Ren et al. 2018).

    python -m experiments.tieredimagenet --config=configs/tieredimagenet.py:5way1shot \\
        --workdir=runs/tieredimagenet

As `experiments.omniglot`, on these images.
"""

from experiments.few_shot.experiment import run
from experiments.harness.main import main

if __name__ == "__main__":
    main(run, "configs/tieredimagenet.py")
