"""What is made, not written: the door to C and the trampoline; and the recipes' new place.

Everything else about the package stands in pyproject.toml.  An editable install makes the two files
in the checkout; a wheel carries them, and is a wheel for one kind of machine for that reason.
"""

import os
import shutil
import sys

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)


class Build(build_py):
    """Copy the modules, then build what they need beside them."""

    def run(self) -> None:
        """Editable: into the checkout itself."""
        from minicontainer import libc_build, trampoline_build

        super().run()
        folder = os.path.join(HERE if self.editable_mode else self.build_lib, "minicontainer")
        if not self.editable_mode:
            skip = shutil.ignore_patterns("__pycache__")
            recipes = os.path.join(folder, "rootfs")
            shutil.copytree(os.path.join(HERE, "rootfs"), recipes, ignore=skip, dirs_exist_ok=True)
        libc_build.main(folder)
        trampoline_build.build(os.path.join(folder, "trampoline"))


class OneMachine(Distribution):
    """A distribution with a compiled program in it."""

    def has_ext_modules(self) -> bool:
        """Yes, as far as the wheel's name is concerned."""
        return True


setup(cmdclass={"build_py": Build}, distclass=OneMachine)
