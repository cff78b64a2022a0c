"""Whether what a receipt says is still about what the bundle holds: one rule for `fmmt status` and the report."""

from __future__ import annotations

from collections.abc import Iterable

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.lanes import FLAVOURS, Lane, other_runtime
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.step import listed
from fmmt_deploy.receipts.subjects import changed

__all__ = ["why_stale"]


def why_stale(bundle: Bundle, receipt: Receipt, manifest: str, lanes: Iterable[Lane]) -> str:
    """Why a judgement no longer holds, or "".

    Args:
        bundle: The bundle as it is now.
        receipt: Of the judgement.
        manifest: See `manifest_problem`: with another tau, the same graphs answer otherwise.
        lanes: Engines that it is about. TensorRT's run with the version that built them only.
    """
    if others := changed(bundle, receipt.subjects):
        return f"{listed(others)} changed since"
    if manifest:
        return manifest
    runtimes = (other_runtime(lane, receipt) for lane in lanes if lane.engine in FLAVOURS)
    return next((f"it was with {other}" for other in runtimes if other), "")
