"""Kubeflow pipelines, their local driver and the command line."""
