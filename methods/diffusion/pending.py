"""Stand-ins for what is being written beside this; to be deleted."""

from __future__ import annotations

from typing import Any

try:
    from methods.networks.precision import use_fast_matmul
except ImportError:

    def use_fast_matmul() -> dict[str, Any]:
        """Nothing yet."""
        return {}


try:
    from methods.networks.temporal_unet import folded
except ImportError:

    def folded(unet: Any) -> Any:
        """Nothing yet."""
        return unet
