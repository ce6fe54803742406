"""The training loop: steps, early stopping, checkpoints; it knows no run folder and no terminal."""
