"""Few-shot Omniglot characters (Finn et al. 2017, section 5.2, table 1).

    mamljax train omniglot:5way1shot --config.data.dir=data/omniglot

Trains, keeps the checkpoint with the best validation accuracy, tests it, and writes report.json,
report.md, metrics.jsonl, TensorBoard events, checkpoints/ and figures/ into the work directory.
"""

from experiments.few_shot.experiment import run
from experiments.harness.main import main

if __name__ == "__main__":
    main(run, "configs/omniglot.py")
