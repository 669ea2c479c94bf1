"""Chooses the profile of the tests before the shop is imported, for that configures its databases there and then."""

import os

os.environ["STILLROOM_PROFILE"] = "test"
