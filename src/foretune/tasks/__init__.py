"""One file per task: targets, head, loss, predictions, metrics. Importing a file registers its task."""
