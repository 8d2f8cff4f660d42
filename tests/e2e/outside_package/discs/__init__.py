"""A package outside kfnas: a space of plain towers of convolutions, and the task of telling how large a disc is."""
