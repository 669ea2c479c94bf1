"""
The settings of an application's databases: read, validated, frozen.
"""

from stillroom.settings.model import DatabaseSettings, Settings
from stillroom.settings.schema import RESERVED_NAMES

__all__ = ["RESERVED_NAMES", "DatabaseSettings", "Settings"]
