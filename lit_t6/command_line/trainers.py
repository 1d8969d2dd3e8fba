"""The commands that run Lightning's Trainer, and what each is for."""

PURPOSES = {
    "fit": "Train a model. Configuration files stack, later ones win, and every option can be typed, in any order.",
    "validate": "Loss, perplexity and bits per byte of a checkpoint on the validation split.",
    "test": "Loss, perplexity and bits per byte of a checkpoint on the test split.",
    "predict": "Loss and bits per byte of every document, as JSON lines (predictions.path).",
}
TRAINERS = tuple(PURPOSES)
