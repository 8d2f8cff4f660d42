"""Comparisons of whole searches and of training procedures: what was claimed, measured over seeds, with intervals. Without torch at import."""
