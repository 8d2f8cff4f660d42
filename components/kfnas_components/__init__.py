"""Kubeflow components: thin shims over `kfnas.steps`."""
