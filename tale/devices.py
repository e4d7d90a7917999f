"""Processes and their devices, through Lightning Fabric."""

from __future__ import annotations

from typing import Any

from lightning import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from tale.config import DevicesConfig
from tale.errors import UserError


def make_fabric(config: DevicesConfig, accelerator: str, **settings: Any) -> Fabric:
    """A Fabric, not yet launched, with the recipe's number of devices and machines.

    Raises:
        UserError: there are no such devices, or no such strategy or precision.
    """
    devices = int(config.devices) if config.devices.lstrip("-").isdigit() else config.devices
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=config.num_nodes, **settings)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"fabric: {str(error).strip().splitlines()[0]}") from error
