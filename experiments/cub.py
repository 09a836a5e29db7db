"""Few-shot birds (Wah et al. 2011).

    python -m experiments.cub --config=configs/cub.py:5way1shot --workdir=runs/cub

As `experiments.omniglot`, on these images.
"""

from experiments.few_shot.experiment import run
from experiments.harness.main import main

if __name__ == "__main__":
    main(run, "configs/cub.py")
