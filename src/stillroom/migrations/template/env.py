"""Alembic's environment: Alembic runs this file for each command."""

from __future__ import annotations

from stillroom.migrations.environment import run_task

run_task()
