"""Read sweep folders: runs, predictions, learning curves, model selection and tidy export."""
