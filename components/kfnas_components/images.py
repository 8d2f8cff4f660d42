"""The image that components run in: this repository's wheel, kfp and every dependency.

Nothing is installed when a task starts. `python` is part of the name because kfp.local warns of any image whose name lacks it.
"""

from kfnas import __version__

STEPS_IMAGE = f"kfnas/steps-python:{__version__}"
