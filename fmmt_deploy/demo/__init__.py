"""Made-up data in the published formats, and small models that were trained on them: for `make demo` and for tests."""

from fmmt_deploy.demo.make import DemoData, make_demo, make_demo_data
from fmmt_deploy.demo.paths import DemoPaths, trained_run

__all__ = ["DemoData", "DemoPaths", "make_demo", "make_demo_data", "trained_run"]
