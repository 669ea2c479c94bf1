"""What Alembic asks of a directory of migrations: an environment, and the template of a revision."""
