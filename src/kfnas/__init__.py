"""kfnas: neural architecture search as Kubeflow pipelines."""

__version__ = "0.1.0"
