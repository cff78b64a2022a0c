"""A tiny checkpoint and data set in the published formats, made by code: for `make demo` and for tests."""

from fmmt_deploy.demo.make import make_demo
from fmmt_deploy.demo.paths import DemoPaths

__all__ = ["DemoPaths", "make_demo"]
