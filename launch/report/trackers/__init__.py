"""Where a run's numbers go beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio, MLflow."""
