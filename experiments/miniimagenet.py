"""Few-shot miniImagenet (Finn et al. 2017, section 5.2, table 1).

    python -m experiments.miniimagenet --config=configs/miniimagenet.py:5way1shot --workdir=runs/m

Trains, keeps the checkpoint with the best validation accuracy, tests it, and writes report.json,
report.md, metrics.jsonl, TensorBoard events, checkpoints/ and figures/ into the work directory.
"""

from experiments import classification, settings

if __name__ == "__main__":
    settings.main(classification.run, "configs/miniimagenet.py")
