"""The step of the build that compiles the lanes; hatchling calls it (pyproject.toml), nobody imports it."""

import runpy
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LanesBuildHook(BuildHookInterface[Any]):
    """Adds the compiled file to a wheel, or puts it in place for an editable install; never fails."""

    _folder: "tempfile.TemporaryDirectory[str] | None" = None  # where it is compiled for a wheel

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say why not."""
        here = Path(self.root, "regsvc", "bcrypt_lanes")
        compiling = runpy.run_path(str(here / "compiling.py"))  # what is being built is not installed yet
        name, editable = compiling["NAME"], version == "editable"
        if editable and compiling["fresh"](here / name):
            return
        self._folder = None if editable else tempfile.TemporaryDirectory(prefix="regsvc ")
        target = here if self._folder is None else Path(self._folder.name)
        try:
            made = compiling["compile_lanes"](target)
        except (compiling["CannotCompile"], OSError) as why:
            self.app.display_warning(f"bcrypt in lanes is not compiled, the bcrypt package does the work: {why}")
            return
        if not editable:
            build_data["force_include"][str(made)] = f"regsvc/bcrypt_lanes/{name}"
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Tidy up once the wheel is written."""
        if self._folder is not None:
            self._folder.cleanup()
