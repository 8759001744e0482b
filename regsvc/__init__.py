"""regsvc: a self-hosted user-registration service on Trio."""

from importlib.metadata import version

__version__ = version("regsvc")
__all__ = ["__version__"]
