"""Everything that can be shown on a machine with a GPU, in one go: `python -m fmmt_deploy.verification`."""
